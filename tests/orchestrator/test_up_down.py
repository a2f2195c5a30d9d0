"""up, ssh, status, down: with the real provider `local`, and with one whose answers are scripted."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.cli.interrupted import line
from orchestrator.config import MachineSettings, Settings
from orchestrator.errors import (
    CapacityError,
    CloudError,
    ConfigError,
    ConflictError,
    ConnectionLost,
    Interruption,
    NotFoundError,
    QuotaError,
    TlvmError,
)
from orchestrator.providers.base import Machine, MachineSpec, MachineState, Offer
from orchestrator.records import RunRecord
from orchestrator.workflows.machines.authorize import authorize
from orchestrator.workflows.machines.down import down
from orchestrator.workflows.machines.machine_log import machine_log
from orchestrator.workflows.machines.power import extend, start, stop
from orchestrator.workflows.machines.ssh import Forward, forward, ssh
from orchestrator.workflows.machines.status import status
from orchestrator.workflows.machines.up import Clock, ensure, own_key, up
from orchestrator.workflows.runs.overview import runs
from orchestrator.workflows.workspace import Workspace
from remote.contract import document, layout
from remote.contract.run_spec import StoreRef
from remote.contract.run_status import ResultFile, ResultManifest, RunStatus, State
from tests.documents import run_spec

RUN = f"fixed-extractor-{datetime.now(UTC):%Y%m%d-%H%M%S}-k3qz"  # an id says when the run was made


def settings(folder: Path, **machine: object) -> Settings:
    return Settings(
        owner="ana",
        machine=MachineSettings(**machine),  # type: ignore[arg-type]
        folder=folder,
        data_dir=folder / "data",
    )


class FakeTime:
    """A clock that only a sleep moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @property
    def clock(self) -> Clock:
        return Clock(now=lambda: self.seconds, sleep=self.sleep)

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


class Scripted:
    """A provider in memory. `answers` are what `create` does, place by place: an error, or None for success."""

    name = "local"

    def __init__(self, answers: list[TlvmError | None], *, price: float = 0, sticky: bool = False) -> None:
        self.answers = answers
        self.price = price
        self.sticky = sticky  # a deleted machine stays
        self.there: dict[str, Machine] = {}
        self.deleted: list[str] = []
        self.asked: list[str] = []

    def offers(self, spec: MachineSpec) -> list[Offer]:
        return [Offer(f"place-{number}", "none", self.price) for number in range(len(self.answers))]

    def create(self, spec: MachineSpec, offer: Offer) -> Machine:
        self.asked.append(offer.place)
        answer = self.answers[int(offer.place.removeprefix("place-"))]
        if answer is not None:
            raise answer
        self.there[spec.name] = machine_of(spec.name, settings=spec.settings(), owner=spec.owner)
        return self.there[spec.name]

    def get(self, name: str) -> Machine | None:
        return self.there.get(name)

    def machines(self) -> list[Machine]:
        return list(self.there.values())

    def host_keys(self, name: str) -> list[str]:
        return []

    def said(self, name: str) -> str:
        return "sshd: no hostkeys available"

    def authorize(self, name: str, public_key: str, expires: datetime) -> None:
        assert public_key.startswith("ssh-ed25519 ")

    def stop(self, name: str) -> None:
        raise AssertionError

    def start(self, name: str) -> None:
        raise AssertionError

    def delete(self, name: str) -> None:
        self.deleted.append(name)
        if not self.sticky:
            self.there.pop(name, None)


def machine_of(name: str, *, owner: str = "ana", **more: object) -> Machine:
    now = datetime.now(UTC)
    machine = Machine(
        name=name, provider="local", id="1", place="place-0", state=MachineState.STARTING, owner=owner,
        project="default", created=now - timedelta(hours=1), ends=now + timedelta(hours=3), accelerator="none",
        accelerator_count=0, price_per_hour=0, store=StoreRef("/store"),
    )  # fmt: skip
    return dataclasses.replace(machine, **more)  # type: ignore[arg-type]


def scripted(folder: Path, provider: Scripted, **machine: object) -> Workspace:
    workspace = Workspace(settings(folder, **machine))
    workspace.provider = provider
    return workspace


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Workspace]:
    workspace = Workspace(settings(tmp_path))
    try:
        yield workspace
    finally:
        for machine in workspace.provider.machines():
            workspace.provider.delete(machine.name)


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


def put_run(
    workspace: Workspace, folder: Path, machine: Machine, *, state: State = "SUCCEEDED", publish: bool = True
) -> None:
    """A run of that machine in the store, with a result of one file."""
    spec = run_spec(
        run_id=RUN,
        store=workspace.settings.store_ref,
        owner=machine.owner,
        project=machine.project,
        machine=machine.name,
        created=datetime.now(UTC).isoformat(),
    )
    put(workspace, folder, "spec.json", document.encode(spec))
    put(workspace, folder, "status.json", document.encode(RunStatus(RUN, state, spec.created)))
    blob_file = put(workspace, folder, "metrics.json", "{}")
    if publish:
        put(workspace, folder, "MANIFEST.json", document.encode(ResultManifest(RUN, state, "", [blob_file])))


def put(workspace: Workspace, folder: Path, name: str, text: str) -> ResultFile:
    path = folder / "beside"
    path.write_text(text)
    blob = workspace.store.upload(path, layout.run_key(RUN, name))
    return ResultFile(name, blob.size, "c" * 64, blob.crc32c)


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
