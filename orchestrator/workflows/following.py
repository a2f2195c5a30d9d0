"""Follow a file of a run over SSH: through cuts of the connection, from the byte where it stopped, by our own clock."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any, Literal

from orchestrator import bundle
from orchestrator.errors import CloudError, ConnectionLost, TlvmError, TransientError
from orchestrator.providers.base import MachineState
from orchestrator.workflows.runs import called
from orchestrator.workflows.up import Clock
from orchestrator.workflows.workspace import Workspace
from remote.contract import events, frames
from remote.contract.document import ContractError
from remote.contract.run_spec import RunSpec

if TYPE_CHECKING:
    from orchestrator.ssh import Connection

PATIENCE_S = 120.0  # without a word from the machine
PAUSE_S = 0.25  # before the first try to connect again; doubles
PAUSE_MAX_S = 8.0
SILENCE_S = 15.0
_KILLED = 128  # a shell adds the number of the signal


def follow(
    workspace: Workspace,
    spec: RunSpec,
    stream: Literal["events", "log"],
    *,
    connection: Connection | None = None,
    start: int = 0,
    patience_s: float = PATIENCE_S,
    clock: Clock | None = None,
) -> Generator[bytes, None, str]:
    """The bytes of a stream as they come, none twice and none missing; returns the state in which the run came to rest.

    connection      an open one to begin with; the caller closes it
    ConnectionLost  the machine is gone, or said nothing for `patience_s`; the run may go on
    """
    clock = clock or Clock()
    position, heard, pause_s = start, clock.now(), PAUSE_S
    while True:
        unframer = frames.Unframer()
        try:
            for piece in _pieces(workspace, spec, stream, position, connection):
                heard, pause_s = clock.now(), PAUSE_S
                for data in unframer.feed(piece):
                    position += len(data)
                    yield data
                if unframer.ended:
                    return unframer.ended
            raise ConnectionLost("The stream ended before the run")
        except ContractError as error:
            raise CloudError(f"The machine {spec.machine} can't be followed", detail=str(error)) from None
        except (ConnectionLost, TransientError) as error:
            _still_there(workspace, spec)
            if clock.now() - heard > patience_s:
                raise _gave_up(workspace, spec, error.what) from None
            if pause_s == PAUSE_S:
                workspace.progress.warn(
                    f"Connection to {spec.machine} lost, the run goes on; connecting again"
                )
        connection = None
        clock.sleep(pause_s)
        pause_s = min(2 * pause_s, PAUSE_MAX_S)


def follow_events(pieces: Generator[bytes, None, str]) -> Generator[dict[str, Any], None, str]:
    """The events in the bytes of their stream, one by one; what is no event is left out."""
    rest = b""
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


def _pieces(
    workspace: Workspace, spec: RunSpec, stream: str, position: int, connection: Connection | None
) -> Iterator[bytes]:
    command = bundle.command(spec.bundle, "follow", spec.run_id, "--from", str(position), "--stream", stream)
    if connection is not None:
        yield from _streamed(connection, command)
        return
    machine = workspace.provider.get(spec.machine)
    if machine is None:
        raise ConnectionLost(f"The machine {spec.machine} is gone")  # looked at again by `_still_there`
    with closing(workspace.connect(machine)) as opened:
        yield from _streamed(opened, command)


def _streamed(connection: Connection, command: str) -> Iterator[bytes]:
    """A machine that is taken away kills what runs there before it cuts the connection: the same thing for us."""
    from orchestrator.ssh import CommandFailed  # its libraries cost half a second

    try:
        yield from connection.stream(command, idle_timeout_s=SILENCE_S)
    except CommandFailed as error:
        if error.exit_status <= _KILLED:
            raise
        raise ConnectionLost("What followed the run on the machine was killed") from error


def _still_there(workspace: Workspace, spec: RunSpec) -> None:
    """ConnectionLost when waiting is no use. A provider that can't be asked now says nothing either way."""
    try:
        machine = workspace.provider.get(spec.machine)
    except TlvmError:
        return
    if machine is None:
        raise _gone(workspace, spec)
    if machine.state in (MachineState.STOPPED, MachineState.STOPPING):
        raise ConnectionLost(
            f"The machine {spec.machine} is {machine.state.value}",
            next="tlvm up starts it again; tlvm status shows what became of the run.",
        )


def _gone(workspace: Workspace, spec: RunSpec) -> ConnectionLost:
    return ConnectionLost(
        f"The machine {spec.machine} is gone",
        detail=f"The run {spec.run_id} had not ended when it was last heard of.\n{_why(workspace, spec)}".strip(),
        next=f"tlvm logs {called(workspace, spec.run_id)} shows what reached the store.",
    )


def _why(workspace: Workspace, spec: RunSpec) -> str:
    """What the provider says of the machine's end, if anything."""
    try:
        return workspace.provider.said(spec.machine)
    except TlvmError:
        return ""


def _gave_up(workspace: Workspace, spec: RunSpec, why: str) -> ConnectionLost:
    name = called(workspace, spec.run_id)
    return ConnectionLost(
        f"The machine {spec.machine} can't be reached any more",
        detail=f"{why}\nThe run {spec.run_id} may go on there.",
        next=f"tlvm logs -f {name} comes back to it; tlvm pull {name} fetches its result.",
    )
