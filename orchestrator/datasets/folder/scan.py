"""What a folder means: which datasets it holds, with which splits, classes and files. Contents are not read.

A folder whose children are named train, val, valid, validation or test has splits; children that hold images are
classes; otherwise each child that fits is a dataset of its own. Images in folders below a class folder belong to
that class, as torchvision's ImageFolder has it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from orchestrator.datasets.columns.numbers import Numbers
from orchestrator.datasets.columns.rows import Form, Rows
from orchestrator.datasets.columns.texts import Blobs
from orchestrator.datasets.columns.words import Words
from orchestrator.datasets.folder import names
from orchestrator.datasets.folder.alike import (
    require_unlike_classes,
    require_unlike_datasets,
    require_unlike_files,
)
from orchestrator.datasets.folder.names import SetAside
from orchestrator.datasets.folder.tree import beside
from orchestrator.datasets.folder.walk import File, Folder, walk
from orchestrator.errors import CloudError, ConfigError, DataError, NotFoundError
from remote.contract import layout
from remote.contract.dataset_manifest import Split
from remote.contract.document import ContractError
from remote.contract.wording import count, listed_in_lines

_SHOWN = 10
SPLITS: dict[bytes, Split] = {
    b"train": "train",
    b"val": "val",
    b"valid": "val",
    b"validation": "val",
    b"test": "test",
}


class Labelled(NamedTuple):
    """A file in a class folder."""

    path: bytes  # below the dataset's folder
    size: int
    mtime_ns: int
    inode: int
    split: Split | None  # None: the dataset has no split folders
    class_name: str
    label_source: str = "folder"  # or the name of the table that said it
    group: str | None = None  # patient, slide, video, as the user calls it: it never leaves this computer


LABELLED = Form(
    Labelled,
    path=Blobs,
    size=Numbers,
    mtime_ns=Numbers,
    inode=Numbers,
    split=Words,
    class_name=Words,
    label_source=Words,
    group=Words,
)


@dataclass(frozen=True)
class Scan:
    """One dataset as it lies on the disk."""

    name: str
    root: Path
    files: Rows[Labelled]  # in path order
    splits: tuple[Split, ...]  # that have a folder
    set_aside: list[SetAside]
    warnings: list[str]
    folders: Mapping[bytes, int] = field(default_factory=dict)  # by path: mtime_ns before it was listed
    began_ns: int = 0  # Unix time


@dataclass(frozen=True)
class Survey:
    datasets: list[Scan]
    ignored: list[SetAside]  # children that are no dataset, where others are


def survey(folder: Path, *, name: str | None = None) -> Survey:
    """Walk `folder` once and say what it holds.

    name            of the dataset, instead of the folder's own; only where there is one
    NotFoundError   no such folder
    DataError       nothing in it is a dataset; shows the tree that was found beside the one that was expected
    """
    root = resolved(folder)
    began_ns = time.time_ns()
    top = walked(root, called(folder, root))
    if _kind(top):
        return Survey([_scan(top, root, name, began_ns)], [])
    return _children(top, root, name, began_ns)


def resolved(folder: Path) -> Path:
    """Where the folder really is. NotFoundError when there is none."""
    root = folder.resolve()
    if not root.is_dir():
        raise NotFoundError(f"There is no folder {names.shown(os.fsencode(folder))}", next="Check the path.")
    return root


def called(folder: Path, root: Path) -> str:
    """The name of a folder as it was given: a link has its own, "." that of where it leads."""
    return root.name if folder.name in ("", "..") else folder.name


def walked(root: Path, name: str) -> Folder:
    """All that is below `root`, called `name`. CloudError, DataError when a folder can't be listed."""
    try:
        top = walk(root, os.fsencode(name))
    except OSError as error:
        raise CloudError(
            f"The folder {names.shown(os.fsencode(root))} can't be listed",
            detail=str(error.strerror),
            next="Check its permissions.",
        ) from None
    _require_listed(top, root)
    return top


def folder_times(top: Folder) -> dict[bytes, int]:
    """Of every folder of a dataset, by its path below the dataset's."""
    cut = len(top.path) + 1 if top.path else 0
    return {folder.path[cut:]: folder.mtime_ns for folder in top.everything()}


def _require_listed(top: Folder, root: Path) -> None:
    """DataError naming the folders that can't be listed: without what they hold, it is another dataset."""
    if unlisted := [item for folder in top.everything() for item in folder.unlisted]:
        raise DataError(
            f"{count(len(unlisted), 'folder')} in {names.shown(os.fsencode(root))} can't be looked into",
            detail=listed_in_lines(unlisted, _SHOWN, lambda item: f"{item.path}: {item.reason}"),
            next="Check the permissions, or move away what is no part of the dataset.",
        )


def _children(top: Folder, root: Path, name: str | None, began_ns: int) -> Survey:
    fitting = [child for child in _visible(top) if _kind(child)]
    if not fitting:
        raise DataError(
            f"The folder {names.shown(os.fsencode(root))} holds no dataset",
            detail=beside(top),
            next="Put the images of each class into a folder of its own.",
        )
    if name and len(fitting) > 1:
        found = ", ".join(names.shown(child.name) for child in fitting)
        raise ConfigError(
            f"The name {name!r} was given for {len(fitting)} datasets",
            detail=f"Found: {found}",
            next="Leave the name out, or upload one folder at a time.",
        )
    require_unlike_datasets([child.name for child in fitting])
    ignored = [
        SetAside(names.encode(child.path), "not a dataset") for child in top.folders if child not in fitting
    ]
    ignored += [SetAside(names.encode(file.path), "not in a dataset") for file in top.files]
    scans = [_scan(child, root / os.fsdecode(child.name), name, began_ns) for child in fitting]
    return Survey(scans, ignored + top.set_aside)


def _kind(folder: Folder) -> str | None:
    """ "splits", "classes", or None where the folder is not a dataset."""
    if any(_split_of(child) for child in _visible(folder)):
        return "splits"
    holding = [child for child in _visible(folder) if child.files]
    if holding and any(child.name.lower() not in SPLITS for child in holding):
        return "classes"
    return None


def _split_of(folder: Folder) -> Split | None:
    """The split of a folder that is named like one and holds class folders.

    A folder "train" that holds only images is a class (of vehicles, say) or not labelled, but no split.
    """
    split = SPLITS.get(folder.name.lower())
    return split if split and any(child.holds_images() for child in _visible(folder)) else None


def _visible(folder: Folder) -> list[Folder]:
    return [child for child in folder.folders if not child.hidden]


def _scan(top: Folder, root: Path, name: str | None, began_ns: int) -> Scan:
    """`top` is a dataset; paths of the result begin below it."""
    gathered = _Gathered(len(top.path) + 1 if top.path else 0)
    gathered.leave_out(top, "not in a class folder")
    splits: list[Split] = []
    if _kind(top) == "splits":
        for child in top.folders:
            if split := _split_of(child):
                splits.append(split)
                gathered.leave_out(child, "not in a class folder")
                gathered.classes(child.folders, split)
            else:
                gathered.leave_out_all(child, "not in a class folder of train, val or test")
        _one_folder_each(top, root)
    else:
        _no_dataset_among_classes(top, root)
        gathered.classes(top.folders, None)
    require_unlike_classes(gathered.class_folders, root)
    require_unlike_files(top, root)
    return Scan(
        checked_name(name) if name else names.dataset_name(top.name),
        root,
        gathered.files.sorted_by("path"),
        tuple(sorted(set(splits))),
        sorted(gathered.set_aside, key=lambda item: item.path),
        gathered.warnings,
        folder_times(top),
        began_ns,
    )


class _Gathered:
    """What one dataset's folders add up to."""

    def __init__(self, cut: int) -> None:
        self._cut = cut  # bytes of path above the dataset's folder
        self.files = LABELLED.rows()
        self.set_aside: list[SetAside] = []
        self.warnings: list[str] = []
        self.class_folders: list[bytes] = []

    def classes(self, folders: Iterable[Folder], split: Split | None) -> None:
        for folder in folders:
            shown = names.shown(folder.path[self._cut :])
            if folder.hidden and folder.files:
                raise DataError(
                    f"The folder {shown} holds images, but its name begins with a dot",
                    next="Rename it if it is a class; move it away if it is not.",
                )
            if folder.hidden or not folder.holds_images():
                self.leave_out_all(folder, "in a hidden folder")
                if not folder.hidden:
                    self.warnings.append(f"The folder {shown} holds no image and is not a class")
            else:
                self._one_class(folder, split, shown)

    def _one_class(self, folder: Folder, split: Split | None, shown: str) -> None:
        self.class_folders.append(folder.path[self._cut :])
        label = names.class_name(folder.name)
        deeper = 0
        for place in _below(folder):
            self._keep_set_aside(place)
            deeper += len(place.files) if place is not folder else 0
            self._one_folder(place.files, split, label)
            for hidden in (child for child in place.folders if child.hidden):
                self.leave_out_all(hidden, "in a hidden folder")
        if deeper:
            self.warnings.append(f"In folders below {shown}, of that class: {count(deeper, 'image')}")

    def _one_folder(self, files: Rows[File], split: Split | None, label: str) -> None:
        """Column by column, which takes a third of the time that making each row takes."""
        cut = self._cut
        seen = {name: list(files.columns[name]) for name in ("size", "mtime_ns", "inode")}
        said = Labelled(b"", 0, 0, 0, split, label)
        said_of_all = {
            name: [getattr(said, name)] * len(files) for name in LABELLED.columns if name not in seen
        }
        paths = {"path": [path[cut:] for path in files.columns["path"]]}
        for name, values in (said_of_all | seen | paths).items():
            self.files.columns[name].extend(values)

    def leave_out(self, folder: Folder, reason: str) -> None:
        """The files of this folder, not those of folders in it."""
        self._keep_set_aside(folder)
        self.set_aside += [SetAside(names.encode(file.path[self._cut :]), reason) for file in folder.files]

    def leave_out_all(self, folder: Folder, reason: str) -> None:
        for place in folder.everything():
            self.leave_out(place, reason)

    def _keep_set_aside(self, folder: Folder) -> None:
        for item in folder.set_aside:
            path = names.decode(item.path)[self._cut :]
            self.set_aside.append(SetAside(names.encode(path), item.reason))


def _below(folder: Folder) -> Iterable[Folder]:
    yield folder
    for child in _visible(folder):
        yield from _below(child)


def _no_dataset_among_classes(top: Folder, root: Path) -> None:
    for child in _visible(top):
        if _kind(child) == "splits":
            raise DataError(
                f"The folder {names.shown(child.name)} in {names.shown(os.fsencode(root))} is a dataset, "
                "but its neighbours are classes",
                next="Move it away, or upload it by itself.",
            )


def _one_folder_each(top: Folder, root: Path) -> None:
    found: dict[Split, bytes] = {}
    for child in top.folders:
        if split := _split_of(child):
            if split in found:
                both = f"{names.shown(found[split])} and {names.shown(child.name)}"
                raise DataError(
                    f"{names.shown(os.fsencode(root))} has two folders for {split}: {both}",
                    next="Merge or rename one.",
                )
            found[split] = child.name


def checked_name(name: str) -> str:
    try:
        return layout.dataset_name(name)
    except ContractError as error:
        raise ConfigError(str(error), next="Give another name.") from None
