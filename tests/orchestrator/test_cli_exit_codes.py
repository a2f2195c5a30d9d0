"""What the command line ends with, and says then: results, errors with what to do next, bugs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator import __version__
from orchestrator.cli import options
from orchestrator.cli.app import main
from tests.orchestrator.command_line import Answer

Tlvm = Callable[..., Answer]


@pytest.fixture
def tlvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tlvm:
    """`tlvm` in this process, in an empty folder."""
    for name in [name for name in os.environ if name.startswith("TLVM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TLVM_DATA_DIR", str(tmp_path / "data"))
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def run(*words: str) -> Answer:
        with pytest.raises(SystemExit) as exit:
            main(words)
        shown = capsys.readouterr()
        return Answer(exit.value.code, shown.out, shown.err)

    return run


def test_version(tlvm: Tlvm) -> None:
    assert tlvm("--version").out == f"tlvm {__version__}\n"


def test_an_error_is_three_parts_on_stderr_and_an_object_with_json(tlvm: Tlvm) -> None:
    plain = tlvm("pull", "nothing")
    assert (plain.code, plain.out) == (4, "")
    assert plain.err.startswith("error   There is no run 'nothing'")
    assert "\nnext    " in plain.err
    asked = tlvm("pull", "nothing", "--json")
    found = json.loads(asked.out)
    assert (asked.code, found["schema"], found["command"]) == (4, 1, "pull")
    assert found["error"]["class"] == "NotFoundError"
    assert found["error"]["exit_code"] == 4
    assert set(found["error"]) == {"class", "exit_code", "what", "detail", "next"}


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ("runs rm nothing", "runs rm"),
        ("runs tag nothing good", "runs tag"),
        ("datasets rm nothing", "datasets rm"),
        ("runs --tag bad --machine nothing", "runs"),
        ("runs tag", "runs tag"),  # which typer refuses
        ("nothing", "nothing"),
    ],
)
def test_an_error_names_the_command_as_its_result_does(tlvm: Tlvm, words: str, command: str) -> None:
    assert json.loads(tlvm(*words.split(), "--json").out)["command"] == command


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["upload"], "Missing argument"),
        (["statsu"], "statsu"),
        (["run", "fixed-extractor", "--seed", "one"], "--seed"),
        (["run", "fixed-extractor", "--set", "folds"], "KEY=VALUE"),
        (["run", "fixed-extractr", "--data", "x"], "fixed-extractor"),
        (["up", "--provider", "dokcer"], "docker"),
        (["up", "--machine", "No Such"], "--machine"),
        (["up", "--max-hours", "1000"], "--max-hours"),
        (["ssh", "-L", "nonsense"], "LOCAL:HOST:PORT"),
        (["upload", ".", "--flips", "sideways"], "horizontal"),
        ([], "Usage"),
    ],
)
def test_wrong_use_is_exit_2_and_says_what(tlvm: Tlvm, words: list[str], said: str) -> None:
    answer = tlvm(*words)
    assert answer.code == 2
    assert said in answer.err + answer.out


@pytest.mark.parametrize(
    ("words", "error", "next"),
    [
        ("statsu", "No such command 'statsu'", "Did you mean 'status'"),
        ("datasets shw", "No such command 'shw'", "Did you mean 'show'? tlvm datasets --help lists the"),
        ("frobnicate", "No such command 'frobnicate'", "tlvm --help lists the commands."),
        ("status --jsn", "No such option: --jsn", "Did you mean --json? tlvm status --help explains it."),
        ("status more", "Got unexpected extra argument", "tlvm status --help explains it."),
        ("up --max-hours", "Option '--max-hours' requires an argument", "tlvm up --help explains it."),
    ],
)
def test_what_the_parser_refuses_looks_like_every_error(
    tlvm: Tlvm, words: str, error: str, next: str
) -> None:
    lines = tlvm(*words.split()).err.splitlines()
    assert lines[0].startswith(f"error   {error}") and lines[-1].startswith(f"next    {next}")
    assert len(lines) <= 3 and not any(line.startswith(("Error", "Usage", "Try")) for line in lines)


def test_wrong_use_with_json_is_an_object_too(tlvm: Tlvm) -> None:
    answer = tlvm("upload", "--json")
    assert answer.code == 2
    error = json.loads(answer.out)["error"]
    assert (error["class"], error["what"], error["next"]) == (
        "UsageError",
        "Missing argument 'DIR'",
        "tlvm upload --help explains it.",
    )


@pytest.mark.parametrize(
    "words", [["run", "fixed-extractor"], ["upload", "missing"], ["logs", "x"], ["predict", "x", "y"]]
)
def test_what_is_missing_is_exit_4_and_says_what_to_do(tlvm: Tlvm, words: list[str]) -> None:
    answer = tlvm(*words)
    assert answer.code == 4, answer.err
    assert "next    " in answer.err


def test_nothing_there_is_no_error(tlvm: Tlvm) -> None:
    for words in (["status"], ["datasets"], ["runs"], ["down"]):
        answer = tlvm(*words)
        assert answer.code == 0
        assert answer.out.splitlines()[-1].startswith("next: ")
        document = json.loads(tlvm(*words, "--json").out)
        assert (document["schema"], document["command"]) == (1, words[0])


def test_up_dry_run_creates_nothing(tlvm: Tlvm, tmp_path: Path) -> None:
    found = json.loads(tlvm("up", "--dry-run", "--json").out)
    assert found["machine"] is None
    assert found["offers"][0]["price_per_hour"] == 0
    assert "after its start; free" in tlvm("up", "--dry-run").out
    assert not (tmp_path / "data").exists()


def test_init_writes_once(tlvm: Tlvm) -> None:
    answer = tlvm("init", "--provider", "docker", "--store", 'gs://trees "4711"')
    assert answer.code == 0 and answer.out.splitlines()[-1] == "next: tlvm doctor"
    text = Path("tlvm.toml").read_text()
    assert 'provider = "docker"' in text and 'url = "gs://trees \\"4711\\""' in text
    assert tlvm("init").code == 10
    assert Path("tlvm.toml").read_text() == text
    assert tlvm("init", "--yes").code == 0
    assert 'provider = "local"' in Path("tlvm.toml").read_text()
    assert tlvm("init", "--yes", "--provider", "aws").code == 2


def test_doctor_looks_at_this_computer(tlvm: Tlvm) -> None:
    answer = tlvm("doctor", "--json")
    found = json.loads(answer.out)
    names = [finding["name"] for finding in found["findings"]]
    for name in ("python", "torch", "cores", "gpu", "disk", "docker"):
        assert name in names
    assert answer.code == found["exit_code"]


def test_a_bug_is_exit_1_with_a_traceback_and_where_to_report(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(common: options.Common) -> None:
        raise ZeroDivisionError("ours, Authorization: Bearer ya29.a0AfH6SMB")

    monkeypatch.setenv("TLVM_DATA_DIR", str(tmp_path))

    monkeypatch.setattr("orchestrator.cli.app.COMMANDS", (options.command()(broken),))
    with pytest.raises(SystemExit) as exit:
        main(["broken", "--json"])
    shown = capsys.readouterr()
    assert exit.value.code == 1
    assert "ZeroDivisionError: ours" in shown.err
    (file,) = (tmp_path / "bugs").iterdir()
    assert f"Please report it to whoever maintains it for you: send {file} and" in shown.err
    assert file.stat().st_mode & 0o777 == 0o600
    text = file.read_text()
    assert "ZeroDivisionError: ours" in text and f"tlvm {__version__}, Python " in text
    assert "tlvm broken --json" in text
    error = json.loads(shown.out)["error"]
    assert (error["class"], error["exit_code"]) == ("Bug", 1) and str(file) in error["next"]
    assert "a0AfH6SMB" not in text + shown.err + shown.out
    assert "http" not in shown.err


def test_a_bug_that_can_not_be_written_down_is_still_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(common: options.Common) -> None:
        raise ZeroDivisionError("ours")

    (tmp_path / "file").touch()
    monkeypatch.setenv("TLVM_DATA_DIR", str(tmp_path / "file"))
    monkeypatch.setattr("orchestrator.cli.app.COMMANDS", (options.command()(broken),))
    with pytest.raises(SystemExit):
        main(["broken"])
    assert "with the lines above and what you did." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "next"),
    [
        ("run", "tlvm run --spec RUN repeats a run"),
        ("run all --spec k3qz", "tlvm run --spec k3qz"),
        ("run fixed-extractor --ephemeral --machine tlvm-mine", "Leave one of them out"),
        ("run fixed-extractor from-scratch --spec k3qz", "tlvm run --spec k3qz"),
        ("run fixed-extractor --rehearse --detach", "without it and with --detach"),
        ("run fixed-extractor --rehearse --if-changed", "without it and with --if-changed"),
    ],
)
def test_words_of_a_run_that_exclude_each_other_say_what_to_write(tlvm: Tlvm, words: str, next: str) -> None:
    answer = tlvm(*words.split())
    assert answer.code == 2
    assert next in answer.err
