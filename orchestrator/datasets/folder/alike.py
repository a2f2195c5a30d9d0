"""Names that other systems hold for one: two such datasets, classes or files are refused."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from orchestrator.datasets.folder import names
from orchestrator.datasets.folder.walk import Folder
from orchestrator.errors import DataError


def require_unlike_datasets(folders: Sequence[bytes]) -> None:
    """DataError when two names of folders would be one dataset."""
    keys = {name: names.dataset_name(name) for name in folders}
    for one, other in _alike(keys):
        both = f"{names.shown(one)} and {names.shown(other)}"
        raise DataError(f"Two folders would be the dataset {keys[other]}: {both}", next="Rename one of them.")


def require_unlike_classes(folders: Sequence[bytes], root: Path) -> None:
    """DataError when two folders are one class elsewhere, in one split or in two."""
    spelled: dict[str, bytes] = {}
    for folder in folders:
        label = names.class_name(folder.rpartition(b"/")[2])
        other = spelled.setdefault(names.folded(label), folder)
        same_parent = other.rpartition(b"/")[0] == folder.rpartition(b"/")[0]
        if other != folder and (same_parent or names.class_name(other.rpartition(b"/")[2]) != label):
            _refuse(other, folder, root)


def require_unlike_files(top: Folder, root: Path) -> None:
    """DataError when two files in a folder differ in capitals only."""
    for folder in top.everything():
        found = b"/".join(folder.files.columns["name"])
        if not found.isascii() or len(set(found.lower().split(b"/"))) < len(folder.files):
            place = folder.path + b"/" if folder.path else b""
            for one, other in _alike({file.name: _lower(file.name) for file in folder.files}):
                _refuse(place + one, place + other, root)


def _alike(keys: Mapping[bytes, str]) -> Iterator[tuple[bytes, bytes]]:
    """Names that have the key of an earlier one, behind that."""
    first: dict[str, bytes] = {}
    for name, key in keys.items():
        if (other := first.setdefault(key, name)) != name:
            yield other, name


def _lower(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace").lower()


def _refuse(one: bytes, other: bytes, root: Path) -> None:
    raise DataError(
        f"Two names in {names.shown(os.fsencode(root))} are the same on other systems",
        detail=f"{names.shown(one)}\n{names.shown(other)}",
        next="Rename one of them.",
    )
