"""What every job on a machine needs: the bundle shipped, the job started, followed to its end, its result brought here."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator import bundle
from orchestrator.errors import CloudError, ConflictError, Interrupted, RunFailed
from orchestrator.providers.base import Machine
from orchestrator.records import RunRecord
from orchestrator.workflows.following import follow, follow_events
from orchestrator.workflows.pull import PullResult, pull
from orchestrator.workflows.run_documents import stored_run
from orchestrator.workflows.workspace import Workspace
from remote.contract import document, layout
from remote.contract.run_spec import RunSpec
from remote.contract.run_status import RunStatus

if TYPE_CHECKING:
    from orchestrator.ssh import Connection


class Detached(KeyboardInterrupt):
    """Ctrl-C while a run was followed: it goes on, on its machine."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.what = f"The run {run_id} goes on"
        self.next = f"tlvm logs -f {run_id} comes back to it; tlvm pull {run_id} fetches its result."
        super().__init__(self.what)


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


def start(workspace: Workspace, spec: RunSpec, connection: Connection) -> None:
    """Intent first, here and in the store; what did not start is taken back."""
    record = RunRecord(spec.run_id, spec.machine, workspace.settings.provider, asked=spec.created)
    workspace.records.save_run(record)
    text = document.encode(spec)
    key = layout.run_key(spec.run_id, "spec.json")
    with tempfile.TemporaryDirectory(prefix="tlvm-") as folder:
        path = Path(folder) / "spec.json"
        path.write_text(text, encoding="utf-8")
        workspace.store.upload(path, key, if_generation=0)
    output = connection.run(bundle.command(spec.bundle, "start", "-"), input=text.encode())
    if output.exit_code != 0:
        workspace.store.delete(key)
        why = output.stderr[-2000:].decode(errors="replace").strip()
        if output.exit_code == ConflictError.exit_code:
            raise ConflictError(f"The run {spec.run_id} can't be started", detail=why)
        raise CloudError(
            f"The run {spec.run_id} can't be started on {spec.machine}",
            detail=why,
            next="tlvm ssh shows the machine; tlvm down and tlvm up make it anew.",
        )


def follow_to_the_end(
    workspace: Workspace,
    spec: RunSpec,
    connection: Connection,
    on_event: Callable[[dict[str, Any]], None] | None,
) -> RunStatus:
    """The final status, from the store."""
    happenings = follow_events(follow(workspace, spec, "events", connection=connection))
    try:
        while True:
            event = next(happenings)
            if on_event:
                on_event(event)
    except StopIteration as end:
        return _final_status(workspace, spec, str(end.value))
    except KeyboardInterrupt:
        detached = Detached(spec.run_id)
        workspace.progress.say("detach", f"{detached.what}. {detached.next}")
        raise detached from None


def collect(workspace: Workspace, spec: RunSpec, status: RunStatus) -> PullResult:
    """The verified result, here. RunFailed when the job did not end well."""
    if status.state != "SUCCEEDED":
        raise RunFailed(
            f"The run {spec.run_id} {'was cancelled' if status.state == 'CANCELLED' else 'failed'}",
            detail="\n".join([status.message, *status.log_tail]),
            next=f"tlvm logs {spec.run_id} shows the whole log.",
        )
    if not status.published:
        raise CloudError(
            f"The run {spec.run_id} succeeded, but its result is on {spec.machine} only",
            detail=status.message,
            next="Mend the store before the machine ends.",
        )
    return pull(workspace, spec.run_id)


def _final_status(workspace: Workspace, spec: RunSpec, state: str) -> RunStatus:
    if state == "INTERRUPTED":
        raise Interrupted(
            f"The run {spec.run_id} was interrupted on {spec.machine}",
            detail="Its machine is being taken away, or its supervisor was killed.",
            next=f"tlvm logs {spec.run_id} shows how far it came.",
        )
    stored = stored_run(workspace.store, spec.run_id)
    if stored is None or stored.status is None or stored.status.state != state:
        raise CloudError(
            f"The run {spec.run_id} ended as {state}, but its status did not reach the store",
            next=f"tlvm logs -f {spec.run_id} shows what the machine says.",
        )
    return stored.status
