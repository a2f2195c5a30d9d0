"""Bring what a run needs onto its machine: the manifest, the packs that it names and the weights, all verified.

Packs are shared by the runs of a machine. What came whole stays, so a fetch that was interrupted goes on with the
packs that are missing; where the disk gets full, packs that no run has used for longest make room (`evict`). What
another process is just fetching is waited for: packs may come before any run asks for them (`prefetch`).
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from remote.contract import layout
from remote.contract.dataset_manifest import DatasetManifest, decode_manifest
from remote.contract.document import ContractError
from remote.contract.layout import MachineHome
from remote.contract.run_spec import DatasetRef, RunSpec
from remote.job import line
from remote.job.evict import make_room, packs_in_peace
from remote.store import Store

THREADS = 8
PATIENCE_S = 60.0  # with another process that fetches the same file, and may hang
_LOOK_S = 0.05
_CHUNK_BYTES = 1024 * 1024
_REPAIR = "tlvm upload --verify DIR repairs a dataset, from the folder with its images"


@dataclass(frozen=True)
class Wanted:
    """A file that is to come from the store."""

    key: str
    path: Path
    sha256: str
    bytes_min: int = 0

    def is_here(self) -> bool:
        """Verified when it came; it thereby counts as used. One that was cut short is none."""
        try:
            if self.path.stat().st_size < self.bytes_min:
                return False
            os.utime(self.path)
        except FileNotFoundError:
            return False
        return True


def fetch(spec: RunSpec, home: MachineHome, store: Store, tell: Callable[[int, int], None]) -> None:
    """Everything that is not there yet; what is there was verified when it came.

    tell            called with (files done, files in all)
    StoreError      when the store refuses
    ContractError   when something is not what its hash says
    """
    run = home.run(spec.run_id)
    manifest = _manifest(spec.dataset, run.manifest, store)
    if spec.evaluates:
        _manifest(spec.evaluates.trained_on, run.trained_on, store)
    least = manifest.least_bytes()
    with packs_in_peace(home):
        wanted = [want for want in _packs(home, least) if not want.is_here()]
    make_room(home, sum(_sizes(store, [want.sha256 for want in wanted], least)), keep=set(least))
    wanted += [want for want in _models(spec, home) if not want.is_here()]
    tell(0, len(wanted))
    with ThreadPoolExecutor(THREADS, thread_name_prefix="fetch") as pool:
        transfers = [pool.submit(bring, want, home, store, by=spec.run_id) for want in wanted]
        try:
            for done, transfer in enumerate(as_completed(transfers), 1):
                transfer.result()
                tell(done, len(wanted))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def bring(want: Wanted, home: MachineHome, store: Store, *, by: str, patience_s: float = PATIENCE_S) -> None:
    """One file, beside its place and then into it; nothing, when another process has brought it meanwhile.

    by              a name that no other process has: two never write one part
    StoreError      when the store refuses
    ContractError   when it is not what its hash says
    """
    want.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = want.path.with_name(f".{want.path.name}.{by}")
    with _turn(home.locks / f"fetch-{want.path.name}", patience_s):
        if want.is_here():
            return
        try:
            store.download(want.key, part)
            found = _sha256(part)
            if found != want.sha256:
                raise ContractError(
                    f"{want.key} in the store has the hash {found[:12]}, not {want.sha256[:12]}: it was damaged. "
                    + _REPAIR
                )
            part.replace(want.path)
        finally:
            part.unlink(missing_ok=True)


def _packs(home: MachineHome, least: Mapping[str, int]) -> Iterator[Wanted]:
    for pack in sorted(least):
        yield Wanted(layout.pack_key(pack), home.pack(pack), pack, least[pack])


def _models(spec: RunSpec, home: MachineHome) -> Iterator[Wanted]:
    weights = spec.weights
    if weights.source != "none":
        yield Wanted(weights.key, home.weights(weights.sha256), weights.sha256)
    if spec.evaluates:
        card = layout.run_key(spec.evaluates.run_id, "model/model.json")
        yield Wanted(card, home.weights(spec.evaluates.card_sha256), spec.evaluates.card_sha256)


def _sizes(store: Store, packs: Sequence[str], least: Mapping[str, int]) -> list[int]:
    """What the store says of packs that are to be fetched: nothing makes room for bytes that a manifest made up."""
    with ThreadPoolExecutor(THREADS, thread_name_prefix="sizes") as pool:
        found = list(pool.map(lambda pack: store.get(layout.pack_key(pack)), packs))
    sizes = []
    for pack, blob in zip(packs, found, strict=True):
        key = layout.pack_key(pack)
        if blob is None:
            raise ContractError(f"{key} is missing in the store. {_REPAIR}")
        if blob.size < least[pack]:
            raise ContractError(
                f"{key} in the store ends before what the manifest names in it: it was damaged. {_REPAIR}"
            )
        sizes.append(blob.size)
    return sizes


def _manifest(dataset: DatasetRef, path: Path, store: Store) -> DatasetManifest:
    if not path.exists():
        store.download(layout.manifest_key(dataset.name, dataset.version), path)
    try:
        return decode_manifest(path.read_bytes(), version=dataset.version)
    except ContractError as error:
        path.unlink()
        raise ContractError(f"{error}. tlvm upload DIR --replace repairs the newest version") from None


@contextmanager
def _turn(lock: Path, patience_s: float) -> Iterator[None]:
    """Alone at a file, unless whoever is at it takes too long: then both are, which costs only the bytes."""
    deadline = time.monotonic() + patience_s
    while (held := line.try_hold(lock)) is None and time.monotonic() < deadline:
        time.sleep(_LOOK_S)
    try:
        yield
    finally:
        if held is not None:
            lock.unlink(missing_ok=True)
            os.close(held)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
