"""What the store says of runs: their specs, statuses and result manifests, read as the work of somebody else."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from orchestrator.errors import NotFoundError
from orchestrator.stores.base import Store
from remote.contract import document, layout
from remote.contract.document import ContractError
from remote.contract.run_spec import RunSpec
from remote.contract.run_status import FINAL, ResultManifest, RunStatus

T = TypeVar("T")
BYTES_MAX = 16 * 1024 * 1024
_READERS = 8


@dataclass(frozen=True)
class StoredRun:
    """A run as the store knows it."""

    spec: RunSpec
    status: RunStatus | None  # None until the machine has said something

    @property
    def state(self) -> str:
        return self.status.state if self.status else "QUEUED"

    @property
    def active(self) -> bool:
        return self.state not in FINAL


def run_ids(store: Store) -> list[str]:
    """Every run that has a spec, oldest first; what else lies below runs/ is none of ours."""
    found = []
    for blob in store.blobs(layout.RUNS):
        run_id, _, file = blob.key.removeprefix(layout.RUNS).partition("/")
        if file == "spec.json":
            try:
                found.append(layout.checked_run_id(run_id))
            except ContractError:
                continue
    return sorted(found, key=lambda run_id: run_id.split("-")[-3:])


def stored_runs(store: Store) -> tuple[list[StoredRun], list[str]]:
    """Every run, oldest first, and a sentence for each one whose documents can't be read."""
    runs, problems = [], []
    with ThreadPoolExecutor(_READERS) as pool:
        for found in pool.map(lambda run_id: _stored(store, run_id), run_ids(store)):
            if isinstance(found, StoredRun):
                runs.append(found)
            elif found:
                problems.append(found)
    return runs, problems


def stored_run(store: Store, run_id: str) -> StoredRun | None:
    """One run; None when there is none. ContractError when its documents can't be read."""
    found = _stored(store, run_id)
    if isinstance(found, StoredRun):
        return found
    if found:
        raise ContractError(found)
    return None


def result_manifest(store: Store, run_id: str) -> ResultManifest | None:
    """MANIFEST.json of a run; None when it is not there. ContractError when it is not what it should be."""
    return _read(ResultManifest, store, layout.run_key(run_id, "MANIFEST.json"))


def result_problem(store: Store, run_id: str) -> str:
    """Why the result of a run is not whole in the store; "" when every file has the size and checksum it should."""
    try:
        manifest = result_manifest(store, run_id)
    except ContractError as error:
        return str(error)
    if manifest is None:
        return "MANIFEST.json is not in the store"
    if manifest.run_id != run_id:
        return f"its MANIFEST.json is of the run {manifest.run_id}"
    prefix = layout.run_key(run_id)
    there = {blob.key.removeprefix(prefix): blob for blob in store.blobs(prefix)}
    for file in manifest.files:
        blob = there.get(file.path)
        if blob is None:
            return f"{file.path} is not in the store"
        if (blob.size, blob.crc32c) != (file.size, file.crc32c):
            return f"{file.path} is not the file that MANIFEST.json names (size or checksum)"
    return ""


def _stored(store: Store, run_id: str) -> StoredRun | str:
    try:
        spec = _read(RunSpec, store, layout.run_key(run_id, "spec.json"))
        status = _read(RunStatus, store, layout.run_key(run_id, "status.json"))
    except ContractError as error:
        return str(error)
    if spec is None:
        return ""  # deleted since it was listed
    if spec.run_id != run_id:
        return f"runs/{run_id}/spec.json is of the run {spec.run_id}"
    return StoredRun(spec, status)


def _read(kind: type[T], store: Store, key: str) -> T | None:
    blob = store.get(key)
    if blob is None:
        return None
    if blob.size > BYTES_MAX:
        raise ContractError(f"{key} has {blob.size} bytes, more than {BYTES_MAX}")
    with tempfile.TemporaryDirectory(prefix="tlvm-") as folder:
        path = Path(folder) / "document.json"
        try:
            store.download(key, path)
        except NotFoundError:
            return None
        return document.decode(kind, path.read_bytes(), what=key)
