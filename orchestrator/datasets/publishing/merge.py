"""What becomes of the images that the newest version has and this folder lacks.

A folder is compared with what it held when it was last uploaded. What others added or changed since is kept. What
this folder lost since is removed, unless somebody else published meanwhile: then that, and what was changed on both
sides, is a conflict. A folder that was never uploaded may add to a dataset with which it shares images. What can't be
read here is taken for unchanged.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import dataclass, fields

import numpy as np

from orchestrator.datasets.columns.column import Indices
from orchestrator.datasets.columns.hashes import is_among
from orchestrator.datasets.columns.images import IMAGES, at_path
from orchestrator.datasets.columns.rows import Rows
from orchestrator.errors import ConflictError
from remote.contract.dataset_manifest import DatasetManifest, Image, values
from remote.contract.wording import listed_in_lines

LOSS_SHARE_MAX = 0.2
_LOSS_IMAGES_MIN = 10
_LISTED_MAX = 10
_SHOWN = [field.name for field in fields(Image) if field.name not in ("pack", "offset")]


@dataclass(frozen=True)
class Held:
    """What a folder held when it was last uploaded: the images of that version, but for those that others added."""

    images: Rows[Image]
    differing: Mapping[str, str | None]  # by path: the hash of what it held instead

    def at(self, path: str) -> str | None:
        """The hash of what it held there."""
        if path in self.differing:
            return self.differing[path]
        image = at_path(self.images, path)
        return image.sha256 if image is not None else None

    def by_path(self) -> Iterator[tuple[str, str]]:
        held = {**dict(self.images.tuples("path", "sha256")), **self.differing}
        return ((path, sha256) for path, sha256 in held.items() if sha256 is not None)


@dataclass(frozen=True)
class Merged:
    images: Rows[Image]
    # By path of what others published: the hash of what this folder has there instead.
    kept: dict[str, str | None]


def merge(
    here: Rows[Image],
    newest: DatasetManifest,
    seen: Held | None,
    *,
    moved: bool,
    unread: Set[str] = frozenset(),
) -> Merged:
    """The images of the next version.

    here            as the folder has them; those that can't be read where it held what the newest version has
    seen            when this folder was last uploaded
    moved           somebody else published since
    unread          paths of files that can't be read just now
    """
    theirs = IMAGES.rows(newest.images)
    if seen is None:
        return _added(here, theirs, newest.dataset)
    if (
        seen.images is theirs and not moved
    ):  # all that the folder held can only be as it was, changed here, or gone
        disputable = _at(theirs, set(seen.differing))
        return _three_way(here, disputable, dict(seen.differing), unread, newest.dataset, moved=False)
    return _three_way(here, theirs, dict(seen.by_path()), unread, newest.dataset, moved=moved)


def same_images(one: DatasetManifest, other: DatasetManifest) -> bool:
    """Whether two versions differ at most in where their images are: `gc` packs them anew."""
    if _header(one) != _header(other) or len(one.images) != len(other.images):
        return False
    return all(map(operator.eq, values(one.images, *_SHOWN), values(other.images, *_SHOWN)))  # in path order


def require_no_loss(images: Rows[Image], before: Rows[Image], gone: Indices, dataset: str) -> None:
    """ConflictError when so many images are gone that a disk may not be mounted.

    gone            those of `before` at whose path there is none
    """
    if len(gone) < _LOSS_IMAGES_MIN or len(gone) <= LOSS_SHARE_MAX * len(before):
        return
    lost = int((~is_among(before.hashes("sha256")[gone], images.hashes("sha256"))).sum())
    if lost >= _LOSS_IMAGES_MIN and lost > LOSS_SHARE_MAX * len(before):
        raise ConflictError(
            f"{lost} of the {len(before)} images of the dataset {dataset} are gone from this folder",
            next="If that is meant: --allow-shrink. Else look whether the whole folder is there.",
        )


def _added(here: Rows[Image], theirs: Rows[Image], dataset: str) -> Merged:
    shared = is_among(theirs.hashes("sha256"), here.hashes("sha256"))
    if not shared.any():
        raise ConflictError(
            f"The store has a dataset {dataset} already, and this folder shares no image with it",
            next="Give this one another name (--dataset NAME), or replace that one with it (--replace).",
        )
    paths = set(here.columns["path"])
    elsewhere = np.array([path not in paths for path in theirs.columns["path"]])
    kept = theirs.take(np.flatnonzero(elsewhere & ~shared))
    return Merged(here.joined(kept), dict.fromkeys(kept.columns["path"]))


def _three_way(
    here: Rows[Image],
    theirs: Rows[Image],
    seen: Mapping[str, str | None],
    unread: Set[str],
    dataset: str,
    *,
    moved: bool,
) -> Merged:
    """`theirs` are of the newest version; `seen` says what the folder held at their paths."""
    if not len(theirs):
        return Merged(here, {})
    wanted = set(theirs.columns["path"])
    mine = {path: sha256 for path, sha256 in here.tuples("path", "sha256") if path in wanted}
    contents = set(here.columns["sha256"])
    disputed: list[str] = []
    kept: dict[str, str | None] = {}
    removed: list[str] = []
    for path, sha256 in theirs.tuples("path", "sha256"):
        before = seen.get(path)
        ours = mine.get(path, before if path in unread else None)
        if sha256 in (ours, before):
            if ours is None and sha256 not in contents:
                removed.append(path)
        elif ours != before:
            disputed.append(path)
        elif ours is not None or sha256 not in contents:  # changed or added there, and not moved here
            kept[path] = ours
    if disputed or (removed and moved):
        raise _conflict(dataset, disputed, removed)
    if not kept:
        return Merged(here, {})
    rest = np.flatnonzero([path not in kept for path in here.columns["path"]])
    return Merged(here.take(rest).joined(_at(theirs, kept)), kept)


def _at(images: Rows[Image], paths: Collection[str]) -> Rows[Image]:
    return images.take(
        np.flatnonzero([path in paths for path in images.columns["path"]]) if paths else np.arange(0)
    )


def _conflict(dataset: str, disputed: list[str], removed: list[str]) -> ConflictError:
    what = [f"changed here and there: {path}" for path in disputed]
    what += [f"gone from this folder: {path}" for path in removed]
    return ConflictError(
        f"Somebody else published a version of {dataset} since this folder was last uploaded",
        detail=listed_in_lines(what, _LISTED_MAX),
        next="--replace makes the dataset what this folder holds; or bring these images back.",
    )


def _header(manifest: DatasetManifest) -> dict[str, object]:
    where = ("images", "pack_bytes", "pack_crc32c")
    return {name: value for name, value in vars(manifest).items() if name not in where}
