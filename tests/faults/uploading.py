"""`python -m tests.faults.uploading DIR DATA URL ENDPOINT PROCESSES [PACK_BYTES]`: an upload in a process of its own, which may be killed."""

from __future__ import annotations

import sys
from pathlib import Path

from orchestrator.config import load
from orchestrator.errors import TlvmError
from orchestrator.stores import open_store
from orchestrator.workflows.data.upload import UploadResult, upload
from orchestrator.workflows.workspace import Workspace
from remote.contract.attempts import Attempts

PACK_BYTES = 24_000  # so that a small dataset has many


def workspace_of(data: Path, url: str, endpoint: str) -> Workspace:
    """A computer whose memory lies in `data`, and which waits but shortly between its attempts."""
    flags = {"store.url": url, "store.endpoint": endpoint}
    workspace = Workspace(load(flags, environ={"TLVM_DATA_DIR": str(data)}, folder=data.parent))
    attempts = Attempts(first_s=0.01, longest_s=0.05)
    memory = workspace.records.cache / "sessions"
    workspace.store = open_store(workspace.settings.store_ref, attempts=attempts, memory=memory)
    return workspace


def once(
    folder: Path, data: Path, url: str, endpoint: str, *, processes: int = 0, pack_bytes: int = PACK_BYTES
) -> UploadResult:
    """Upload a folder that holds one dataset."""
    workspace = workspace_of(data, url, endpoint)
    (result,) = upload(workspace, folder, processes=processes, pack_bytes=pack_bytes)
    return result


def main(
    folder: str, data: str, url: str, endpoint: str, processes: str, pack_bytes: str = str(PACK_BYTES)
) -> int:
    try:
        result = once(
            Path(folder), Path(data), url, endpoint, processes=int(processes), pack_bytes=int(pack_bytes)
        )
        print(result.version)
    except TlvmError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
