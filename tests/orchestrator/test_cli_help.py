"""The help of the command line, and completion; what is loaded only when it is needed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator import errors
from orchestrator.cli import options
from orchestrator.cli.app import BELOW, COMMANDS
from orchestrator.errors import TlvmError
from tests.orchestrator.command_line import Process

NAMES = [command.name for command in COMMANDS]
HEAVY = {
    "torch",
    "google",
    "fabric",
    "paramiko",
    "docker",
    "asyncssh",
    "rich",
    "numpy",
    "PIL",
    "platformdirs",
}


@pytest.fixture
def process(tmp_path: Path) -> Process:
    return Process(tmp_path)


@pytest.fixture(scope="module")
def helps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The help of every command, and what was loaded for each, from one process."""
    script = """
import contextlib, io, json, sys
from orchestrator.cli.app import COMMANDS, main
pages = {}
for words in [[], *[[command.name] for command in COMMANDS]]:
    with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
        main([*words, "--help"])
    pages[" ".join(words)] = text.getvalue()
    pages["loaded"] = " ".join(sorted({name.split(".")[0] for name in sys.modules}))
    pages.setdefault("loaded first", pages["loaded"])
print(json.dumps(pages))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True,
                          cwd=Path(__file__).parents[2])  # fmt: skip
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_help_loads_nothing_heavy(helps: dict[str, str]) -> None:
    assert HEAVY & set(helps["loaded"].split()) == set()
    assert "pydantic" not in helps["loaded first"].split()  # typer itself needs it for the help of a command


def test_a_run_loads_nothing_that_decodes_images_or_talks_before_it_must() -> None:
    script = "import sys, orchestrator.workflows.runs.run, orchestrator.workflows.runs.overview, orchestrator.render.runs; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True,
                          cwd=Path(__file__).parents[2])  # fmt: skip
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert {"numpy", "PIL", "requests", "torch", "google", "docker", "asyncssh", "fabric"} & loaded == set()


def test_the_commands_are_those_of_the_design(helps: dict[str, str]) -> None:
    for name in [
        "init",
        "up",
        "status",
        "upload",
        "datasets",
        "run",
        "runs",
        "logs",
        "pull",
        "predict",
        "evaluate",
        "compare",
        "weights",
        "ssh",
        "down",
        "doctor",
        "demo",
    ]:
        assert re.search(rf"^  {name} ", helps[""], flags=re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
def test_every_help_has_the_common_options_and_ends_with_exit_codes(helps: dict[str, str], name: str) -> None:
    page = helps[name]
    for option in ("--machine", "--dataset", "--provider", "--yes", "--json", "--verbose"):
        assert option in page
    _, found, codes = page.partition("Exit codes:\n")
    assert found and not re.search(r"\[\[|\.\.\.[\]}]", page)  # [RUN] and [NAME]..., not [[RUN]]
    lines = [line.split(maxsplit=1) for line in codes.strip().splitlines()]
    numbers = [int(number) for number, _ in lines]
    assert numbers[0] == 0 and numbers[-1] == 130 and numbers == sorted(numbers) and {1, 2} < set(numbers)


def test_the_short_descriptions_are_not_cut(helps: dict[str, str]) -> None:
    assert "..." not in helps[""].partition("Commands:")[2].partition("The way:")[0]


def test_every_error_class_is_described() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, TlvmError)]
    described = options.descriptions()
    assert {kind.__name__ for kind in kinds if kind is not TlvmError} == set(described) - {"TlvmError"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_can_be_shown(process: Process, shell: str) -> None:
    answer = process("--show-completion", shell)
    assert answer.code == 0
    assert "_TLVM_COMPLETE" in answer.out


def complete(process: Process, line: str) -> list[str]:
    words = line.split(" ")
    answer = process(_TLVM_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1))
    return answer.out.split()


def test_names_are_completed_from_what_is_here(process: Process, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "records" / "machines" / "local").mkdir(parents=True)
    (data / "records" / "machines" / "local" / "tlvm-ana-trees.json").write_text("{}")
    (data / "records" / "runs").mkdir()
    for run in ("fixed-extractor-20260807-142530-k3qz", "from-scratch-20270101-000000-aaaa"):
        (data / "records" / "runs" / f"{run}.json").write_text("{}")
    (data / "store" / "datasets" / "trees").mkdir(parents=True)
    stored = data / "store" / "runs" / "initial-layers-20260101-000000-x7yz"
    stored.mkdir(parents=True)
    (stored / "spec.json").write_text("{}")
    assert "upload" in complete(process, "tlvm up")
    assert complete(process, "tlvm run fix") == ["fixed-extractor"]
    assert complete(process, "tlvm up --provider d") == ["docker"]
    assert complete(process, "tlvm status --machine tl") == ["tlvm-ana-trees"]
    assert complete(process, "tlvm run fixed-extractor --dataset t") == ["trees"]
    assert complete(process, "tlvm logs f") == [
        "from-scratch-20270101-000000-aaaa",
        "fixed-extractor-20260807-142530-k3qz",
    ]
    assert complete(process, "tlvm pull k3") == ["k3qz"]
    assert complete(process, "tlvm predict x7") == ["x7yz"]
    assert complete(process, "tlvm run --spec fix") == ["fixed-extractor-20260807-142530-k3qz"]
    assert "resnet18" in complete(process, "tlvm run fixed-extractor --model res")
    assert complete(process, "tlvm run fixed-extractor --set fo") == ["folds="]


def test_the_help_of_run_is_no_longer_than_a_screen_and_a_half(helps: dict[str, str]) -> None:
    assert len(helps["run"].splitlines()) <= 64


def test_completion_survives_a_broken_file(process: Process) -> None:
    (process.folder / "tlvm.toml").write_text("store = [")
    assert complete(process, "tlvm run fixed-extractor --dataset t") == []


def test_the_page_about_json_is_that_of_the_results() -> None:
    from orchestrator.render.json_schema import RESULTS, page

    assert (Path(__file__).parents[2] / "docs" / "json.md").read_text(encoding="utf-8") == page()
    below = {f"{name} {one.name}" for name, commands in BELOW.items() for one in commands}
    others = {
        "pull --all",
        "run A B, run all",
        "run --rehearse",
    }  # what a command prints for several things at once
    assert set(RESULTS) | {"logs"} == set(NAMES) | below | others
