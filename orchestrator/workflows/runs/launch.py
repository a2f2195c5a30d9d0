"""What every job on a machine needs: the bundle shipped, the job started, followed to its end, its result brought here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, get_args

from orchestrator import bundle
from orchestrator.errors import (
    CloudError,
    ConfigError,
    ConflictError,
    Interrupted,
    Interruption,
    RunFailed,
    TlvmError,
)
from orchestrator.providers.base import Machine
from orchestrator.records import RunRecord
from orchestrator.stores.documents import write_document
from orchestrator.workflows.machines.down import DownResult
from orchestrator.workflows.results.pull import PullResult, pull
from orchestrator.workflows.runs import ephemeral
from orchestrator.workflows.runs.attempts import announce
from orchestrator.workflows.runs.documents import stored_run
from orchestrator.workflows.runs.following import Position, follow, follow_events
from orchestrator.workflows.runs.machine_runs import take_back
from orchestrator.workflows.runs.overview import called
from orchestrator.workflows.workspace import Workspace
from remote.contract import document, layout
from remote.contract.run_spec import RunSpec
from remote.contract.run_status import RunStatus, State
from remote.contract.start_request import StartRequest

if TYPE_CHECKING:
    from orchestrator.ssh import Connection, Output

_ACCEPTS_WITHIN_S = 5  # from our last word until the machine has the run's folder, or never will


@dataclass(frozen=True)
class DetachedRun:
    """What Ctrl-C leaves of `run` and `evaluate`: the run, going on by itself."""

    run_id: str
    state: str  # the last that was heard of it: STARTED, QUEUED, STARTING or RUNNING
    detached: bool  # true
    next: str  # how to come back


class Detached(Interruption):
    """Ctrl-C once a run has started: it goes on, on its machine.

    name    by which commands find it
    state   the last that was heard of it
    """

    def __init__(self, run_id: str, *, name: str, state: str = "STARTED") -> None:
        next = f"tlvm attach {name} comes back to it; tlvm pull {name} fetches its result."
        super().__init__(f"The run {run_id} goes on", next=next)
        self.run = DetachedRun(run_id, state, detached=True, next=next)

    def add(self, text: str) -> None:
        """More that whoever comes back should know."""
        self.next = f"{self.next} {text}"
        self.run = replace(self.run, next=self.next)


def ship(workspace: Workspace, machine: Machine, connection: Connection) -> bundle.Bundle:
    """The code that runs, on the machine and in the store."""
    about = bundle.ask(connection)
    built = bundle.build(
        about,
        provider=machine.provider,
        bucket=machine.store.url.startswith("gs://"),
        cache=workspace.settings.data_dir / "cache",
        progress=workspace.progress,
    )
    bundle.keep(workspace.store, built)
    if bundle.install(connection, built, about):
        workspace.progress.say("bundle", f"{built.hash[:8]} is on {machine.name}")
    return built


def start(
    workspace: Workspace,
    spec: RunSpec,
    connection: Connection,
    machine: Machine,
    *,
    recover: bool = False,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Intent first, here and in the store; what did not start is taken back, whatever came between.

    recover         another machine may be rented for it when this one is taken away
    environment     of the training process; secrets may be in it
    Detached        on Ctrl-C, when the machine has the run all the same
    """
    asked = False
    try:
        _announce(workspace, spec, machine, recover=recover)
        attempt = announce(workspace, spec.run_id, machine, at_least=1)
        asked = True
        output = ask_to_start(connection, spec, machine, attempt.number, environment or {})
        asked = False  # and answered
        if output.exit_code != 0:
            raise refused(spec, machine.name, output)
    except BaseException as error:
        if asked and _is_known(workspace, spec):
            if isinstance(error, TlvmError):  # what was lost is only the answer
                return
            raise Detached(spec.run_id, name=called(workspace, spec.run_id)) from None
        take_back(workspace, spec.run_id)
        raise


def ask_to_start(
    connection: Connection, spec: RunSpec, machine: Machine, attempt: int, environment: Mapping[str, str]
) -> Output:
    """The bundle that began a run may be of a tlvm that knew no more than the spec."""
    left_s = max(0.0, (machine.ends - datetime.now(UTC)).total_seconds())
    request = StartRequest(spec, attempt, machine.name, left_s, dict(environment))
    command = bundle.command(spec.bundle, "start", "-")
    output = connection.run(command, input=document.encode(request).encode())
    if output.exit_code == ConfigError.exit_code and not environment:
        output = connection.run(command, input=document.encode(spec).encode())
    return output


def refused(spec: RunSpec, machine: str, output: Output) -> TlvmError:
    why = output.stderr[-2000:].decode(errors="replace").strip()
    if output.exit_code == ConflictError.exit_code:
        return ConflictError(f"The run {spec.run_id} can't be started", detail=why)
    return CloudError(
        f"The run {spec.run_id} can't be started on {machine}",
        detail=why,
        next="tlvm ssh shows the machine; tlvm down and tlvm up make it anew.",
    )


def _announce(workspace: Workspace, spec: RunSpec, machine: Machine, *, recover: bool) -> None:
    workspace.records.save_run(
        RunRecord(
            spec.run_id,
            spec.machine,
            workspace.settings.provider,
            asked=spec.created,
            recover=recover,
            machine_settings=dict(machine.settings),
            environment=spec.environment,
        )
    )
    key = layout.run_key(spec.run_id, "spec.json")
    write_document(workspace.store, key, document.encode(spec), if_generation=0)


def _is_known(workspace: Workspace, spec: RunSpec) -> bool:
    """Whether the machine has taken the run; our word may still be on its way. False when it can't be asked."""
    deadline = time.monotonic() + _ACCEPTS_WITHIN_S
    try:
        machine = workspace.provider.get(spec.machine)
        if machine is None:
            return False
        with workspace.connect(machine, timeout_s=_ACCEPTS_WITHIN_S) as connection:
            while not (known := _holds(connection, spec.run_id)) and time.monotonic() < deadline:
                time.sleep(0.5)
            return known
    except TlvmError:
        return False


def _holds(connection: Connection, run_id: str) -> bool:
    return connection.run(f"test -e ~/.tlvm/runs/{run_id}/status.json", timeout_s=5).exit_code == 0


def follow_to_the_end(
    workspace: Workspace,
    spec: RunSpec,
    connection: Connection | None,
    on_event: Callable[[dict[str, Any]], None] | None,
    *,
    machine: Machine | None = None,
    at: Position | None = None,
) -> RunStatus:
    """The final status, from the store.

    connection   to `machine`, if there is one already
    at           where in its events to begin; moves along
    Interrupted  nothing of the run goes on there; MachineLost, ConnectionLost as `follow` says
    Detached     on Ctrl-C
    """
    at = at or Position()
    happenings = follow_events(
        follow(workspace, spec, "events", connection=connection, machine=machine, at=at), at
    )
    state = "STARTED"
    try:
        while True:
            event = next(happenings)
            if event.get("type") == "state":
                state = _state(event)
            if on_event:
                on_event(event)
    except StopIteration as end:
        return _final_status(workspace, spec, str(end.value))
    except KeyboardInterrupt:
        raise Detached(spec.run_id, name=called(workspace, spec.run_id), state=state) from None


def collect(
    workspace: Workspace,
    spec: RunSpec,
    status: RunStatus,
    *,
    ended: Callable[[DownResult], None] | None = None,
) -> PullResult:
    """The verified result, here. A machine that was made for this run alone is ended first, however the run came out.

    ended           told what became of that machine
    RunFailed       the job did not end well
    PartialError    the machine is gone and the result in the store, but not here
    and why a machine of its own is kept
    """
    workspace.renew()
    own = ephemeral.is_ephemeral(workspace, spec.machine)
    machine = ephemeral.end(workspace, spec.machine, [spec.run_id]) if own else ephemeral.Ended()
    if machine.down and ended:
        ended(machine.down)
    if machine.kept and status.state == "SUCCEEDED":
        raise machine.kept
    if machine.down:
        ephemeral.settle(workspace, spec.machine)
    if status.state != "SUCCEEDED":
        raise RunFailed(
            f"The run {spec.run_id} {'was cancelled' if status.state == 'CANCELLED' else 'failed'}",
            detail="\n".join(
                [
                    *([status.message] if status.message != "cancelled" else []),  # which is said above
                    *(line for line in status.log_tail if line != status.message),
                    *([ephemeral.became(spec.machine, machine)] if own else []),
                ]
            ),
            next=f"tlvm logs {called(workspace, spec.run_id)} shows the whole log.",
        )
    if not status.published:
        raise CloudError(
            f"The run {spec.run_id} succeeded, but its result is on {spec.machine} only",
            detail=status.message,
            next="Mend the store before the machine ends.",
        )
    if machine.down and (why := machine.down.not_pulled.get(spec.run_id)):
        raise ephemeral.not_here(spec.run_id, called(workspace, spec.run_id), why)
    try:
        pulled = pull(workspace, spec.run_id)
    except TlvmError as error:
        if not machine.down:
            raise
        raise ephemeral.not_here(spec.run_id, called(workspace, spec.run_id), str(error)) from None
    if machine.down:
        ephemeral.settle(workspace, spec.machine)
    return pulled


def _state(event: Mapping[str, Any]) -> str:
    """A state that there is; a machine may write anything."""
    said = event.get("state")
    return said if isinstance(said, str) and said in get_args(State) else "STARTED"


def _final_status(workspace: Workspace, spec: RunSpec, state: str) -> RunStatus:
    if state == "INTERRUPTED":
        raise Interrupted(
            f"The run {spec.run_id} was interrupted on {spec.machine}",
            detail="Its machine is being taken away, or its supervisor was killed.",
            next=f"tlvm attach {called(workspace, spec.run_id)} goes on with it.",
        )
    workspace.renew()
    stored = stored_run(workspace.store, spec.run_id)
    if stored is None or stored.status is None or stored.status.state != state:
        raise CloudError(
            f"The run {spec.run_id} ended as {state}, but its status did not reach the store",
            next=f"tlvm attach {called(workspace, spec.run_id)} asks the machine again.",
        )
    return stored.status
