"""Variables that a run's training gets: where they come from, what is refused, and that no message ever holds a value."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.cli import bug
from orchestrator.config import load
from orchestrator.errors import ConfigError
from orchestrator.workflows.runs.secrets import require, variables

SECRET = "correct-horse-battery-staple"


def test_a_later_source_holds_over_an_earlier_one(tmp_path: Path) -> None:
    file = tmp_path / "run.env"
    file.write_text("# of the lab\n\nexport B=file\nC='two words'\nTOKEN\n D = spaced \n", encoding="utf-8")
    found = variables(
        ["A=settings", "B=settings"], files=[file], given=["A=given"], environ={"TOKEN": SECRET}
    )
    assert found == {"A": "given", "B": "file", "C": "two words", "TOKEN": SECRET, "D": "spaced"}


def test_settings_name_variables_and_a_file(tmp_path: Path) -> None:
    (tmp_path / "tlvm.toml").write_text('[run]\nenv = ["A", "B=x,y"]\nenv_file = "run.env"\n')
    run = load({}, environ={}, folder=tmp_path).run
    assert (run.env, run.env_file) == (("A", "B=x,y"), Path("run.env"))
    assert load({}, environ={"TLVM_RUN_ENV": "A, B=1"}, folder=tmp_path).run.env == ("A", "B=1")


@pytest.mark.parametrize(
    "given",
    [
        ["TOKEN"],  # not set here
        [SECRET],  # somebody forgot the name
        [f"1A={SECRET}"],
        [f"A B={SECRET}"],
        [f"TLVM_STORE_URL={SECRET}"],
        [f"PYTHONPATH={SECRET}"],
        [f"A={SECRET}\0"],
        [f"A={SECRET * 6000}"],
    ],
)
def test_what_is_refused_is_said_without_its_value(given: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        variables([], given=given, environ={})
    assert SECRET not in str(raised.value)


def test_a_file_that_can_not_be_read_or_holds_something_else(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read") as raised:
        variables([], files=[tmp_path / "none.env"], environ={})
    assert raised.value.next
    file = tmp_path / "run.env"
    file.write_text(f"A=1\nsome {SECRET}\n")
    with pytest.raises(ConfigError, match="line 2") as raised:
        variables([], files=[file], environ={})
    assert SECRET not in str(raised.value)
    file.write_bytes(b"A=\xff")
    with pytest.raises(ConfigError, match="UTF-8"):
        variables([], files=[file], environ={})


def test_a_run_that_begins_again_needs_the_same_names() -> None:
    assert require(["A"], {"A": "1", "B": "2"}, "k3qz") == {"A": "1"}
    assert require([], {}, "k3qz") == {}
    with pytest.raises(ConfigError, match=r"k3qz needs variables that are not set here: B, C"):
        require(["A", "B", "C"], {"A": "1"}, "k3qz")


@pytest.mark.parametrize("words", [["--env", f"TOKEN={SECRET}"], [f"--env=TOKEN={SECRET} x"]])
def test_a_report_of_a_bug_holds_no_value(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TLVM_DATA_DIR", str(tmp_path))
    bug.written(["run", "fixed-extractor", *words], ValueError("x"))
    (report,) = tmp_path.glob("bugs/*.txt")
    assert SECRET not in report.read_text() and "TOKEN=[removed]" in report.read_text()
