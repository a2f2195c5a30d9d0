"""Follow a file of a run over SSH: through cuts of the connection, from the byte where it stopped, by our own clock."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from orchestrator import bundle
from orchestrator.errors import CloudError, ConnectionLost, TlvmError, TransientError
from orchestrator.providers.base import Machine, MachineState
from orchestrator.workflows.clock import Clock
from orchestrator.workflows.runs.documents import stored_attempts
from orchestrator.workflows.runs.overview import called
from orchestrator.workflows.runs.unfinished import statuses
from orchestrator.workflows.runs.watch import Watch
from orchestrator.workflows.workspace import Workspace
from remote.contract import events, frames
from remote.contract.document import ContractError
from remote.contract.run_spec import RunSpec
from remote.contract.run_status import PUBLISHES_SILENTLY

if TYPE_CHECKING:
    from orchestrator.ssh import Connection

PATIENCE_S = 120.0  # without a word from the machine
PAUSE_S = 0.25  # before the first try to connect again; doubles
PAUSE_MAX_S = 8.0
# The follower speaks every 1.5 s. After half of this without a byte the machine is asked for an answer, and has the
# other half for it. A false alarm costs one new connection and not a byte, so this is rather short.
SILENCE_S = 8.0
FROZEN_S = 20.0  # a follower that says nothing for so long, on a machine that answers, is begun anew
LOOK_S = (
    120.0  # without a word of the run, until its supervisor is looked at; it writes its status twice a minute
)
_ASKS_AGAIN_S = 1.0  # a machine that is still taking up a run
_TELLS_WITHIN_S = 20.0
_UNKNOWN_S = 15.0  # so long a machine need not know a run that another terminal is about to bring back
_NOT_RUN = 126  # a shell says this, or one more, when it can't run a program; above 128 a signal ended it
_NO_SUCH_RUN = 4

Stream = Literal["events", "log"]


@dataclass
class Position:
    """How far a stream was read, and on which machine; kept while machines come and go."""

    bytes: int = 0
    machine_id: str = ""  # "": not known


class MachineLost(ConnectionLost):
    """Following is of no use any more: the machine is gone or stopped, or does not know the run."""

    def __init__(
        self,
        what: str,
        *,
        how: Literal["gone", "stopped", "unknown"],
        why: str = "",
        detail: str = "",
        next: str = "",
    ) -> None:
        super().__init__(what, detail=detail, next=next)
        self.how = how
        self.why = why  # what the provider says of it


class _UnknownRun(ConnectionLost):
    """The machine answers, and has no such run."""


def follow(
    workspace: Workspace,
    spec: RunSpec,
    stream: Stream,
    *,
    connection: Connection | None = None,
    machine: Machine | None = None,
    at: Position | None = None,
    patience_s: float = PATIENCE_S,
    clock: Clock | None = None,
) -> Generator[bytes, None, str]:
    """The bytes of a stream as they come, none twice and none missing; returns the state in which the run came to rest.

    A run that another machine had before goes on where that one's words were kept: what was lost with it comes anew.

    connection      an open one to begin with, to `machine`; the caller closes it
    at              where to begin; moves along
    MachineLost     the provider says that the machine is gone or stopped, or the machine does not know the run
    ConnectionLost  the machine said nothing for `patience_s`; the run may go on
    """
    clock, at = clock or Clock(), at or Position()
    heard, pause_s, watch = clock.now(), PAUSE_S, Watch(workspace, spec, clock)
    while True:
        unframer = frames.Unframer()
        try:
            with ExitStack() as closing:
                if connection is None:
                    connection, machine = _connected(workspace, spec, closing)
                if machine and _rewound(workspace, spec, stream, connection, machine, at, clock):
                    yield b"\n"  # a line that was cut off with its machine ends here
                for piece in _streamed(connection, spec, stream, at.bytes):
                    heard, pause_s = clock.now(), PAUSE_S
                    for data in unframer.feed(piece):
                        at.bytes += len(data)
                        watch.came()
                        yield data
                    if unframer.ended:
                        return unframer.ended
                    watch.look(partial(_last_word, connection, spec))
                raise ConnectionLost("The stream ended before the run")
        except ContractError as error:
            raise CloudError(f"The machine {spec.machine} can't be followed", detail=str(error)) from None
        except (ConnectionLost, TransientError) as error:
            stands = _how_it_is(workspace, spec)
            if isinstance(error, _UnknownRun) and clock.now() - heard > _UNKNOWN_S:
                raise _unknown(workspace, spec) from None
            if clock.now() - heard > patience_s:
                raise _gave_up(workspace, spec, error.what) from None
            if pause_s == PAUSE_S:
                workspace.progress.warn(
                    f"No word from {spec.machine} ({error.what}); {stands}. The run goes on without us; connecting again"
                )
        except CloudError:
            _how_it_is(workspace, spec)  # on a machine that is just taken away, commands fail in any way
            raise
        connection = machine = None
        clock.sleep(pause_s)
        pause_s = min(2 * pause_s, PAUSE_MAX_S)


def follow_events(
    pieces: Generator[bytes, None, str], at: Position | None = None
) -> Generator[dict[str, Any], None, str]:
    """The events in the bytes of their stream, one by one; what is no event is left out.

    at      of the stream: whoever goes on from there reads a line anew that had come in part
    """
    rest = b""
    try:
        while True:
            try:
                rest += next(pieces)
            except StopIteration as end:
                return str(end.value)
            *lines, rest = rest.split(b"\n")
            for line in lines:
                if event := events.parse(line):
                    yield event
            if len(rest) > events.LINE_BYTES_MAX:
                rest = b""
    finally:
        if at is not None:
            at.bytes -= len(rest)


def _last_word(connection: Connection, spec: RunSpec) -> str:
    """When the supervisor wrote the status that the machine has; "" when none has to, or it can't be said."""
    output = connection.run(bundle.command(spec.bundle, "status"), timeout_s=_TELLS_WITHIN_S)
    said = statuses(output.stdout).get(spec.run_id)
    # `quiet_s` is None where it is an older one, which writes less often.
    writes = said is not None and said.works and said.quiet_s is not None
    return said.status.updated if said and writes and said.status.message != PUBLISHES_SILENTLY else ""


def _connected(workspace: Workspace, spec: RunSpec, closing: ExitStack) -> tuple[Connection, Machine]:
    machine = workspace.provider.get(spec.machine)
    if machine is None:
        raise ConnectionLost(f"The machine {spec.machine} is gone")  # looked at again by `_how_it_is`
    return closing.enter_context(workspace.connect(machine)), machine


def _rewound(
    workspace: Workspace,
    spec: RunSpec,
    stream: Stream,
    connection: Connection,
    machine: Machine,
    at: Position,
    clock: Clock,
) -> bool:
    """Go back to where this machine's own part of the stream begins, if another one was read beyond that: whether it was."""
    before, at.machine_id = at.machine_id, machine.id
    if before in ("", machine.id) or not at.bytes:
        return False
    begins = _begins_at(workspace, spec, stream, connection, machine, clock)
    if begins is None or begins >= at.bytes:
        return False
    at.bytes = begins
    return True


def _begins_at(
    workspace: Workspace,
    spec: RunSpec,
    stream: Stream,
    connection: Connection,
    machine: Machine,
    clock: Clock,
) -> int | None:
    """As the machine says once it has taken up what the store has, which may be large; None when it does not say."""
    numbers = {one.number: one.machine_id for one in stored_attempts(workspace.store, spec.run_id)}
    first = max(numbers, default=1)
    while numbers.get(first - 1) == machine.id:
        first -= 1
    deadline = clock.now() + PATIENCE_S
    while clock.now() < deadline:
        output = connection.run(bundle.command(spec.bundle, "status"))
        said = statuses(output.stdout).get(spec.run_id)
        theirs = [times for times in said.status.attempts if times.number >= first] if said else []
        if theirs:
            return max(0, theirs[0].events_from if stream == "events" else theirs[0].log_from)
        if said and not said.works:
            return None
        clock.sleep(_ASKS_AGAIN_S)
    return None


def _streamed(connection: Connection, spec: RunSpec, stream: Stream, position: int) -> Iterator[bytes]:
    """A machine that is taken away kills what runs there before it cuts the connection: the same thing for us."""
    from orchestrator.ssh import CommandFailed  # its libraries cost half a second

    command = bundle.command(spec.bundle, "follow", spec.run_id, "--from", str(position), "--stream", stream)
    try:
        yield from connection.stream(command, idle_timeout_s=SILENCE_S, speaks_within_s=FROZEN_S)
    except CommandFailed as error:
        if error.exit_status == _NO_SUCH_RUN:
            raise _UnknownRun("The machine does not know the run") from error
        if error.exit_status < _NOT_RUN:
            raise
        raise ConnectionLost("What followed the run on the machine was killed") from error


def _how_it_is(workspace: Workspace, spec: RunSpec) -> str:
    """What the provider says of the machine. MachineLost when waiting is no use.

    A provider that can't be asked now says nothing either way.
    """
    provider = workspace.settings.provider
    try:
        machine = workspace.provider.get(spec.machine)
    except TlvmError:
        return f"{provider} can't be asked for it now"
    if machine is None:
        raise _gone(workspace, spec)
    if machine.state in (MachineState.STOPPED, MachineState.STOPPING):
        why = _why(workspace, spec)
        raise MachineLost(
            f"The machine {spec.machine} is {machine.state.value}",
            how="stopped",
            why=why,
            detail=f"The run {spec.run_id} had not ended when it was last heard of.\n{why}".strip(),
            next=f"tlvm attach {called(workspace, spec.run_id)} starts it again and goes on.",
        )
    return f"{provider} says that it is {machine.state.value}"


def _gone(workspace: Workspace, spec: RunSpec) -> MachineLost:
    name, why = called(workspace, spec.run_id), _why(workspace, spec)
    return MachineLost(
        f"The machine {spec.machine} is gone",
        how="gone",
        why=why,
        detail=f"The run {spec.run_id} had not ended when it was last heard of.\n{why}".strip(),
        next=f"tlvm attach --recover {name} goes on with it on another machine; "
        f"tlvm logs {name} shows what reached the store.",
    )


def _why(workspace: Workspace, spec: RunSpec) -> str:
    """What the provider says of the machine's end, if anything."""
    try:
        return workspace.provider.said(spec.machine)
    except TlvmError:
        return ""


def _unknown(workspace: Workspace, spec: RunSpec) -> MachineLost:
    return MachineLost(
        f"The machine {spec.machine} does not know the run {spec.run_id}",
        how="unknown",
        detail="It was made anew since the run began, or the run never started.",
        next=f"tlvm attach {called(workspace, spec.run_id)} goes on with what is in the store.",
    )


def _gave_up(workspace: Workspace, spec: RunSpec, why: str) -> ConnectionLost:
    name = called(workspace, spec.run_id)
    return ConnectionLost(
        f"The machine {spec.machine} can't be reached any more",
        detail=f"{why}\nThe run {spec.run_id} may go on there.",
        next=f"tlvm attach {name} comes back to it; tlvm pull {name} fetches its result.",
    )
