"""Runs in a store, with a result of one file, for tests of those who ask what became of them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from orchestrator.providers.base import Machine
from orchestrator.workflows.workspace import Workspace
from remote.contract import document, layout
from remote.contract.run_status import ResultFile, ResultManifest, RunStatus, State
from tests.documents import run_spec

RUN = f"fixed-extractor-{datetime.now(UTC):%Y%m%d-%H%M%S}-k3qz"  # an id says when the run was made


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
