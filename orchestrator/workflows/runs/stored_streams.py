"""Follow a file of a run through the store: slower than the machine, and open to every computer that reads the bucket."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path

from orchestrator.errors import AuthError, CloudError, ConnectionLost, NotFoundError
from orchestrator.stores.base import Store
from orchestrator.workflows.clock import Clock
from orchestrator.workflows.runs.documents import StoredRun, required_run, stored_run
from orchestrator.workflows.runs.following import Position, Stream
from orchestrator.workflows.runs.watch import Watch
from orchestrator.workflows.workspace import Workspace
from remote.contract import layout
from remote.contract.run_status import PUBLISHES_SILENTLY

POLL_S = 5.0  # the machine writes no oftener
_ASKED_EVERY = 12  # polls without news, before the provider is asked for the machine


def follow_stored(
    workspace: Workspace,
    run_id: str,
    stream: Stream,
    *,
    at: Position | None = None,
    clock: Clock | None = None,
) -> Generator[bytes, None, str]:
    """The bytes of a stream as they reach the store; returns the state in which the run came to its end.

    workspace       meaning the machine that it is on
    ConnectionLost  its machine is gone, and it will say nothing any more
    """
    clock, at = clock or Clock(), at or Position()
    quiet, watch = 0, Watch(workspace, required_run(workspace.store, run_id).spec, clock)
    while True:
        stored = required_run(workspace.store, run_id)  # first: what was said before the end is read below
        came = False
        for data in stored_bytes(workspace.store, run_id, stream, at):
            came = True
            watch.came()
            yield data
        if not stored.active:
            return stored.state
        watch.look(partial(_last_word, stored))
        quiet = 0 if came else quiet + 1
        if quiet and quiet % _ASKED_EVERY == 0:
            _require_machine(workspace, run_id)
        clock.sleep(POLL_S)


def stored_bytes(store: Store, run_id: str, stream: Stream, at: Position) -> Iterator[bytes]:
    """What the store has of a stream from there on, a segment at a time."""
    prefix = layout.run_key(run_id, stream) + "/"
    with tempfile.TemporaryDirectory(prefix="tlvm-") as folder:
        for blob in store.blobs(prefix):
            offset = _offset(blob.key.removeprefix(prefix))
            if offset is None or blob.size > layout.SEGMENT_BYTES or offset + blob.size <= at.bytes:
                continue
            path = Path(folder) / "segment"
            try:
                store.download(blob.key, path, start=max(0, at.bytes - offset))
            except NotFoundError:
                return
            data = path.read_bytes()
            at.bytes = max(at.bytes, offset) + len(data)
            yield data


def _offset(name: str) -> int | None:
    return int(name) if len(name) == 16 and name.isdigit() else None


def _last_word(run: StoredRun) -> str:
    """When its supervisor wrote the status that the store has; "" when none has to."""
    at_work = run.status and run.status.state == "RUNNING" and run.status.message != PUBLISHES_SILENTLY
    return run.status.updated if run.status and at_work else ""


def _require_machine(workspace: Workspace, run_id: str) -> None:
    stored = stored_run(workspace.store, run_id)
    if stored and stored.active and _is_gone(workspace, stored.machine):
        raise ConnectionLost(
            f"The machine {stored.machine} is gone, and the run {run_id} had not ended",
            next=f"tlvm attach --recover {run_id[-4:]} goes on with it on another machine.",
        )


def _is_gone(workspace: Workspace, machine: str) -> bool:
    """As the provider says; one that can't be asked, now or by us, proves nothing."""
    try:
        return workspace.provider.get(machine) is None
    except (AuthError, CloudError):
        return False
