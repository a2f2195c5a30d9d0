"""From checked images and the version that is there to the next version: a pure function, nothing is read or sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from orchestrator.datasets.checks import findings
from orchestrator.datasets.checks.checked import Checked, Images
from orchestrator.datasets.checks.convert import AS_IT_IS, Conversion
from orchestrator.datasets.checks.near import NOTHING, Near
from orchestrator.datasets.checks.signature import DEEP
from orchestrator.datasets.columns.column import Indices, laid_over, matched
from orchestrator.datasets.columns.hashes import Lookup, is_among
from orchestrator.datasets.columns.images import IMAGES
from orchestrator.datasets.columns.numbers import Numbers
from orchestrator.datasets.columns.places import Places
from orchestrator.datasets.columns.rows import Rows
from orchestrator.datasets.columns.texts import Blobs, Texts
from orchestrator.datasets.columns.words import Words
from orchestrator.datasets.folder import names
from orchestrator.datasets.folder.scan import LABELLED, Labelled
from orchestrator.datasets.packs.pack import groups
from orchestrator.datasets.publishing.changes import Changes, changes
from orchestrator.datasets.publishing.merge import Held, Merged, merge, require_no_loss
from orchestrator.datasets.publishing.recalled import recalled, with_near_copies, with_recalled
from orchestrator.datasets.splits import grouping, split, together
from remote.contract.dataset_manifest import DatasetManifest, Flips, Image, Split

_LOOKS = ("width", "height", "orientation", "pages", "mode")  # that follow from the bytes


@dataclass(frozen=True)
class Base:
    """The version that is there."""

    newest: DatasetManifest
    seen: Held | None  # when this folder was last uploaded
    moved: bool  # somebody else published since

    @cached_property
    def places(self) -> Places:
        """Where its images are."""
        return Places.of(IMAGES.rows(self.newest.images))


@dataclass(frozen=True)
class Wishes:
    """What the user said."""

    flips: Flips | None = None  # default: as the version before, else guessed
    replace: bool = False  # the folder is right, whatever others published meanwhile
    allow_shrink: bool = False  # many images may be gone
    group_by: str | None = None  # a pattern or a table, or "none"
    conversion: Conversion = AS_IT_IS


@dataclass(frozen=True)
class Plan:
    manifest: DatasetManifest  # `pack` is "" for what must be packed first
    to_pack: list[list[Checked]]  # one pack each
    changes: Changes  # against the version that is there
    # By path of what others published: the hash of what this folder has there instead.
    kept: dict[str, str | None]


def plan(
    name: str,
    checked: Sequence[Checked],
    *,
    places: Places,
    base: Base | None,
    classes_found: set[str],
    wishes: Wishes,
    near: Near = NOTHING,
    missed: Rows[Labelled] | None = None,
) -> Plan:
    """The next version.

    places          what is in packs of the store already
    classes_found   that have files, usable or not
    near            which of `checked` look the same
    missed          files of which is not known what they hold now: see `recalled`
    DataError       the images can't be used; ConflictError: see `merge`
    """
    read = Images.of(checked)
    newest = base.newest if base else None
    before = IMAGES.rows(newest.images if newest else ())
    missed = LABELLED.rows() if missed is None else missed
    known = recalled(missed, before, base.seen if base else None)
    if wishes.replace:  # what the store has lost is not waited for
        known = known.take(np.flatnonzero(places.find(known.verdicts.hashes("sha256")) >= 0))
    usable = with_recalled(read, known)
    if newest:
        grouping.require_same_way(wishes.group_by, usable.files, newest)
    sets = together.sets(usable.verdicts.hashes("sha256"), list(usable.files.columns["group"]), near)
    sides, source = split.assign(usable, _earlier(newest), sets)
    here = _rows(usable, sides, sets)
    same = matched(here.columns["path"].encoded(), before.columns["path"].encoded())
    here = _as_before(here, before, same) if len(before) else here
    here = with_near_copies(here, before, same, set(map(names.encode, known.files.columns["path"])))
    merged = Merged(here, {})
    if base and not wishes.replace:
        unread = set(map(names.encode, missed.columns["path"]))
        merged = merge(here, base.newest, base.seen, moved=base.moved, unread=unread)
    images = here if merged.images is here else merged.images.sorted_by("path")
    images = findings.without_leaks(_placed(images, places), near)
    classes = set(images.columns["class_name"])
    findings.require_usable(name, images, found=classes_found | classes)
    if merged.images is not here:
        same = matched(images.columns["path"].encoded(), before.columns["path"].encoded())
    gone = np.delete(np.arange(len(before)), same[same >= 0])
    if not wishes.allow_shrink:
        require_no_loss(images, before, gone, name)
    window = findings.window(usable, sides)
    # Of images that were kept, whose files are not here or can't be read:
    if newest and DEEP & set((images if window is None else known.verdicts).columns["mode"]):
        window = newest.intensity_window
    manifest = DatasetManifest(
        dataset=name,
        classes=sorted(classes),
        split_source=source,
        flips=wishes.flips or (newest.flips if newest else findings.flips(sorted(classes))),
        intensity_window=window,
        images=images,
    )
    to_pack = groups(_unpacked(read, images))
    return Plan(manifest, to_pack, changes(images, before, same, gone), merged.kept)


def _earlier(newest: DatasetManifest | None) -> split.Earlier:
    if newest is None or newest.split_source != "hash":
        return split.NOTHING_EARLIER
    images = IMAGES.rows(newest.images)
    codes, words = images.codes("split")
    side = np.array([("train", "val", "test").index(word) for word in words], dtype=np.int64)[codes]
    return split.Earlier(images.hashes("sha256")[side < 2], side[side < 2] == 1)


def _rows(usable: Images, sides: Sequence[Split], sets: Sequence[str | None]) -> Rows[Image]:
    """The rows of the manifest, in no pack yet."""
    count = len(usable)
    files, verdicts = usable.files.columns, usable.verdicts.columns
    rows = Rows(
        IMAGES,
        {
            "path": _encoded(files["path"]),
            "split": Words.of_values(sides),
            "class_name": files["class_name"],
            "label_source": files["label_source"],
            "group": Words.of_values(sets),
            "size": Numbers.of(usable.sizes()),
            "sha256": verdicts["sha256"],
            "mtime_ns": files["mtime_ns"],
            **{name: verdicts[name] for name in _LOOKS},
            "page": verdicts["page"],
            "pack": Words.repeated("", count),
            "offset": Numbers.of(np.zeros(count, dtype=np.int64)),
            "excluded": Words.repeated(None, count),
        },
    )
    return rows.sorted_by("path")


def _encoded(paths: Blobs) -> Texts:
    if names.is_plain(paths.whole()):
        return Texts.of(paths)
    encoded = Texts()
    encoded.extend([names.encode(path) for path in paths])
    return encoded


def _as_before(here: Rows[Image], before: Rows[Image], same: Indices) -> Rows[Image]:
    """Of content that the version before has, everything that follows from the bytes is taken over, and at an unchanged
    path its time too: a fresh copy of the same files is the same version.

    same            the place of each path in the version before
    """
    known = Lookup(before.hashes("sha256")).find(here.hashes("sha256"))
    looks = {name: laid_over(here.columns[name], before.columns[name], known) for name in _LOOKS}
    unchanged = (same >= 0) & (before.hashes("sha256")[same] == here.hashes("sha256"))
    times = laid_over(here.columns["mtime_ns"], before.columns["mtime_ns"], np.where(unchanged, same, -1))
    return here.but(**looks, mtime_ns=times)


def _placed(images: Rows[Image], places: Places) -> Rows[Image]:
    at = places.find(images.hashes("sha256"))
    nowhere = {
        "pack": Words.repeated("", len(images)),
        "offset": Numbers.of(np.zeros(len(images), dtype=np.int64)),
    }
    return images.but(
        **{name: laid_over(column, places.rows.columns[name], at) for name, column in nowhere.items()}
    )


def _unpacked(read: Images, images: Rows[Image]) -> Images:
    """What must be packed first."""
    codes, packs = images.codes("pack")
    if "" not in packs or not len(waiting := np.flatnonzero(codes == packs.index(""))):
        return read[:0]
    wanted = images.hashes("sha256")[waiting]
    return read.take(np.flatnonzero(is_among(read.verdicts.hashes("sha256"), wanted)))
