"""`tlvm logs --machine`: the console and the startup script of a machine, while nobody can come in, and at any time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.cli import main
from orchestrator.providers.base import MachineState
from orchestrator.workflows.machines.machine_log import machine_log
from tests.fakes.compute_cloud import Clock
from tests.fakes.compute_hardware import NoHardware
from tests.fakes.compute_server import PROJECT, ComputeServer
from tests.orchestrator.gce_cloud import OFFER, gce, wanted
from tests.orchestrator.gce_workspace import Told
from tests.orchestrator.scripted_provider import Scripted, machine_of, scripted

NAME = "tlvm-ana-default"
NOISE = [f"[  {number}.0] kernel: line {number}" for number in range(100)]
STARTUP = "google_metadata_script_runner[812]: startup-script: tlvm: guard started"


class Mute(NoHardware):
    """Writes nothing to its serial port by itself."""

    def console(self, id: str) -> str:
        return ""


@pytest.fixture
def server() -> Iterator[ComputeServer]:
    with ComputeServer(clock=Clock(rate=0), wait_s=0.05, machines=Mute()) as running:
        gce(running).create(wanted(name=NAME, project="default"), OFFER)
        yield running
        assert running.errors == []


@pytest.fixture
def tlvm(
    server: ComputeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> object:
    variables = {
        "PROVIDER": "gce", "OWNER": "ana", "GCE_PROJECT": PROJECT, "GCE_ENDPOINT": server.url,
        "STORE_URL": "gs://trees-4711-tlvm", "GCE_SSH_SOURCE_RANGES": "203.0.113.7/32",
        "DATA_DIR": str(tmp_path / "data"),
    }  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(f"TLVM_{name}", value)
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit:
            main(list(words))
        said = capsys.readouterr()
        return int(exit.value.code or 0), said.out, said.err

    return call


def put(server: ComputeServer, lines: list[str]) -> None:
    (id,) = [found["id"] for found in server.cloud.resources["instances"].values()]
    server.cloud.guests[id].console = "\n".join(lines) + "\n"


@pytest.mark.parametrize("words", [("--machine",), ("--machine", NAME), ("--machine", "--provider", "gce")])
def test_the_end_of_the_console_and_what_the_startup_script_said(
    server: ComputeServer, tlvm: object, words: tuple[str, ...]
) -> None:
    put(server, [STARTUP, *NOISE, "Kernel panic - not syncing\x1b[31m"])
    code, out, _ = tlvm("logs", *words)  # type: ignore[operator]
    lines = out.splitlines()
    assert code == 0 and lines[0] == STARTUP and "Kernel panic" in lines[-1]
    assert NOISE[-1] in lines and NOISE[0] not in lines and "\x1b" not in out


def test_as_an_object_a_line(server: ComputeServer, tlvm: object) -> None:
    put(server, ["tlvm: ready"])
    code, out, _ = tlvm("logs", "--machine", "--json")  # type: ignore[operator]
    assert code == 0 and json.loads(out) == {"schema": 1, "command": "logs", "line": "tlvm: ready"}


def test_nothing_said_and_nothing_named(server: ComputeServer, tlvm: object) -> None:
    code, _, said = tlvm("logs", "--machine")  # type: ignore[operator]
    assert code == 7 and "has said nothing yet" in said
    code, _, said = tlvm("logs")  # type: ignore[operator]
    assert code == 2 and "tlvm logs --machine" in said
    code, _, said = tlvm("logs", "--machine", "tlvm-other")  # type: ignore[operator]
    assert code == 4 and "tlvm-other" in said


def test_where_nothing_boots_nothing_is_said_and_nothing_will_be(tmp_path: Path) -> None:
    class Silent(Scripted):
        def said(self, name: str) -> str:
            return ""

    provider, progress = Silent([None]), Told()
    provider.there["tlvm-ana-default"] = machine_of("tlvm-ana-default", state=MachineState.RUNNING)
    here = scripted(tmp_path, provider)
    here.progress = progress
    assert machine_log(here) == []
    (line,) = progress.lines
    assert "on the provider local a machine writes only what goes wrong" in line and "tlvm logs RUN" in line


def test_authorize_says_once_who_comes_in(server: ComputeServer, tlvm: object) -> None:
    code, out, said = tlvm("authorize", "--machine", NAME)  # type: ignore[operator]
    assert code == 0 and out.count("lets this computer in until") == 1
    assert "lets this computer in" not in said
    (made,) = server.cloud.resources["instances"].values()
    keys = {item["key"]: item["value"] for item in made["metadata"]["items"]}["ssh-keys"]
    assert len(keys.splitlines()) == 2  # of the computer that made it, and of this one
