"""What becomes of the images that the newest version has and this folder lacks.

A folder is compared with the version that it last saw. Is that still the newest, the folder is right in everything.
Has somebody else published meanwhile, their additions and changes are kept, and what this folder removed or changed
against theirs is a conflict. A folder that never saw the dataset may add to it if it shares images with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.errors import ConflictError
from remote.contract.dataset_manifest import DatasetManifest, Image

LOSS_SHARE_MAX = 0.2
_LOSS_IMAGES_MIN = 10


@dataclass(frozen=True)
class Merged:
    images: list[Image]
    kept: int  # images of the newest version that this folder lacks


def merge(
    here: Sequence[Image], newest: DatasetManifest, seen: DatasetManifest | None, *, replace: bool
) -> Merged:
    """The images of the next version.

    here            as the folder has them
    seen            the version that this folder last saw; the same object as `newest` when nothing came since
    replace         the folder is right, whatever happened meanwhile
    """
    if replace or seen is newest:
        return Merged(list(here), 0)
    if seen is None:
        return _added(here, newest)
    return _three_way(here, _by_path(newest), _by_path(seen), newest.dataset)


def require_no_loss(images: Sequence[Image], newest: DatasetManifest) -> None:
    """ConflictError when so many images are gone that a disk may not be mounted."""
    contents = {image.sha256 for image in images}
    lost = sum(image.sha256 not in contents for image in newest.images)
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
            next="Give this one another name (--name), or replace that one with it (--replace).",
        )
    kept = [image for image in newest.images if image.path not in paths and image.sha256 not in contents]
    return Merged([*here, *kept], len(kept))


def _three_way(
    here: Sequence[Image], newest: Mapping[str, Image], seen: Mapping[str, Image], dataset: str
) -> Merged:
    contents = {image.sha256 for image in here}
    mine = {image.path: image for image in here}
    disputed: list[str] = []
    kept = 0
    for path, theirs in newest.items():
        before, ours = _content(seen.get(path)), _content(mine.get(path))
        if theirs.sha256 in (ours, before):
            continue  # the same, or changed only here
        if ours == before:  # changed or added only there
            if ours is None and theirs.sha256 in contents:
                continue  # moved here
            mine[path] = theirs
            kept += 1
        else:
            disputed.append(path)
    removed = [path for path, image in newest.items() if path not in mine and image.sha256 not in contents]
    if disputed or removed:
        raise _conflict(dataset, disputed, removed)
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


def _by_path(manifest: DatasetManifest) -> dict[str, Image]:
    return {image.path: image for image in manifest.images}


def _content(image: Image | None) -> str | None:
    return image.sha256 if image else None
