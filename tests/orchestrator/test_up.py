"""up and ssh: with the real provider `local`, and with one whose answers are scripted."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from orchestrator.cli.interrupted import line
from orchestrator.errors import (
    CapacityError,
    CloudError,
    ConfigError,
    ConflictError,
    ConnectionLost,
    Interruption,
    NotFoundError,
    QuotaError,
)
from orchestrator.providers.base import Machine, MachineSpec, MachineState, Offer
from orchestrator.workflows.machines.down import down
from orchestrator.workflows.machines.ssh import Forward, forward, ssh
from orchestrator.workflows.machines.status import status
from orchestrator.workflows.machines.up import Clock, ensure, own_key, up
from orchestrator.workflows.workspace import Workspace
from tests.orchestrator.scripted_provider import FakeTime, Scripted, machine_of, scripted, settings


def test_the_life_of_a_machine_here(local: Workspace) -> None:
    first = up(local)
    assert first.made and first.machine is not None
    assert [attempt.refused for attempt in first.attempts] == [""]
    again = up(local)
    assert not again.made and again.machine is not None and again.machine.id == first.machine.id
    result = ssh(local, ["printf", "%s", "two  words"], capture=True)
    assert (result.exit_code, result.stdout) == (0, "two  words")
    assert ssh(local, ["exit 7"], capture=True).exit_code == 7
    found = status(local)
    assert [(line.machine.name, line.mine) for line in found.machines] == [(first.machine.name, True)]
    assert down(local).deleted
    assert local.provider.machines() == []
    assert local.records.machines() == []
    assert not down(local).was_there


def test_a_stopped_machine_is_started_again(local: Workspace) -> None:
    made = up(local).machine
    assert made is not None
    local.provider.stop(made.name)
    again = up(local)
    assert again.machine is not None and again.machine.state is MachineState.RUNNING


def test_a_computer_that_lost_its_records_is_let_in_with_a_new_key(local: Workspace) -> None:
    assert up(local).machine is not None
    shutil.rmtree(local.records.folder)
    again = Workspace(local.settings)
    assert up(again).machine is not None
    assert ssh(again, ["true"], capture=True).exit_code == 0


def test_other_settings_are_a_conflict_that_names_them(local: Workspace, tmp_path: Path) -> None:
    up(local)
    other = Workspace(settings(tmp_path, max_hours=2))
    with pytest.raises(ConflictError, match="max_hours: it has 168, asked for 2\n"):
        up(other)


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    result = up(Workspace(settings(tmp_path)), dry_run=True)
    assert result.machine is None and len(result.offers) == 1
    assert list(tmp_path.iterdir()) == []


def test_ensure_makes_what_is_free_and_nothing_else(local: Workspace, tmp_path: Path) -> None:
    assert ensure(local).name == ensure(local).name
    dear = Scripted([None], price=0.5)
    with pytest.raises(NotFoundError, match="no machine"):
        ensure(scripted(tmp_path, dear))
    assert dear.asked == []


def test_a_lack_of_capacity_leads_to_the_next_place_and_is_told(tmp_path: Path) -> None:
    provider = Scripted([CapacityError("No capacity"), None])
    with pytest.raises(ConnectionLost):  # nothing answers there
        up(scripted(tmp_path, provider), clock=FakeTime().clock)
    assert provider.asked == ["place-0", "place-1"]


def test_no_place_at_all_names_every_attempt_and_leaves_no_record(tmp_path: Path) -> None:
    workspace = scripted(tmp_path, Scripted([CapacityError("No L4"), CapacityError("No T4")]))
    with pytest.raises(CapacityError) as caught:
        up(workspace, clock=FakeTime().clock)
    assert "place-0, none: No L4" in caught.value.detail
    assert "place-1, none: No T4" in caught.value.detail
    assert workspace.records.machines() == []


def test_other_errors_stop_at_the_first_place(tmp_path: Path) -> None:
    provider = Scripted([QuotaError("Quota is 0"), None])
    workspace = scripted(tmp_path, provider)
    with pytest.raises(QuotaError):
        up(workspace, clock=FakeTime().clock)
    assert provider.asked == ["place-0"]
    assert workspace.records.machines() == []


def test_intent_is_recorded_before_the_act(tmp_path: Path) -> None:
    class Crashing(Scripted):
        def create(self, spec: MachineSpec, offer: Offer) -> Machine:
            raise KeyboardInterrupt

    workspace = scripted(tmp_path, Crashing([None]))
    with pytest.raises(KeyboardInterrupt):
        up(workspace)
    assert [record.outcome for record in workspace.records.machines()] == ["asked"]


def test_a_machine_that_does_not_get_ready_is_kept_and_said(tmp_path: Path) -> None:
    time = FakeTime()
    provider = Scripted([None])
    with pytest.raises(ConnectionLost, match="not ready after 10 minutes"):
        up(scripted(tmp_path, provider), clock=time.clock)
    assert 600 <= time.seconds < 620
    assert provider.there and not provider.deleted


def test_a_machine_that_ends_while_it_starts_is_said(tmp_path: Path) -> None:
    provider = Scripted([None])
    time = FakeTime()
    clock = Clock(now=lambda: time.seconds, sleep=lambda _: provider.there.clear())
    with pytest.raises(CloudError, match="ended while it was starting"):
        up(scripted(tmp_path, provider), clock=clock)


def test_a_machine_that_stops_while_it_starts_is_said_at_once_with_its_log(tmp_path: Path) -> None:
    class Failing(Scripted):
        def get(self, name: str) -> Machine | None:
            machine = super().get(name)
            return machine and dataclasses.replace(machine, state=MachineState.STOPPED)

        def start(self, name: str) -> None:
            """It stops again."""

    time = FakeTime()
    with pytest.raises(CloudError, match="stopped while it was starting") as raised:
        up(scripted(tmp_path, Failing([None])), clock=time.clock)
    assert raised.value.detail == "sshd: no hostkeys available"
    assert time.seconds < 10


def test_a_machine_that_another_terminal_made_meanwhile_is_adopted_not_deleted(tmp_path: Path) -> None:
    class Raced(Scripted):
        def create(self, spec: MachineSpec, offer: Offer) -> Machine:
            self.there[spec.name] = machine_of(spec.name, id="theirs", settings=spec.settings())
            return super().create(spec, offer)

    provider = Raced([CapacityError("No capacity"), None])
    with pytest.raises(ConnectionLost):  # nothing answers there
        up(scripted(tmp_path, provider), clock=FakeTime().clock)
    assert provider.asked == ["place-0"]
    assert provider.deleted == []
    assert [machine.id for machine in provider.machines()] == ["theirs"]


def test_ctrl_c_once_a_machine_was_asked_for_says_that_it_may_exist(tmp_path: Path) -> None:
    class Interrupted(Scripted):
        def create(self, spec: MachineSpec, offer: Offer) -> Machine:
            raise KeyboardInterrupt

    workspace = scripted(tmp_path, Interrupted([None]))
    with pytest.raises(Interruption) as raised:
        up(workspace)
    said = line("up", raised.value)
    name = workspace.settings.machine_name
    assert said == f"Interrupted. The machine {name} may exist: tlvm status shows it, tlvm down ends it."


def test_two_terminals_have_one_key(tmp_path: Path) -> None:
    records = Workspace(settings(tmp_path)).records
    assert own_key(records, "local", "m") == own_key(records, "local", "m")
    records.key_file("local", "m").unlink()
    own_key(records, "local", "m")
    assert records.key_file("local", "m").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("6006:localhost:6006", Forward(6006, "localhost", 6006)),
        ("localhost:80", Forward(80, "localhost", 80)),
        ("8888", Forward(8888, "localhost", 8888)),
        ("1:[::1]:2", Forward(1, "::1", 2)),
    ],
)
def test_forwards_are_read(text: str, expected: Forward) -> None:
    assert forward(text) == expected


@pytest.mark.parametrize("text", ["", "a:b", "1:2:3:4", "70000:localhost:1", "localhost:0"])
def test_wrong_forwards_are_errors(text: str) -> None:
    with pytest.raises(ConfigError, match="LOCAL:HOST:PORT"):
        forward(text)
