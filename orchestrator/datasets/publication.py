"""One dataset on its way into the store: packs, manifest, HEAD, and again from the start when somebody was faster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.errors import CloudError, ConflictError, DataError, NotFoundError
from orchestrator.progress import Progress
from orchestrator.stores.base import Store
from remote.contract.dataset_manifest import DatasetManifest, encode

from . import pack, versions
from .check import Checked, Outcome
from .names import SetAside
from .names import encode as encode_name
from .plan import Base, Place, Plan, Wishes, places, plan
from .scan import Scan
from .scratch import scratch

_TRIES = 3  # against others who publish the same dataset at the same time


@dataclass(frozen=True)
class Published:
    version: str
    plan: Plan
    unchanged: bool  # the store had this version already, nothing was written
    missed: list[SetAside]
    packs_sent: set[str]
    bytes_sent: int


@dataclass(frozen=True)
class Seen:
    """What this folder held when it was last uploaded."""

    version: str
    differing: Mapping[str, str | None]  # by path: the hash of what it held instead


def first_plan(scan: Scan, outcome: Outcome, wishes: Wishes) -> Plan:
    """The plan for a store that knows nothing: says whether the images can be used at all."""
    return _planned(scan, outcome.images, {}, None, wishes)


class Publication:
    """What is known of the store grows with each try."""

    def __init__(
        self,
        store: Store,
        scan: Scan,
        outcome: Outcome,
        wishes: Wishes,
        seen: Seen | None,
        progress: Progress,
    ) -> None:
        self._store = store
        self._scan = scan
        self._wishes = wishes
        self._seen = seen
        self._progress = progress
        self._images: Sequence[Checked] = outcome.images
        self._missed = list(outcome.missed)
        self._placed: dict[str, Place] = {}  # by this upload
        self._lost: set[str] = set()  # packs that a version names and the store does not have
        self._packs_sent: set[str] = set()
        self._bytes_sent = 0

    def publish(self) -> Published:
        """ConflictError when somebody else was faster each time, or when `merge` finds a contradiction."""
        for _ in range(_TRIES):
            head = versions.read_head(self._store, self._scan.name)
            base = self._base(head.version)
            planned = self._plan(base)
            if not planned.to_pack and encode(planned.manifest)[1] == head.version:
                return self._published(head.version, planned, unchanged=True)
            planned = self._with_packs(planned, base)
            version, sent = versions.put_manifest(self._store, planned.manifest)
            self._bytes_sent += sent
            try:
                versions.move_head(self._store, self._scan.name, version, head=head)
            except ConflictError:
                continue
            if not self._find_lost(planned.manifest):
                return self._published(version, planned, unchanged=False)
        raise ConflictError(
            f"The dataset {self._scan.name} kept changing in {self._store.url}",
            next="Run it again when nobody else uploads it.",
        )

    def _base(self, version: str) -> Base | None:
        if not version:
            return None
        try:
            newest = versions.load_manifest(self._store, self._scan.name, version)
        except (DataError, NotFoundError) as error:
            if not self._wishes.replace:
                raise
            self._progress.warn(f"{error.what}: replaced by what this folder holds")
            return None
        if self._seen is None:
            return Base(newest, None, moved=True)
        if self._seen.version == version:
            return Base(newest, _held(newest, self._seen.differing), moved=False)
        try:
            before = versions.load_manifest(self._store, self._scan.name, self._seen.version)
        except (DataError, NotFoundError):  # that version is gone: this folder is a stranger
            return Base(newest, None, moved=True)
        return Base(newest, _held(before, self._seen.differing), moved=True)

    def _plan(self, base: Base | None) -> Plan:
        known = {**(places(base.newest) if base else {}), **self._placed}
        there = {sha256: place for sha256, place in known.items() if place.pack not in self._lost}
        return _planned(self._scan, self._images, there, base, self._wishes)

    def _with_packs(self, planned: Plan, base: Base | None) -> Plan:
        """Every pack of the plan that comes back is in the store."""
        if self._find_lost(planned.manifest):
            planned = self._plan(base)
        while planned.to_pack:
            for pack_missed in self._send(planned.to_pack):
                self._missed += pack_missed
                gone = {item.path for item in pack_missed}
                self._images = [i for i in self._images if encode_name(i.file.path) not in gone]
            planned = self._plan(base)
        unplaced = [image.path for image in planned.manifest.images if not image.pack]
        if unplaced:
            raise CloudError(
                f"{self._store.url} has lost {len(unplaced)} images of {self._scan.name} that this folder lacks",
                detail="\n".join(unplaced[:10]),
                next="Upload the folder that has them, or leave them out with --replace.",
            )
        return planned

    def _find_lost(self, manifest: DatasetManifest) -> set[str]:
        lost = versions.missing_packs(self._store, manifest.packs() - {""})
        self._lost |= lost
        return lost

    def _send(self, groups: Sequence[Sequence[Checked]]) -> list[list[SetAside]]:
        """Write and send packs one after the other: the disk holds one at a time. What was missed, pack by pack."""
        missed = []
        total = sum(image.file.size for group in groups for image in group)
        with (
            scratch() as folder,
            self._progress.bar("send", total, "bytes") as bar,
        ):
            for group in groups:
                written, gone = pack.write(group, self._scan.root, folder)
                missed.append(gone)
                if written is not None:
                    self._put(written)
                    written.path.unlink()
                bar.advance(sum(image.file.size for image in group))
        return missed

    def _put(self, written: pack.Pack) -> None:
        if versions.put_pack(self._store, written.path, written.sha256):
            self._packs_sent.add(written.sha256)
            self._bytes_sent += written.size
        self._lost.discard(written.sha256)
        self._placed |= {sha256: Place(written.sha256, at) for sha256, at in written.offsets.items()}

    def _published(self, version: str, planned: Plan, *, unchanged: bool) -> Published:
        return Published(version, planned, unchanged, self._missed, self._packs_sent, self._bytes_sent)


def _planned(
    scan: Scan, images: Sequence[Checked], there: dict[str, Place], base: Base | None, wishes: Wishes
) -> Plan:
    return plan(
        scan.name,
        images,
        places=there,
        base=base,
        classes_found={file.class_name for file in scan.files},
        wishes=wishes,
    )


def _held(manifest: DatasetManifest, differing: Mapping[str, str | None]) -> dict[str, str]:
    """Content hash by path."""
    held = {**{image.path: image.sha256 for image in manifest.images}, **differing}
    return {path: sha256 for path, sha256 in held.items() if sha256 is not None}
