"""`tlvm logs RUN`: what a run has said, from its machine while there is one, else from the store."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

from orchestrator.errors import AuthError, CloudError, ConnectionLost, NotFoundError, TransientError
from orchestrator.providers.base import MachineState
from orchestrator.workflows.following import follow as follow_stream
from orchestrator.workflows.heard import lost
from orchestrator.workflows.run_documents import StoredRun, stored_run
from orchestrator.workflows.runs import find
from orchestrator.workflows.workspace import Workspace
from remote.contract import layout
from remote.contract.document import ContractError

LINE_CHARACTERS_MAX = 10_000


def logs(workspace: Workspace, run: str, *, follow: bool = False) -> Iterator[str]:
    """The lines of a run's log, without their ends; text from a machine, so hostile.

    follow          go on until the run ends
    NotFoundError   no such run
    ConnectionLost  the machine could not be followed to the end
    """
    run_id = find(workspace, run)
    try:
        stored = stored_run(workspace.store, run_id)
    except ContractError as error:
        raise CloudError(f"What the store says of {run_id} can't be read", detail=str(error)) from None
    if stored is None:
        raise NotFoundError(f"There is no run {run_id}")
    return _lines(_bytes(workspace, stored, follow))


def _bytes(workspace: Workspace, stored: StoredRun, follow: bool) -> Iterator[bytes]:
    run_id = stored.spec.run_id
    if follow and stored.active:
        machines = workspace.provider.machines()
        if lost(workspace, stored, machines):
            workspace.progress.warn(f"{stored.spec.machine} is gone: this is what reached the store")
        else:
            yield from follow_stream(workspace, stored.spec, "log")
            return
    position = 0
    for data in _stored(workspace, run_id):
        position += len(data)
        yield data
    if stored.active:
        yield from _newer(workspace, stored, position)


def _stored(workspace: Workspace, run_id: str) -> Iterator[bytes]:
    prefix = layout.run_key(run_id, "log")
    with tempfile.TemporaryDirectory(prefix="tlvm-") as folder:
        for blob in workspace.store.blobs(f"{prefix}/"):
            if blob.size <= layout.SEGMENT_BYTES:
                path = Path(folder) / "segment"
                workspace.store.download(blob.key, path)
                yield path.read_bytes()


def _newer(workspace: Workspace, stored: StoredRun, position: int) -> Iterator[bytes]:
    """What the machine has beyond that byte, where it can be asked."""
    spec = stored.spec
    machine = workspace.provider.get(spec.machine)
    if machine is None or machine.state is not MachineState.RUNNING:
        return
    command = f"tail -c +{position + 1} ~/.tlvm/runs/{layout.checked_run_id(spec.run_id)}/log.txt"
    try:
        with workspace.connect(machine) as connection:
            yield connection.run(command).stdout
    except (AuthError, ConnectionLost, TransientError) as error:
        workspace.progress.warn(
            f"{spec.machine} can't be asked, this is what reached the store: {error.what}"
        )


def _lines(pieces: Iterator[bytes]) -> Generator[str, None, None]:
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield _text(line)
        if len(rest) > LINE_CHARACTERS_MAX:
            yield _text(rest)
            rest = b""
    if rest:
        yield _text(rest)


def _text(line: bytes) -> str:
    """A bar that redraws itself with carriage returns counts as its last state."""
    shown = line.rstrip(b"\r").rpartition(b"\r")[2]
    return shown.decode("utf-8", "replace")[:LINE_CHARACTERS_MAX]
