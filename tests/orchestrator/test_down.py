"""down, and status before it: a machine goes only when its results are safe, and nobody else's ever."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.config import MachineSettings
from orchestrator.errors import CloudError, ConflictError, NotFoundError
from orchestrator.providers.base import Machine
from orchestrator.records import RunRecord
from orchestrator.workflows.machines.authorize import authorize
from orchestrator.workflows.machines.down import down
from orchestrator.workflows.machines.machine_log import machine_log
from orchestrator.workflows.machines.power import extend, start, stop
from orchestrator.workflows.machines.ssh import ssh
from orchestrator.workflows.machines.status import status
from orchestrator.workflows.machines.up import own_key, up
from orchestrator.workflows.runs.overview import runs
from orchestrator.workflows.workspace import Workspace
from remote.contract import layout
from remote.contract.run_status import State
from tests.orchestrator.scripted_provider import FakeTime, Scripted, machine_of, scripted
from tests.orchestrator.stored_runs import RUN, put, put_run


@pytest.fixture
def with_machine(tmp_path: Path) -> tuple[Workspace, Machine, Scripted]:
    provider = Scripted([])
    workspace = scripted(tmp_path, provider)
    machine = machine_of(workspace.settings.machine_name)
    provider.there[machine.name] = machine
    return workspace, machine, provider


WithMachine = tuple[Workspace, Machine, Scripted]


def test_down_verifies_then_deletes(with_machine: WithMachine, tmp_path: Path) -> None:
    workspace, machine, provider = with_machine
    put_run(workspace, tmp_path, machine)
    result = down(workspace, clock=FakeTime().clock)
    assert result.runs == [RUN] and result.deleted and result.exit_code == 0
    assert provider.deleted == [machine.name]


@pytest.mark.parametrize("state", ["QUEUED", "STARTING", "RUNNING", "INTERRUPTED"])
def test_an_active_run_keeps_its_machine(with_machine: WithMachine, tmp_path: Path, state: State) -> None:
    workspace, machine, provider = with_machine
    put_run(workspace, tmp_path, machine, state=state, publish=False)
    with pytest.raises(ConflictError, match="at work"):
        down(workspace)
    assert provider.deleted == []
    result = down(workspace, force=True, clock=FakeTime().clock)
    assert result.deleted and list(result.abandoned) == [RUN]


def test_a_run_that_never_started_keeps_no_machine(
    local: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = up(local).machine
    assert machine is not None
    put_run(local, tmp_path, machine, publish=False)
    local.store.delete(layout.run_key(RUN, "status.json"))
    with pytest.raises(ConflictError, match="at work"):  # it may be just starting, from another terminal
        down(local)
    monkeypatch.setattr("orchestrator.workflows.runs.machine_runs.STARTS_WITHIN", timedelta(0))
    ((ghost,),) = [found.runs for found in status(local).machines]
    assert (ghost.state, "never started" in ghost.doubt) == ("LOST", True)
    result = down(local)
    assert (result.deleted, result.never_started, result.runs) == (True, [RUN], [])
    assert status(local).other_runs == []


def test_a_result_that_is_missing_keeps_the_machine_and_is_named(
    with_machine: WithMachine, tmp_path: Path
) -> None:
    workspace, machine, provider = with_machine
    put_run(workspace, tmp_path, machine, publish=False)
    with pytest.raises(ConflictError) as caught:
        down(workspace)
    assert RUN in caught.value.detail and "MANIFEST.json" in caught.value.detail
    assert provider.deleted == []


def test_a_damaged_result_keeps_the_machine_and_is_named(with_machine: WithMachine, tmp_path: Path) -> None:
    workspace, machine, provider = with_machine
    put_run(workspace, tmp_path, machine)
    put(workspace, tmp_path, "metrics.json", "[]")
    with pytest.raises(ConflictError, match="kept") as caught:
        down(workspace)
    assert "metrics.json" in caught.value.detail
    workspace.store.delete(layout.run_key(RUN, "metrics.json"))
    with pytest.raises(ConflictError, match="kept"):
        down(workspace)
    assert provider.deleted == []


def test_runs_of_an_earlier_machine_of_that_name_do_not_count(
    with_machine: WithMachine, tmp_path: Path
) -> None:
    workspace, machine, provider = with_machine
    put_run(workspace, tmp_path, machine, publish=False)
    provider.there[machine.name] = dataclasses.replace(
        machine, created=datetime.now(UTC) + timedelta(minutes=5)
    )
    assert down(workspace, clock=FakeTime().clock).runs == []


def test_a_pull_that_fails_is_exit_3_after_the_machine_is_gone(
    with_machine: WithMachine, tmp_path: Path
) -> None:
    workspace, machine, _ = with_machine
    put_run(workspace, tmp_path, machine)  # its sha256 is wrong, so that pulling it fails
    workspace.records.save_run(RunRecord(RUN, machine.name, "local", "now"))
    result = down(workspace, clock=FakeTime().clock)
    assert result.deleted and result.exit_code == 3 and list(result.not_pulled) == [RUN]


def test_somebody_elses_machine_is_never_touched(with_machine: WithMachine) -> None:
    workspace, machine, provider = with_machine
    provider.there[machine.name] = dataclasses.replace(machine, owner="bob")
    named = Workspace(workspace.settings.model_copy(update={"machine": MachineSettings(name=machine.name)}))
    named.provider = provider
    with pytest.raises(ConflictError, match="belongs to bob"):
        down(named, force=True)
    assert not down(workspace).was_there
    assert provider.deleted == []


def test_down_of_a_name_that_is_none_names_what_still_runs(with_machine: WithMachine) -> None:
    workspace, machine, provider = with_machine
    provider.there["another"] = machine_of("another")
    result = down(misspelt(workspace, machine))
    assert (result.was_there, result.others, result.exit_code) == (False, [machine.name, "another"], 0)
    assert provider.deleted == []


@pytest.mark.parametrize("verb", [ssh, stop, start, authorize, machine_log, lambda there: extend(there, 1)])
def test_every_command_names_the_machine_that_may_be_meant(
    with_machine: WithMachine, verb: Callable[[Workspace], object]
) -> None:
    workspace, machine, provider = with_machine
    provider.there["another"] = machine_of("another")
    with pytest.raises(NotFoundError) as caught:
        verb(misspelt(workspace, machine))
    assert caught.value.next == f"Did you mean {machine.name!r}?\ntlvm up makes one."
    provider.there.clear()
    with pytest.raises(NotFoundError) as caught:
        verb(misspelt(workspace, machine))
    assert caught.value.next == "tlvm up makes one."


def misspelt(workspace: Workspace, machine: Machine) -> Workspace:
    typo = MachineSettings(name=f"{machine.name}x")
    found = Workspace(workspace.settings.model_copy(update={"machine": typo}))
    found.provider = workspace.provider
    return found


def test_status_and_runs_of_one_machine(with_machine: WithMachine, tmp_path: Path) -> None:
    workspace, machine, provider = with_machine
    put_run(workspace, tmp_path, machine)
    provider.there["other"] = machine_of("other")
    (shown,) = status(workspace, machine=machine.name).machines
    assert (shown.machine.name, [run.run_id for run in shown.runs]) == (machine.name, [RUN])
    assert [found.machine.name for found in status(workspace, machine="other").machines] == ["other"]
    assert [run.run_id for run in runs(workspace, machine=machine.name).runs] == [RUN]
    assert runs(workspace, machine="other").runs == []
    for ask in (status, runs):
        with pytest.raises(NotFoundError, match="no machine tlvm-typo"):
            ask(workspace, machine="tlvm-typo")


def test_saying_no_deletes_nothing(with_machine: WithMachine) -> None:
    workspace, machine, provider = with_machine
    asked: list[str] = []

    def no(question: str) -> bool:
        asked.append(question)
        return False

    result = down(workspace, confirm=no)
    assert not result.deleted and provider.deleted == []
    assert len(asked) == 1 and machine.name in asked[0]


def test_a_machine_that_stays_is_an_error_and_its_record_is_kept(with_machine: WithMachine) -> None:
    workspace, machine, provider = with_machine
    provider.sticky = True
    own_key(workspace.records, "local", machine.name)
    with pytest.raises(CloudError, match="still there"):
        down(workspace, clock=FakeTime().clock)
    assert workspace.records.key_file("local", machine.name).exists()


def test_status_shows_others_and_runs_without_a_machine(with_machine: WithMachine, tmp_path: Path) -> None:
    workspace, machine, provider = with_machine
    provider.there["other"] = machine_of("other", owner="bob")
    put_run(workspace, tmp_path, dataclasses.replace(machine, name="gone"), state="RUNNING", publish=False)
    found = status(workspace)
    assert [(line.machine.name, line.mine) for line in found.machines] == [
        (machine.name, True),
        ("other", False),
    ]
    assert [(run.run_id, run.state) for run in found.other_runs] == [(RUN, "LOST")]
