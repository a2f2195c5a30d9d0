"""One dataset on its way into the store: packs, manifest, HEAD, and again from the start when somebody was faster.

Full packs travel while the check goes on; the last one, the manifest and HEAD only after it has passed.
"""

from __future__ import annotations

import dataclasses
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from orchestrator.datasets.checks.cache import Cache
from orchestrator.datasets.checks.check import Outcome, check
from orchestrator.datasets.checks.checked import Checked, Images
from orchestrator.datasets.checks.near import NOTHING, Near
from orchestrator.datasets.columns.images import IMAGES
from orchestrator.datasets.columns.places import NOWHERE, Places
from orchestrator.datasets.folder.names import SetAside
from orchestrator.datasets.folder.names import decode as decode_name
from orchestrator.datasets.folder.names import encode as encode_name
from orchestrator.datasets.folder.remembered import Remembered
from orchestrator.datasets.folder.scan import Scan
from orchestrator.datasets.packs import condemned, pack
from orchestrator.datasets.packs.packing import Packer
from orchestrator.datasets.packs.small import mergeable
from orchestrator.datasets.publishing import versions
from orchestrator.datasets.publishing.basis import Basis, Seen
from orchestrator.datasets.publishing.plan import Base, Plan, Wishes, plan
from orchestrator.datasets.publishing.stock import Found, Stock
from orchestrator.datasets.publishing.versions import Head
from orchestrator.errors import CloudError, ConflictError
from orchestrator.progress import Progress
from orchestrator.stores.base import Store
from orchestrator.stores.beside import begun
from remote.contract import layout
from remote.contract.dataset_manifest import encode, values
from remote.contract.wording import count, listed_in_lines

_TRIES = 3  # against others who publish the same dataset at the same time


@dataclass(frozen=True)
class Published:
    head: Head
    plan: Plan
    unchanged: bool  # the store had this version already, nothing was written
    missed: list[SetAside]
    packs_sent: set[str]
    packs_verified: set[str]  # that lay in the store whole: the others were sent, or not looked at
    bytes_sent: int

    @property
    def version(self) -> str:
        return self.head.version


def first_plan(scan: Scan, outcome: Outcome, wishes: Wishes) -> Plan:
    """The plan for a store that knows nothing: says whether the images can be used at all."""
    return _planned(scan, outcome.images, NOWHERE, None, wishes, outcome.near)


class Publication:
    """What is known of the store grows with each try. `find_head`, `take_in`, `settle`, `publish`, `stop`, in this order."""

    def __init__(
        self,
        store: Store,
        scan: Scan,
        wishes: Wishes,
        seen: Seen | None,
        remembered: Remembered,
        progress: Progress,
        spool: Path,
        *,
        pack_bytes: int = pack.PACK_BYTES,
        verify: bool = False,
        stored: Callable[[str], None] | None = None,
    ) -> None:
        """`verify` looks at every pack in the store, also where nothing is to be written.

        `stored` is told each pack that this upload sends or meets in the store; several threads call it.
        """
        self._store = store
        self._scan = scan
        self._wishes = wishes
        self._remembered = remembered
        self._progress = progress
        self._spool = spool
        self._pack_bytes = pack.limit_for(int(scan.files.numbers("size").sum()), pack_bytes)
        self._verify = verify or wishes.replace
        self._basis = Basis(store, scan.name, seen, remembered, progress, replace=wishes.replace)
        self._stock = Stock(store, remembered.sums(), progress, read=self._verify, stored=stored)
        self._manifest_bytes = 0  # that were sent
        self._images = Images.of([])
        self._missed: list[SetAside] = []
        self._near = NOTHING
        self._overtaken = ""  # the version whose manifest was sent, when somebody else's became the newest
        self._head = Head("", 0)
        self._base: Base | None = None
        self._packer: Packer | None = None

    def find_head(self) -> Head:
        """One request where nobody published since."""
        self._head = self._basis.remembered_head()
        return self._head

    def take_in(self, cache: Cache, *, processes: int | None = None) -> Outcome:
        """Check every file, and pack on the way what the newest version lacks."""
        self._base = self._basis.base(self._head.version)
        there = self._there(self._base)
        before = IMAGES.rows(self._base.newest.images if self._base else ())
        there = there.without_contents(mergeable(self._scan, before))
        packer = self._packer = Packer(self._spool, there, before, self._stock.bring, limit=self._pack_bytes)
        outcome = check(self._scan, self._progress, processes=processes, cache=cache, packing=packer)
        self._stock.add(packer.places(), packer.sums)
        outcome = dataclasses.replace(outcome, images=outcome.images.without_fingerprints())
        self._images, self._missed, self._near = outcome.images, list(outcome.missed), outcome.near
        return outcome

    def settle(self) -> Plan:
        """Whether the images can be used: DataError, ConflictError. Nothing is published yet."""
        planned = self._plan(self._base)
        if planned.kept:  # others' images do not make this folder a dataset
            _planned(self._scan, self._images, NOWHERE, None, self._wishes, self._near)
        return planned

    def publish(self, planned: Plan) -> Published:
        """ConflictError when somebody else was faster each time, or when `merge` finds a contradiction."""
        for _ in range(_TRIES):
            if published := self._try(planned):
                return published
            self._head = self._basis.head()
            self._disown()
            self._base = self._basis.base(self._head.version)
            planned = self._plan(self._base)
        raise ConflictError(
            f"The dataset {self._scan.name} kept changing in {self._store.url}",
            next="Run it again when nobody else uploads it.",
        )

    def stop(self) -> None:
        """Done, or given up: nothing more is begun to be sent."""
        if self._packer is not None:
            self._packer.stop()

    def _try(self, planned: Plan) -> Published | None:
        """None when somebody else was faster."""
        assert self._packer is not None
        self._packer.release()
        data, version = encode(planned.manifest) if not planned.to_pack else (b"", "")
        found: Found = {}
        if version not in ("", self._head.version):
            older = sorted(planned.manifest.packs() - self._stock.written.keys())
            manifest_key = layout.manifest_key(self._scan.name, version)
            found = versions.find_all(self._store, [manifest_key, *map(layout.pack_key, older)])
        self._packer.finish(self._progress)  # the last pack was on its way meanwhile
        met = self._stock.has_met(planned.manifest.packs())  # else another computer sent them: look once
        if version and version == self._head.version and met and not self._verify:
            return self._published(self._head, planned, unchanged=True)
        whole = self._with_packs(planned, found)
        if whole is not planned or not version:
            planned = whole
            data, version = encode(planned.manifest)
        key = layout.manifest_key(self._scan.name, version)
        there = found[key] if key in found else self._store.get(key)
        sent = versions.put_encoded(self._store, self._scan.name, version, data, there)
        self._manifest_bytes += sent
        if version == self._head.version:  # only looked after, or repaired
            unchanged = not sent and not self._stock.sent
            return self._published(self._head, planned, unchanged=unchanged)
        # From the manifest on they are kept: whether all are there may be asked while HEAD moves.
        packs = [layout.pack_key(name) for name in sorted(planned.manifest.packs())]
        looking = begun(lambda: versions.find_all(self._store, packs), name="packs")
        try:
            head = versions.move_head(self._store, self._scan.name, version, head=self._head)
        except ConflictError:
            self._overtaken = version if sent else ""
            return None
        if self._stock.find_lost(planned.manifest, looking.result()):
            return None
        return self._published(head, planned, unchanged=False)

    def _disown(self) -> None:
        """What never was the newest version is none, and would count as one: `gc` deletes it, unless it becomes one."""
        if self._overtaken not in ("", self._head.version):
            key = layout.manifest_key(self._scan.name, self._overtaken)
            condemned.condemn_manifests(self._store, [key], time.time())
        self._overtaken = ""

    def _there(self, base: Base | None) -> Places:
        """What need not be packed, by content hash."""
        return self._stock.places(base.places if base else NOWHERE)

    def _plan(self, base: Base | None) -> Plan:
        there = self._there(base)
        planned = _planned(self._scan, self._images, there, base, self._wishes, self._near, self._missed)
        known = (base.newest.sums() if base else {}) | self._stock.written
        return dataclasses.replace(planned, manifest=versions.with_sums(planned.manifest, known))

    def _with_packs(self, planned: Plan, found: Found) -> Plan:
        """Every pack of the plan that comes back is in the store, as far as can be told without reading it."""
        # Those that were sent were verified then.
        if self._stock.find_lost(planned.manifest, found, but=self._stock.sent):
            planned = self._plan(self._base)
        while planned.to_pack:
            gone = self._send([image for group in planned.to_pack for image in group])
            self._missed += gone
            paths = {item.path for item in gone}
            left = [encode_name(path) not in paths for path in self._images.files.columns["path"]]
            self._images = self._images.take(np.flatnonzero(left))
            planned = self._plan(self._base)
        if "" in planned.manifest.packs():
            unplaced = [path for path, pack in values(planned.manifest.images, "path", "pack") if not pack]
            raise CloudError(
                f"{self._store.url} has lost {count(len(unplaced), 'image')} of {self._scan.name} that this folder lacks "
                "or that can't be read in it",
                detail=listed_in_lines(unplaced, 10),
                next="Upload the folder that has them, or leave them out with --replace.",
            )
        return planned

    def _send(self, images: Sequence[Checked]) -> list[SetAside]:
        """Write and send packs one after the other: lost ones as they were, then what is new. What was missed."""
        missed = []
        lost = dict(values(self._base.newest.images, "sha256", "pack")) if self._base else {}
        again: dict[str, list[Checked]] = defaultdict(list)
        for image in images:
            again[lost.get(image.verdict.sha256, "")].append(image)
        new = pack.groups(again.pop("", []), self._pack_bytes)
        with self._progress.bar("send", sum(image.size for image in images), "bytes") as bar:
            for group in (*again.values(), *new):
                written, gone = pack.write(group, self._scan.root, self._spool, self._wishes.conversion)
                missed += gone
                if written is not None:
                    self._stock.bring(written)
                    self._stock.add(Places(written.places), {written.sha256: (written.size, written.crc32c)})
                    written.path.unlink()
                bar.advance(sum(image.size for image in group))
        return missed

    def _published(self, head: Head, planned: Plan, *, unchanged: bool) -> Published:
        self._remembered.keep_manifest(planned.manifest, head.version)
        named = planned.manifest.packs()
        self._remembered.keep_sums(self._stock.sums(named))
        sent = self._stock.sent
        verified = (self._stock.verified & named) - sent
        bytes_sent = self._stock.bytes_sent + self._manifest_bytes
        return Published(head, planned, unchanged, self._missed, sent, verified, bytes_sent)


def _planned(
    scan: Scan,
    images: Images,
    there: Places,
    base: Base | None,
    wishes: Wishes,
    near: Near,
    missed: Sequence[SetAside] = (),
) -> Plan:
    unread = {decode_name(item.path) for item in missed}
    at = [at for at, path in enumerate(scan.files.columns["path"]) if path in unread] if unread else []
    return plan(
        scan.name,
        images,
        places=there,
        base=base,
        classes_found=set(scan.files.columns["class_name"]),
        wishes=wishes,
        near=near,
        missed=scan.files.take(np.array(at, dtype=np.int64)),
    )
