"""Bring what a run needs onto its machine: the manifest, the packs that it names and the weights, all verified.

Packs are shared by the runs of a machine. What came whole stays, so a fetch that was interrupted goes on with the
packs that are missing; where the disk gets full, packs that no run has used for longest make room (`evict`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from remote.contract import layout
from remote.contract.dataset_manifest import DatasetManifest, decode_manifest
from remote.contract.document import ContractError
from remote.contract.layout import MachineHome
from remote.contract.run_spec import DatasetRef, RunSpec
from remote.job.evict import MANIFEST_FILE, make_room
from remote.store import Store

__all__ = ["MANIFEST_FILE", "fetch"]

THREADS = 8
_CHUNK_BYTES = 1024 * 1024


def fetch(spec: RunSpec, home: MachineHome, store: Store, tell: Callable[[int, int], None]) -> None:
    """Everything that is not there yet; what is there was verified when it came.

    tell            called with (files done, files in all)
    StoreError      when the store refuses
    ContractError   when something is not what its hash says
    """
    manifest = _manifest(spec.dataset, home.run(spec.run_id).root / MANIFEST_FILE, store)
    if spec.evaluates:
        _manifest(spec.evaluates.trained_on, home.run(spec.run_id).root / layout.TRAINED_ON_FILE, store)
    ends = _ends(manifest)
    missing = [pack for pack in sorted(ends) if not _is_there(home.pack(pack), ends[pack])]
    make_room(home, sum(_sizes(store, missing, ends)), keep=set(ends))
    wanted = [(layout.pack_key(pack), home.pack(pack), pack) for pack in missing]
    weights = spec.weights
    if weights.source != "none" and not home.weights(weights.sha256).exists():
        wanted.append((weights.key, home.weights(weights.sha256), weights.sha256))
    if spec.evaluates and not home.weights(spec.evaluates.card_sha256).exists():
        card = layout.run_key(spec.evaluates.run_id, "model/model.json")
        wanted.append((card, home.weights(spec.evaluates.card_sha256), spec.evaluates.card_sha256))
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


def _ends(manifest: DatasetManifest) -> dict[str, int]:
    """How many bytes each pack has at least."""
    ends: dict[str, int] = {}
    for image in manifest.images:
        ends[image.pack] = max(ends.get(image.pack, 0), image.offset + image.size)
    return ends


def _sizes(store: Store, packs: Sequence[str], ends: Mapping[str, int]) -> list[int]:
    """What the store says of packs that are to be fetched: nothing makes room for bytes that a manifest made up."""
    with ThreadPoolExecutor(THREADS, thread_name_prefix="sizes") as pool:
        found = list(pool.map(lambda pack: store.get(layout.pack_key(pack)), packs))
    sizes = []
    for pack, blob in zip(packs, found, strict=True):
        if blob is not None and blob.size < ends[pack]:
            raise ContractError(
                f"The manifest names bytes behind the end of {layout.pack_key(pack)}; upload the dataset again"
            )
        sizes.append(blob.size if blob is not None else 0)  # one that is missing is named when it is fetched
    return sizes


def _is_there(path: Path, end: int) -> bool:
    """Whether the pack is here, which thereby counts as used. One that was cut short is none."""
    try:
        if path.stat().st_size < end:
            return False
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _manifest(dataset: DatasetRef, path: Path, store: Store) -> DatasetManifest:
    if not path.exists():
        store.download(layout.manifest_key(dataset.name, dataset.version), path)
    return decode_manifest(path.read_bytes(), version=dataset.version)


def _fetch(store: Store, key: str, path: Path, digest: str, run_id: str) -> None:
    """One file, beside its place and then into it. The part carries the run's id: two runs never share one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{run_id}")
    try:
        store.download(key, part)
        found = _sha256(part)
        if found != digest:
            raise ContractError(
                f"{key} in the store has the hash {found[:12]}, not {digest[:12]}: it was damaged. "
                "tlvm upload DIR --replace repairs a dataset"
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
