"""What becomes of the images that the newest version has and this folder lacks.

A folder is compared with what it held when it was last uploaded. What others added or changed since is kept. What
this folder lost since is removed, unless somebody else published meanwhile: then that, and what was changed on both
sides, is a conflict. A folder that was never uploaded may add to a dataset with which it shares images.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from orchestrator.errors import ConflictError
from remote.contract.dataset_manifest import DatasetManifest, Image

LOSS_SHARE_MAX = 0.2
_LOSS_IMAGES_MIN = 10
_SHOWN = operator.attrgetter(*(field.name for field in fields(Image) if field.name not in ("pack", "offset")))


@dataclass(frozen=True)
class Merged:
    images: list[Image]
    kept: dict[
        str, str | None
    ]  # by path of what others published: hash of what this folder has there instead


def merge(
    here: Sequence[Image], newest: DatasetManifest, seen: Mapping[str, str] | None, *, moved: bool
) -> Merged:
    """The images of the next version.

    here            as the folder has them
    seen            content hash by path, when this folder was last uploaded
    moved           somebody else published since
    """
    if seen is None:
        return _added(here, newest)
    return _three_way(here, newest, seen, moved)


def same_images(one: DatasetManifest, other: DatasetManifest) -> bool:
    """Whether two versions differ at most in where their images are: `gc` packs them anew."""
    if _header(one) != _header(other) or len(one.images) != len(other.images):
        return False
    return all(map(operator.eq, map(_SHOWN, one.images), map(_SHOWN, other.images)))  # both in path order


def require_no_loss(images: Sequence[Image], newest: DatasetManifest) -> None:
    """ConflictError when so many images are gone that a disk may not be mounted."""
    contents, paths = {image.sha256 for image in images}, {image.path for image in images}
    lost = sum(image.sha256 not in contents and image.path not in paths for image in newest.images)
    if lost >= _LOSS_IMAGES_MIN and lost > LOSS_SHARE_MAX * len(newest.images):
        raise ConflictError(
            f"{lost} of the {len(newest.images)} images of the dataset {newest.dataset} are gone from this folder",
            next="If that is meant: --allow-shrink. Else look whether the whole folder is there.",
        )


def _added(here: Sequence[Image], newest: DatasetManifest) -> Merged:
    contents = {image.sha256 for image in here}
    paths = {image.path for image in here}
    if not any(image.sha256 in contents for image in newest.images):
        raise ConflictError(
            f"The store has a dataset {newest.dataset} already, and this folder shares no image with it",
            next="Give this one another name (--dataset NAME), or replace that one with it (--replace).",
        )
    kept = [image for image in newest.images if image.path not in paths and image.sha256 not in contents]
    return Merged([*here, *kept], dict.fromkeys(image.path for image in kept))


def _three_way(
    here: Sequence[Image], newest: DatasetManifest, seen: Mapping[str, str], moved: bool
) -> Merged:
    contents = {image.sha256 for image in here}
    mine = {image.path: image for image in here}
    disputed: list[str] = []
    kept: dict[str, str | None] = {}
    removed: list[str] = []
    for theirs in newest.images:
        path = theirs.path
        before, ours = seen.get(path), mine[path].sha256 if path in mine else None
        if theirs.sha256 in (ours, before):
            if ours is None and theirs.sha256 not in contents:
                removed.append(path)
        elif ours != before:
            disputed.append(path)
        elif ours is not None or theirs.sha256 not in contents:  # changed or added there, and not moved here
            mine[path] = theirs
            kept[path] = ours
    if disputed or (removed and moved):
        raise _conflict(newest.dataset, disputed, removed)
    return Merged(list(mine.values()), kept)


def _conflict(dataset: str, disputed: list[str], removed: list[str]) -> ConflictError:
    what = [f"changed here and there: {path}" for path in disputed[:5]]
    what += [f"gone from this folder: {path}" for path in removed[:5]]
    more = len(disputed) + len(removed) - len(what)
    return ConflictError(
        f"Somebody else published a version of {dataset} since this folder was last uploaded",
        detail="\n".join(what + ([f"and {more} more"] if more else [])),
        next="--replace makes the dataset what this folder holds; or bring these images back.",
    )


def _header(manifest: DatasetManifest) -> dict[str, object]:
    where = ("images", "pack_bytes", "pack_crc32c")
    return {name: value for name, value in vars(manifest).items() if name not in where}
