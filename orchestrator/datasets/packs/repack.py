"""Packs of a newest version that are packed anew by `gc`: those that waste room, and small ones that have become many.

A version with the same images is published, whose manifest names the new packs; the version before is condemned (see
`condemned`). Nothing that another version names is given up, and no byte of a pack changes: a pack is its hash.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from orchestrator.datasets.columns.places import Located
from orchestrator.datasets.packs import condemned
from orchestrator.datasets.packs.member import HEADER_BYTES, Member, cost
from orchestrator.datasets.packs.pack import PACK_BYTES, room, write_members
from orchestrator.datasets.packs.scratch import scratch
from orchestrator.datasets.packs.small import SMALL_BYTES, SMALL_MAX
from orchestrator.datasets.publishing import versions
from orchestrator.datasets.publishing.versions import Head
from orchestrator.errors import ConflictError, DataError, NotFoundError
from orchestrator.stores.base import Store
from remote.contract import layout
from remote.contract.dataset_manifest import DatasetManifest, Image, encode

HALF = 0.5
_TRIES = 3
_EXTENSION = re.compile(rb"[0-9a-f]{64}\.([a-z0-9]{1,16})\x00")


@dataclass(frozen=True)
class PackUse:
    """A pack in the store, and how much of it any version names."""

    pack: str
    size: int  # bytes
    live_bytes: int

    @property
    def wasteful(self) -> bool:
        return 0 < self.live_bytes < HALF * self.size


@dataclass(frozen=True)
class Repacked:
    """A newest version that was replaced by one with the same images in other packs."""

    dataset: str
    before: str  # version
    version: str  # "" when it was only planned
    packs: list[PackUse]  # that it does not name any more


def choose(manifest: DatasetManifest, uses: Mapping[str, PackUse], *, alone: Container[str]) -> list[PackUse]:
    """The packs of a newest version that are worth packing anew.

    alone           packs that no other version names, where no run names this version: the others stay all the same,
                    and what small ones cost in requests is all that is won
    """
    small = [
        uses[pack] for pack in sorted(manifest.packs()) if pack in uses and uses[pack].size < SMALL_BYTES
    ]
    chosen = {use.pack: use for use in small} if len(small) >= SMALL_MAX else {}
    chosen |= {
        use.pack: use
        for pack, use in uses.items()
        if pack in manifest.packs() and use.wasteful and pack in alone
    }
    return [chosen[pack] for pack in sorted(chosen)]


def repack(
    store: Store, head: Head, manifest: DatasetManifest, packs: Sequence[str], *, now: float
) -> Head | None:
    """Publish the newest version with its images of `packs` in new packs. None when somebody else published meanwhile.

    The manifests of both versions are condemned: the one that is not the newest in the end is deleted later.

    now             seconds of Unix time
    DataError       a pack is damaged; nothing was published
    """
    name, before = manifest.dataset, head
    for _ in range(_TRIES):
        try:
            places, sums = _packed(store, manifest, set(packs))
            wanted = versions.with_sums(_moved(manifest, places), manifest.sums() | sums)
        except NotFoundError:
            if versions.read_head(store, name) != head:
                return None
            raise
        data, version = encode(wanted)
        versions.put_encoded(store, name, version, data, versions.find_manifest(store, name, version))
        if head == before:
            _carry_looks(store, name, before.version, version)
            both = [layout.manifest_key(name, each) for each in (before.version, version)]
            condemned.condemn_manifests(store, both, now)
            try:
                head = versions.move_head(store, name, version, head=before)
            except ConflictError:
                return None
        there = store.get(layout.manifest_key(name, version)) is not None
        old = manifest.packs()
        new = {pack: size for pack, size in wanted.least_bytes().items() if pack not in old}
        if there and not versions.lost_packs(store, new, wanted.sums()):
            return head
    raise ConflictError(
        f"What was packed anew for {name} was deleted again and again",
        next="Run it again when nobody else cleans up this store.",
    )


def _moved(manifest: DatasetManifest, places: Mapping[str, Located]) -> DatasetManifest:
    images = [
        dataclasses.replace(image, pack=place.pack, offset=place.offset)
        if (place := places.get(image.sha256))
        else image
        for image in manifest.images
    ]
    return dataclasses.replace(manifest, images=images)


def _packed(
    store: Store, manifest: DatasetManifest, packs: set[str]
) -> tuple[dict[str, Located], dict[str, tuple[int, str]]]:
    """Write and send the new packs: where each content is then, and the size and checksum of each pack."""
    places: dict[str, Located] = {}
    sums: dict[str, tuple[int, str]] = {}
    with scratch() as folder:

        def send(members: list[Member]) -> None:
            written = write_members(sorted(members), folder)
            versions.put_pack(store, written.path, written.sha256)
            places.update((located.sha256, located) for located in written.places)
            sums[written.sha256] = (written.size, written.crc32c)
            written.path.unlink()

        gathered: list[Member] = []
        left = 0
        for member in members_of(store, manifest, packs, folder):
            size = cost(len(member.data))
            if gathered and size > left:
                send(gathered)
                gathered = []
            if not gathered:
                left = room(PACK_BYTES)
            gathered.append(member)
            left -= size
        if gathered:
            send(gathered)
    return places, sums


def members_of(store: Store, manifest: DatasetManifest, packs: set[str], folder: Path) -> Iterator[Member]:
    """Each content of these packs that the version names, once, one pack on the disk at a time."""
    by_pack: dict[str, dict[str, Image]] = defaultdict(dict)
    done: set[str] = set()
    for image in manifest.images:
        if image.pack in packs and image.sha256 not in done:
            by_pack[image.pack][image.sha256] = image
            done.add(image.sha256)
    for pack, images in sorted(by_pack.items()):
        path = folder / "old"
        store.download(layout.pack_key(pack), path)
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != pack:
                raise _damaged(pack, store)
            for _, image in sorted(images.items()):
                yield _member(file, image, store)
        path.unlink()


def _member(file: BinaryIO, image: Image, store: Store) -> Member:
    if image.offset + image.size > os.fstat(file.fileno()).st_size:
        raise _damaged(image.pack, store)
    data = os.pread(file.fileno(), image.size, image.offset)
    if hashlib.sha256(data).hexdigest() != image.sha256:
        raise _damaged(image.pack, store)
    header = os.pread(file.fileno(), HEADER_BYTES, max(0, image.offset - HEADER_BYTES))
    found = _EXTENSION.match(header)
    return Member(image.sha256, found[1].decode() if found else "bin", data)


def _carry_looks(store: Store, dataset: str, before: str, version: str) -> None:
    """Whoever looked at the figures of the version before has looked at these images."""
    old, new = (layout.looks_prefix(dataset, each) for each in (before, version))
    with scratch() as folder:
        for blob in store.blobs(old):
            store.download(blob.key, folder / "look")
            try:
                store.upload(folder / "look", new + blob.key.removeprefix(old), if_generation=0)
            except ConflictError:  # it stands there
                continue


def _damaged(pack: str, store: Store) -> DataError:
    return DataError(
        f"Pack {pack[:12]} in {store.url} is damaged: it can't be packed anew",
        next="tlvm upload --verify DIR repairs it, from a folder that holds its images.",
    )
