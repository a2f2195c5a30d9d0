"""What is said of runs that have not ended: machines that are gone, stopped or silent, and supervisors that were killed."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.errors import ConflictError, ConnectionLost
from orchestrator.progress import Silent
from orchestrator.providers.base import Machine, MachineState, Unseen
from orchestrator.records import RunRecord
from orchestrator.render import machines as render_machines
from orchestrator.render import runs as render_runs
from orchestrator.render.console import Screen
from orchestrator.render.text import clock
from orchestrator.ssh import Connection
from orchestrator.workflows.clock import Clock
from orchestrator.workflows.machines.down import down
from orchestrator.workflows.machines.status import status
from orchestrator.workflows.runs.logs import logs
from orchestrator.workflows.runs.overview import RunRow, RunsResult, runs
from orchestrator.workflows.runs.run import run
from orchestrator.workflows.runs.stored_streams import follow_stored
from orchestrator.workflows.workspace import Workspace
from remote.contract import document, layout
from remote.contract.run_attempt import Attempt
from remote.contract.run_status import RunStatus
from tests.orchestrator.scripted_provider import Scripted, machine_of, scripted
from tests.orchestrator.stored_runs import RUN, put, put_run
from tests.orchestrator.test_run import go, opened, project
from tests.remote.machine import eventually

__all__ = ["project"]  # the machine of the runs' tests

LONG_AGO = datetime.now(UTC) - timedelta(hours=2)


@pytest.fixture
def with_run(tmp_path: Path) -> tuple[Workspace, Scripted, Machine]:
    """A run that said RUNNING two hours ago, and the machine that it is on."""
    provider = Scripted([])
    workspace = scripted(tmp_path, provider)
    machine = machine_of(
        workspace.settings.machine_name, state=MachineState.RUNNING, created=LONG_AGO - timedelta(hours=1)
    )
    provider.there[machine.name] = machine
    put_run(workspace, tmp_path, machine, state="RUNNING", publish=False)
    said = RunStatus(RUN, "RUNNING", LONG_AGO.isoformat(), message="fetching")
    put(workspace, tmp_path, "status.json", document.encode(said))
    return workspace, provider, machine


def row(workspace: Workspace) -> RunRow:
    (found,) = runs(workspace).runs
    return found


def shown(workspace: Workspace) -> str:
    out = io.StringIO()
    render_runs.listed(Screen(out, io.StringIO()), runs(workspace))
    return out.getvalue()


With = tuple[Workspace, Scripted, Machine]


def test_a_machine_that_is_gone_is_said_with_the_last_word(with_run: With) -> None:
    workspace, provider, machine = with_run
    del provider.there[machine.name]
    found = row(workspace)
    assert (found.state, found.doubt, found.updated) == ("LOST", "its machine is gone", LONG_AGO.isoformat())
    assert f"its machine is gone, no word since {clock(LONG_AGO)}" in shown(workspace)
    assert "running" not in shown(workspace) and "fetching" not in shown(workspace)
    (line,) = status(workspace).other_runs
    assert (line.state, line.doubt) == ("LOST", "its machine is gone")
    out = io.StringIO()
    render_machines.overview(Screen(out, io.StringIO()), status(workspace))
    assert out.getvalue().splitlines()[-1] == f"next: tlvm attach --recover {RUN[-4:]}"


def test_on_a_stopped_machine_nothing_runs(with_run: With) -> None:
    workspace, provider, machine = with_run
    provider.there[machine.name] = dataclasses.replace(machine, state=MachineState.STOPPED)
    assert (row(workspace).state, row(workspace).doubt) == ("INTERRUPTED", "its machine is stopped")
    out = io.StringIO()
    render_machines.overview(Screen(out, io.StringIO()), status(workspace))
    assert f"its machine is stopped, no word since {clock(LONG_AGO)}" in out.getvalue()


def test_a_machine_that_does_not_answer_is_said(with_run: With) -> None:
    workspace, _, _ = with_run

    def away(machine: Machine, *, timeout_s: float = 10) -> Connection:
        raise ConnectionLost("nobody answers")

    vars(workspace)["connect"] = away
    assert (row(workspace).state, row(workspace).doubt) == ("RUNNING", "its machine can't be asked")
    assert f"its machine can't be asked, no word since {clock(LONG_AGO)}" in shown(workspace)


def test_a_machine_of_another_provider_is_not_called_gone(with_run: With) -> None:
    workspace, provider, machine = with_run
    workspace.records.save_run(RunRecord(RUN, machine.name, "docker", "now"))
    provider.there.clear()
    assert row(workspace).doubt == "its machine is on the provider docker, which was not asked"


def test_a_machine_of_that_name_on_another_provider_has_nothing_of_it(with_run: With, tmp_path: Path) -> None:
    workspace, _, machine = with_run
    asked = Attempt(1, machine.name, "docker", "Docker on this computer", 0, LONG_AGO.isoformat())
    put(workspace, tmp_path, "attempts/1.json", document.encode(asked))
    workspace.records.save_run(RunRecord(RUN, machine.name, "docker", "now"))
    assert row(workspace).doubt == "its machine is on the provider docker, which was not asked"
    (line,) = status(workspace).machines
    assert line.runs == [], "another machine has it"
    down(workspace)


def test_a_run_that_spoke_a_moment_ago_is_believed(with_run: With, tmp_path: Path) -> None:
    workspace, _, _ = with_run  # whose machine can't be connected to
    said = RunStatus(RUN, "RUNNING", datetime.now(UTC).isoformat(), message="training")
    put(workspace, tmp_path, "status.json", document.encode(said))
    assert (row(workspace).state, row(workspace).message, row(workspace).doubt) == ("RUNNING", "training", "")


class Out(Scripted):
    """A provider that can't ask the place of the machine."""

    def machines(self) -> list[Machine]:
        raise Unseen("The cloud can't say which machines are in place-0", places=["place-0"])

    def get(self, name: str) -> Machine | None:
        return self.machines()[0]


def test_in_an_outage_runs_are_shown_and_none_is_called_lost(with_run: With) -> None:
    workspace, _, _ = with_run
    workspace.provider = Out([])
    found = runs(workspace)
    assert [problem.count("place-0") for problem in found.problems] == [1]
    said = [(line.state, line.goes_on_with, line.doubt) for line in found.runs]
    assert said == [("RUNNING", "", "its machine is not seen, and not every place can be asked")]
    assert [(line.state, line.goes_on_with, line.doubt) for line in status(workspace).other_runs] == said


@pytest.mark.parametrize("follow", [False, True])
def test_in_an_outage_logs_are_those_of_the_store(with_run: With, tmp_path: Path, follow: bool) -> None:
    workspace, _, _ = with_run
    put(workspace, tmp_path, "log/0000000000000000", "one\ntwo\n")

    class Ending(Out):
        """And the run ends meanwhile."""

        def get(self, name: str) -> Machine | None:
            put(workspace, tmp_path, "status.json", document.encode(RunStatus(RUN, "FAILED", "now")))
            return super().get(name)

    workspace.provider = Ending([])
    told = workspace.progress = Warnings()
    assert list(logs(workspace, RUN, follow=follow)) == ["one", "two"]
    assert [text.count("place-0") for text in told.texts] == [1]


class Warnings(Silent):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def warn(self, text: str) -> None:
        self.texts.append(text)


def test_whoever_follows_through_the_store_outlives_an_outage(with_run: With, tmp_path: Path) -> None:
    workspace, _, _ = with_run
    workspace.provider = Out([])
    polls = 0

    def sleep(seconds: float) -> None:
        nonlocal polls
        polls += 1
        if polls == 13:
            put(workspace, tmp_path, "status.json", document.encode(RunStatus(RUN, "FAILED", "now")))

    following = follow_stored(workspace, RUN, "log", clock=Clock(now=lambda: 0.0, sleep=sleep))
    assert list(following) == [] and polls == 13


@pytest.fixture
def killed(project: Path) -> Iterator[str]:
    """A run at work whose supervisor and training were killed."""
    workspace = opened(project, seed=60)
    run_id = run(workspace, "fixed-extractor", detach=True).run_id
    home = go(project).parent
    folder = home / "runs" / run_id

    def said() -> bool:
        key = layout.run_key(run_id, "status.json")
        return workspace.store.get(key) is not None and row_of(workspace, run_id).state == "RUNNING"

    eventually(said)
    pid = json.loads((folder / "supervisor.json").read_bytes())["pid"]
    os.killpg(os.getpgid(pid), signal.SIGKILL)
    yield run_id
    for key in [blob.key for blob in workspace.store.blobs(layout.run_key(run_id, ""))]:
        workspace.store.delete(key)


def row_of(workspace: Workspace, run_id: str) -> RunRow:
    (found,) = [row for row in runs(workspace).runs if row.run_id == run_id]
    return found


def test_a_killed_supervisor_is_never_called_running(project: Path, killed: str) -> None:
    workspace = opened(project)  # and what it said a moment ago is not waited for
    eventually(lambda: row_of(workspace, killed).state != "RUNNING")
    found = row_of(workspace, killed)
    assert (found.state, found.doubt) == ("INTERRUPTED", "nothing of it runs on its machine")
    lines = [line for machine in status(workspace).machines for line in machine.runs]
    assert [(line.state, line.doubt) for line in lines if line.run_id == killed] == [
        ("INTERRUPTED", "nothing of it runs on its machine")
    ]
    out = io.StringIO()
    render_machines.overview(Screen(out, io.StringIO()), status(workspace))
    assert f"next: tlvm attach {killed[-4:]}" in out.getvalue()
    with pytest.raises(ConflictError, match="a run on it has not ended") as raised:
        down(workspace)
    assert f"{killed}: interrupted, nothing of it runs on its machine" in raised.value.detail
    assert f"tlvm attach {killed[-4:]}" in raised.value.next


def test_a_word_of_doubt_takes_the_place_of_the_message() -> None:
    out = io.StringIO()
    said = RunRow(
        RUN, "LOST", "fetching", "fixed-extractor", "trees", "a" * 64, "resnet18", "none", "m", "ana", "trees",
        LONG_AGO.isoformat(), None, None, False, None, LONG_AGO.isoformat(), "its machine is gone",
    )  # fmt: skip
    render_runs.listed(Screen(out, io.StringIO()), RunsResult("/store", [said], []))
    assert f"its machine is gone, no word since {clock(LONG_AGO)}" in out.getvalue()
    assert "fetching" not in out.getvalue()
