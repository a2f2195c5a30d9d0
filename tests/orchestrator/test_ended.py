"""A machine that somebody ends on purpose, on whatever provider: nobody brings its run back without being asked to."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.errors import ConnectionLost
from orchestrator.providers.base import Machine, MachineState
from orchestrator.records import RunRecord
from orchestrator.workflows.machines.down import down
from orchestrator.workflows.machines.power import stop
from orchestrator.workflows.runs.attach import attach
from orchestrator.workflows.runs.documents import required_run
from orchestrator.workflows.runs.ended import was_ended
from orchestrator.workflows.runs.following import MachineLost
from orchestrator.workflows.runs.overview import runs
from orchestrator.workflows.runs.recover import Recovery, bring_back
from orchestrator.workflows.runs.tag import tag
from orchestrator.workflows.workspace import Workspace
from remote.contract import document
from remote.contract.run_status import RunStatus
from tests.orchestrator.scripted_provider import FakeTime, Scripted, machine_of, scripted
from tests.orchestrator.stored_runs import RUN, put, put_run

LOST = MachineLost("Its machine is gone", how="gone")


class Stoppable(Scripted):
    def stop(self, name: str) -> None:
        self.there[name] = dataclasses.replace(self.there[name], state=MachineState.STOPPED)


With = tuple[Workspace, Stoppable, Machine]


@pytest.fixture
def at_work(tmp_path: Path) -> With:
    """A run at work that was begun with --recover, on a machine that costs nothing."""
    provider = Stoppable([None])
    workspace = scripted(tmp_path, provider)
    machine = machine_of(workspace.settings.machine_name, state=MachineState.RUNNING)
    provider.there[machine.name] = machine
    put_run(workspace, tmp_path, machine, state="RUNNING", publish=False)
    workspace.records.save_run(RunRecord(RUN, machine.name, "local", "now", recover=True))
    return workspace, provider, machine


def test_what_was_ended_by_down_is_not_rented_again(at_work: With) -> None:
    workspace, provider, _ = at_work
    assert down(workspace, force=True, clock=FakeTime().clock).deleted
    with pytest.raises(MachineLost) as followed:  # by another terminal
        bring_back(workspace, RUN, LOST, Recovery(), clock=FakeTime().clock)
    assert "Somebody ended its machine" in followed.value.detail
    with pytest.raises(MachineLost) as attached:
        attach(workspace, RUN, clock=FakeTime().clock)
    assert f"tlvm attach --recover {RUN[-4:]}" in attached.value.next
    (row,) = runs(workspace).runs
    assert (row.state, row.goes_on_with) == ("LOST", f"tlvm attach --recover {RUN[-4:]}")
    assert provider.asked == []
    with pytest.raises(ConnectionLost):  # nobody answers at the machine that was asked for
        attach(workspace, RUN, recover=True, clock=FakeTime().clock)
    assert provider.asked == ["place-0"]


def test_what_was_lost_is_rented_again(at_work: With) -> None:
    workspace, provider, machine = at_work
    del provider.there[machine.name]
    with pytest.raises(ConnectionLost):
        bring_back(workspace, RUN, LOST, Recovery(), clock=FakeTime().clock)
    assert provider.asked == ["place-0"]


def test_what_was_stopped_is_not_started_again_by_whoever_follows(at_work: With, tmp_path: Path) -> None:
    workspace, _, _ = at_work
    stop(workspace, force=True, clock=FakeTime().clock)
    with pytest.raises(MachineLost) as raised:
        bring_back(workspace, RUN, LOST, Recovery(), clock=FakeTime().clock)
    assert "Somebody stopped its machine" in raised.value.detail
    said = RunStatus(RUN, "RUNNING", datetime.now(UTC).isoformat(), attempt=2)
    put(workspace, tmp_path, "status.json", document.encode(said))  # it was started, and the run went on
    assert not was_ended(workspace.store, required_run(workspace.store, RUN))


def test_a_note_that_somebody_writes_stays_beside_it(at_work: With) -> None:
    workspace, _, _ = at_work
    tag(workspace, RUN, add=["good"], note="before")
    assert down(workspace, force=True, clock=FakeTime().clock).deleted
    assert tag(workspace, RUN).tags == ["good"]
    tag(workspace, RUN, note="after")
    assert was_ended(workspace.store, required_run(workspace.store, RUN))
