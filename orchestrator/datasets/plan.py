"""From checked images and the version that is there to the next version: a pure function, nothing is read or sent."""

from __future__ import annotations

import dataclasses
import operator
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from remote.contract.dataset_manifest import DatasetManifest, Flips, Image, Split

from . import findings, grouping, names, split, together
from .check import Checked
from .convert import AS_IT_IS, Conversion
from .merge import Merged, merge, require_no_loss
from .near import NOTHING, Near
from .pack import groups
from .signature import DEEP


class Place(NamedTuple):
    """Where an image's bytes are in the store."""

    pack: str
    offset: int


_NOWHERE = Place("", 0)
_SAID = operator.attrgetter(
    "split", "class_name", "label_source", "group", "size", "page", "pack", "offset", "excluded"
)


@dataclass(frozen=True)
class Base:
    """The version that is there."""

    newest: DatasetManifest
    seen: Mapping[str, str] | None  # content hash by path, when this folder was last uploaded
    moved: bool  # somebody else published since


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
    added: int  # images, against the version that is there
    changed: int
    moved: int
    removed: int
    kept: dict[
        str, str | None
    ]  # by path of what others published: hash of what this folder has there instead


def plan(
    name: str,
    checked: Sequence[Checked],
    *,
    places: Mapping[str, Place],
    base: Base | None,
    classes_found: set[str],
    wishes: Wishes,
    near: Near = NOTHING,
) -> Plan:
    """The next version.

    places          by content hash: what is in packs of the store already
    classes_found   that have files, usable or not
    near            which of `checked` look the same
    DataError       the images can't be used; ConflictError: see `merge`
    """
    newest = base.newest if base else None
    if newest:
        grouping.require_same_way(wishes.group_by, [image.file for image in checked], newest)
    sets = together.sets([(image.verdict.sha256, image.file.group) for image in checked], near)
    sides, source = split.assign(checked, _earlier(newest), sets)
    known = {image.sha256: image for image in newest.images} if newest else {}
    by_path = {image.path: image for image in newest.images} if newest else {}
    here = [
        _image(image, side, sets.get(image.verdict.sha256), by_path, known, places)
        for image, side in zip(checked, sides, strict=True)
    ]
    merged = Merged(here, {})
    if base and not wishes.replace:
        merged = merge(here, base.newest, base.seen, moved=base.moved)
    images = findings.without_leaks([_placed(image, places) for image in merged.images], near)
    images.sort(key=lambda image: image.path)
    findings.require_usable(name, images, found=classes_found | {image.class_name for image in images})
    if newest and not wishes.allow_shrink:
        require_no_loss(images, newest)
    classes = sorted({image.class_name for image in images})
    window = findings.window(checked, sides)
    if window is None and newest and any(image.mode in DEEP for image in images):
        window = newest.intensity_window  # of images that were kept, whose files are not here
    manifest = DatasetManifest(
        dataset=name,
        classes=classes,
        split_source=source,
        flips=wishes.flips or (newest.flips if newest else findings.flips(classes)),
        intensity_window=window,
        images=images,
    )
    wanted = {image.sha256 for image in images if not image.pack}
    unpacked = [image for image in checked if image.verdict.sha256 in wanted]
    return Plan(manifest, groups(unpacked), *_differences(images, by_path), merged.kept)


def places(manifest: DatasetManifest) -> dict[str, Place]:
    """Where the images of a version are."""
    return {image.sha256: Place(image.pack, image.offset) for image in manifest.images}


def _earlier(newest: DatasetManifest | None) -> dict[str, Split]:
    if newest is None or newest.split_source != "hash":
        return {}
    return {image.sha256: image.split for image in newest.images if image.split != "test"}


def _image(
    checked: Checked,
    side: Split,
    group: str | None,
    by_path: Mapping[str, Image],
    known: Mapping[str, Image],
    places: Mapping[str, Place],
) -> Image:
    """A row of the manifest.

    by_path, known  images of the version before, by path and by content hash

    Of content that the version before has, everything that follows from the bytes is taken over, and at an unchanged
    path its time too: a fresh copy of the same files is the same version.
    """
    file, verdict = checked.file, checked.verdict
    path = names.encode(file.path)
    same_path = by_path.get(path)
    if same_path is not None and same_path.sha256 != verdict.sha256:
        same_path = None
    place = places.get(verdict.sha256, _NOWHERE)
    said = (side, file.class_name, file.label_source, group, checked.size, verdict.page, *place, None)
    if same_path is not None and _SAID(same_path) == said:
        return same_path
    looks = known.get(verdict.sha256, verdict)
    return Image(
        path=path,
        split=side,
        class_name=file.class_name,
        label_source=file.label_source,
        group=group,
        size=checked.size,
        sha256=verdict.sha256,
        mtime_ns=same_path.mtime_ns if same_path else file.mtime_ns,
        width=looks.width,
        height=looks.height,
        orientation=looks.orientation,
        pages=looks.pages,
        page=verdict.page,
        mode=looks.mode,
        pack=place.pack,
        offset=place.offset,
    )


def _placed(image: Image, places: Mapping[str, Place]) -> Image:
    place = places.get(image.sha256, _NOWHERE)
    if place == (image.pack, image.offset):
        return image
    return dataclasses.replace(image, pack=place.pack, offset=place.offset)


def _differences(images: Sequence[Image], before: Mapping[str, Image]) -> tuple[int, int, int, int]:
    """Added, changed, moved, removed. A path that is new and holds what another path lost was moved."""
    if not before:
        return len(images), 0, 0, 0
    new = [image for image in images if image.path not in before]
    changed = sum(image.path in before and before[image.path].sha256 != image.sha256 for image in images)
    here = {image.path for image in images}
    gone = Counter(image.sha256 for path, image in before.items() if path not in here)
    moved = (gone & Counter(image.sha256 for image in new)).total()
    return len(new) - moved, changed, moved, gone.total() - moved
