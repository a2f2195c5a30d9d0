"""Dataset versions in a store: HEAD, manifests and packs, each written once and read with suspicion."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.datasets.packs.condemned import renew
from orchestrator.datasets.packs.scratch import scratch
from orchestrator.errors import ConflictError, DataError, NotFoundError
from orchestrator.stores import checksum_of
from orchestrator.stores.base import FREE, Blob, Store, Way
from orchestrator.stores.beside import at_once, begun
from remote.contract import layout
from remote.contract.dataset_manifest import DatasetManifest, decode_manifest, encode
from remote.contract.document import ContractError

_THREADS = 16
_HEAD_BYTES_MAX = 100
_NO_SUM = (-1, "")
_NOTHING_KNOWN: Mapping[str, Blob | None] = {}


@dataclass(frozen=True)
class Head:
    version: str  # "": there is none yet, or it can't be read
    generation: int  # 0: there is none yet

    @property
    def is_damaged(self) -> bool:
        return self.generation != 0 and not self.version


def read_head(store: Store, name: str, *, known: Head | None = None, may_be_damaged: bool = False) -> Head:
    """The newest version. The generation is never newer than the version: moving HEAD with it is safe.

    known           what it was: as long as its generation has not changed it is not read again
    DataError       when it is damaged, unless it may be
    """
    key = layout.head_key(name)
    blob = store.get(key)
    if blob is None:
        return Head("", 0)
    if known is not None and blob.generation == known.generation:
        return known
    try:
        if blob.size > _HEAD_BYTES_MAX:
            raise ContractError(f"it has {blob.size} bytes")
        return Head(layout.sha256(_read(store, key).decode("ascii").strip()), blob.generation)
    except (ContractError, UnicodeDecodeError) as error:
        if may_be_damaged:
            return Head("", blob.generation)
        raise _damaged(key, store, str(error)) from None


def load_manifest(store: Store, name: str, version: str) -> DatasetManifest:
    """Read and verify a version. NotFoundError when there is none, DataError when it is damaged."""
    return decoded(store, name, version, read_manifest(store, name, version))


def read_manifest(store: Store, name: str, version: str) -> bytes:
    """As it lies in the store. NotFoundError."""
    try:
        return _read(store, layout.manifest_key(name, version))
    except NotFoundError as error:
        raise NotFoundError(
            f"There is no version {version[:12]} of {name} in {store.url}",
            detail=error.what,
            next="If it should be the newest one: tlvm upload DIR --replace makes a new version from the folder.",
        ) from None


def decoded(store: Store, name: str, version: str, data: bytes) -> DatasetManifest:
    """What was read, verified. DataError when it is damaged."""
    key = layout.manifest_key(name, version)
    try:
        manifest = decode_manifest(data, version=version)
    except ContractError as error:
        raise _damaged(key, store, str(error)) from None
    if manifest.dataset != name:
        raise _damaged(key, store, f"it calls itself {manifest.dataset[:80]!r}")
    return manifest


def put_manifest(store: Store, manifest: DatasetManifest) -> tuple[str, int]:
    """Write a manifest, unless a sound one is there; its version and the bytes that were sent."""
    data, version = encode(manifest)
    there = find_manifest(store, manifest.dataset, version)
    return version, put_encoded(store, manifest.dataset, version, data, there)


def find_manifest(store: Store, name: str, version: str) -> Blob | None:
    return store.get(layout.manifest_key(name, version))


def put_encoded(store: Store, name: str, version: str, data: bytes, there: Blob | None) -> int:
    """The same, of a manifest that is encoded already: the bytes that were sent.

    there           what `find_manifest` found
    """
    key = layout.manifest_key(name, version)
    with scratch() as folder:
        path = folder / "manifest"
        path.write_bytes(data)
        if there is not None and (
            (there.size, there.crc32c) == checksum_of(path) or _sound(store, name, version)
        ):
            return len(data) if renew(store, key, path, there)[1] else 0
        try:
            store.upload(path, key, if_generation=there.generation if there else 0)
        except ConflictError:  # somebody else wrote the same version at the same time
            load_manifest(store, name, version)
            return 0
    return len(data)


def move_head(store: Store, name: str, version: str, *, head: Head) -> Head:
    """Make `version` the newest one. ConflictError when HEAD is no longer what `head` says."""
    with scratch() as folder:
        path = folder / "HEAD"
        path.write_text(version + "\n", encoding="ascii")
        blob = store.upload(path, layout.head_key(name), if_generation=head.generation)
    return Head(version, blob.generation)


class _ItIsThere(Exception):
    """A pack need not travel."""


def put_pack(store: Store, path: Path, pack: str, way: Way = FREE) -> tuple[Blob, bool]:
    """Send a pack, unless the store has these very bytes; a damaged one is replaced. The blob, and whether it was sent.

    The store is asked for it while the way is made on which it may travel: one request less in a row.

    way             its gate is passed before the first byte travels
    """
    key = layout.pack_key(pack)
    looking = begun(lambda: store.get(key), name="look")

    def unless_there() -> None:
        if looking.exception() or looking.result():
            raise _ItIsThere
        way.gate()

    try:
        return store.upload(path, key, if_generation=0, way=dataclasses.replace(way, gate=unless_there)), True
    except (_ItIsThere, ConflictError):
        # The service may see it before we do, and somebody else may have sent it meanwhile.
        there = looking.result() or store.get(key)
    way.gate()
    if there is not None and (there.size, there.crc32c) == checksum_of(path):
        return renew(store, key, path, there)  # else gc might be about to delete it
    try:
        return store.upload(path, key, if_generation=there.generation if there else 0, way=way), True
    except ConflictError:  # somebody else sent the same pack at the same time
        size, crc32c = checksum_of(path)
        return Blob(key, size, crc32c, 1), False


def find_all(store: Store, keys: Collection[str]) -> dict[str, Blob | None]:
    """What the store has of these, asked for at once."""
    return dict(zip(keys, at_once(store.get, keys, _THREADS, name="packs"), strict=True))


def lost_packs(
    store: Store,
    least: Mapping[str, int],
    sums: Mapping[str, tuple[int, str]],
    known: Mapping[str, Blob | None] = _NOTHING_KNOWN,
) -> set[str]:
    """Those that the store does not have, or not whole, or with another size or checksum than they had.

    least       bytes that each must have at least (`DatasetManifest.least_bytes`)
    sums        size and checksum of those of which the manifest, or this computer, knows them
    known       what `find_all` has found of some of them
    """
    keys = {pack: layout.pack_key(pack) for pack in sorted(least)}
    there = {**known, **find_all(store, [key for key in keys.values() if key not in known])}
    return {
        pack
        for pack, key in keys.items()
        if (blob := there[key]) is None
        or blob.size < least[pack]
        or (blob.size, blob.crc32c) != sums.get(pack, (blob.size, blob.crc32c))
    }


def sums_by_reading(store: Store, packs: Collection[str]) -> dict[str, tuple[int, str]]:
    """Size and checksum of packs of which no manifest tells them: all of each is read, and compared with its name.

    Of one that is missing or damaged, a size that no blob has.
    """
    return {pack: _sum_by_reading(store, pack) for pack in sorted(packs)}


def with_sums(manifest: DatasetManifest, sums: Mapping[str, tuple[int, str]]) -> DatasetManifest:
    """The same version, telling of its packs what is known of them."""
    named = sorted(manifest.packs() & sums.keys())
    return dataclasses.replace(
        manifest,
        pack_bytes={pack: sums[pack][0] for pack in named},
        pack_crc32c={pack: sums[pack][1] for pack in named},
    )


def _sum_by_reading(store: Store, pack: str) -> tuple[int, str]:
    with scratch() as folder:
        path = folder / "pack"
        try:
            store.download(layout.pack_key(pack), path)
        except NotFoundError:
            return _NO_SUM
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        return checksum_of(path) if found == pack else _NO_SUM


def _sound(store: Store, name: str, version: str) -> bool:
    try:
        load_manifest(store, name, version)
    except (DataError, NotFoundError):
        return False
    return True


def _read(store: Store, key: str) -> bytes:
    with scratch() as folder:
        path = folder / "blob"
        store.download(key, path)
        return path.read_bytes()


def _damaged(key: str, store: Store, why: str) -> DataError:
    return DataError(
        f"{key} in {store.url} can't be read",
        detail=why,
        next="tlvm upload DIR --replace makes a new version from the folder.",
    )
