"""Bring what a run needs onto its machine: the manifest, the packs that it names and the weights, all verified."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from .contract import layout
from .contract.dataset_manifest import DatasetManifest, decode_manifest
from .contract.document import ContractError
from .contract.layout import MachineHome
from .contract.run_spec import RunSpec
from .store import Store

THREADS = 4
MANIFEST_FILE = "dataset.jsonl.gz"
_CHUNK_BYTES = 1024 * 1024


def fetch(spec: RunSpec, home: MachineHome, store: Store, tell: Callable[[int, int], None]) -> None:
    """Everything that is not there yet; what is there was verified when it came.

    tell            called with (files done, files in all)
    StoreError      when the store refuses
    ContractError   when something is not what its hash says
    """
    manifest = _manifest(spec, home, store)
    wanted = [
        (layout.pack_key(pack), home.pack(pack), pack)
        for pack in sorted(manifest.packs())
        if not home.pack(pack).exists()
    ]
    weights = spec.weights
    if weights.source != "none" and not home.weights(weights.sha256).exists():
        wanted.append((weights.key, home.weights(weights.sha256), weights.sha256))
    tell(0, len(wanted))
    with ThreadPoolExecutor(THREADS, thread_name_prefix="fetch") as pool:
        transfers = [pool.submit(_fetch, store, *want, spec.run_id) for want in wanted]
        try:
            for done, transfer in enumerate(as_completed(transfers), 1):
                transfer.result()
                tell(done, len(wanted))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _manifest(spec: RunSpec, home: MachineHome, store: Store) -> DatasetManifest:
    path = home.run(spec.run_id).root / MANIFEST_FILE
    if not path.exists():
        store.download(layout.manifest_key(spec.dataset.name, spec.dataset.version), path)
    return decode_manifest(path.read_bytes(), version=spec.dataset.version)


def _fetch(store: Store, key: str, path: Path, digest: str, run_id: str) -> None:
    """One file, beside its place and then into it. The part carries the run's id: two runs never share one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{run_id}")
    try:
        store.download(key, part)
        found = _sha256(part)
        if found != digest:
            raise ContractError(
                f"{key} in the store has the hash {found[:12]}, not {digest[:12]}: it was damaged"
            )
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
