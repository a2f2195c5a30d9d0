"""Labels that stand in a table instead of in folders: which image is of which class, split and group."""

from __future__ import annotations

import os
import time
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from orchestrator.datasets.folder import names
from orchestrator.datasets.folder.names import SetAside
from orchestrator.datasets.folder.scan import (
    LABELLED,
    SPLITS,
    Labelled,
    Scan,
    Survey,
    called,
    checked_name,
    folder_times,
    resolved,
    walked,
)
from orchestrator.datasets.folder.tables import Row, rows
from orchestrator.datasets.folder.walk import File
from orchestrator.errors import DataError
from remote.contract.dataset_manifest import Split
from remote.contract.wording import listed

_SHOWN = 5


class Finder:
    """Files as tables name them: by their path below the folder, by their name, with or without the ending.

    A name that fits several files finds none.
    """

    def __init__(self, paths: Sequence[bytes]) -> None:
        self._by: dict[str, set[bytes]] = defaultdict(set)
        for path in paths:
            whole = PurePosixPath(_composed(os.fsdecode(path)))
            for key in {str(whole), whole.name, str(whole.with_suffix("")), whole.stem}:
                self._by[key].add(path)

    def find(self, name: str) -> bytes | None:
        found = self._by.get(_composed(str(PurePosixPath(name.replace("\\", "/")))), set())
        if len(found) > 1:  # the path itself goes before a file deeper down that is called the same
            found = {path for path in found if _composed(os.fsdecode(path)) == _composed(name)}
        return next(iter(found)) if len(found) == 1 else None


def survey_by_table(folder: Path, table: Path, *, name: str | None = None) -> Survey:
    """The one dataset that the images below `folder` and a table (path, label, optional split and group) make.

    NotFoundError   no such folder or table
    DataError       the table can't be used: a label missing, two labels for one image, splits for some images only
    """
    root = resolved(folder)
    began_ns = time.time_ns()
    top = walked(root, called(folder, root))
    written = rows(table, needed=("path", "label"))
    files = {file.path: file for place in top.everything() for file in place.files}
    set_aside = [item for place in top.everything() for item in place.set_aside]
    set_aside = [item for item in set_aside if names.decode(item.path) != _inside(table, root)]
    labelled, unknown = _matched(files, written, table.name)
    _require_labels(labelled, unknown, table.name)
    said = {file.path for file in labelled}
    set_aside += [
        SetAside(names.encode(path), f"not in {table.name}") for path in sorted(files) if path not in said
    ]
    splits: tuple[Split, ...] = tuple(sorted({file.split for file in labelled if file.split}))
    scan = Scan(
        name=checked_name(name) if name else names.dataset_name(top.name),
        root=root,
        files=LABELLED.rows(sorted(labelled, key=lambda file: file.path)),
        splits=splits,
        set_aside=set_aside,
        warnings=_warnings(unknown, table.name),
        folders=folder_times(top),
        began_ns=began_ns,
    )
    return Survey([scan], [])


def _matched(
    files: Mapping[bytes, File], written: Sequence[Row], table: str
) -> tuple[list[Labelled], list[Row]]:
    finder = Finder(list(files))
    found: dict[bytes, Labelled] = {}
    unknown: list[Row] = []
    for row in written:
        path = finder.find(row.cells["path"])
        if path is None:
            unknown.append(row)
            continue
        file = _labelled(files[path], row, table)
        before = found.setdefault(path, file)
        if before != file:
            raise DataError(
                f"{table} says two things of {names.shown(path)}",
                detail=f"Line {row.line}: {file.class_name}; before: {before.class_name}",
                next="An image has one label: remove one of the lines.",
            )
    return list(found.values()), unknown


def _labelled(file: File, row: Row, table: str) -> Labelled:
    split = row.cells.get("split", "")
    if split and split.lower().encode() not in SPLITS:
        raise DataError(
            f"Line {row.line} of {table} names no split: {split[:40]!r}", next="Valid: train, val, test"
        )
    return Labelled(
        file.path,
        file.size,
        file.mtime_ns,
        file.inode,
        SPLITS[split.lower().encode()] if split else None,
        _composed(row.cells["label"]),
        label_source=table,
        group=row.cells.get("group") or None,
    )


def _require_labels(labelled: Sequence[Labelled], unknown: Sequence[Row], table: str) -> None:
    if not labelled:
        raise DataError(
            f"No line of {table} names an image of this folder",
            detail=f"Line {unknown[0].line}: {unknown[0].cells['path'][:200]}" if unknown else "",
            next="Paths in the table are below the folder that is uploaded.",
        )
    if len({file.split is None for file in labelled}) > 1:
        without = next(file for file in labelled if file.split is None)
        raise DataError(
            f"{table} says the split of some images only; not of {names.shown(without.path)}",
            next="Fill the column in every line, or in none.",
        )
    spelled: dict[str, str] = {}
    for label in sorted({file.class_name for file in labelled}):
        other = spelled.setdefault(names.folded(label), label)
        if other != label:
            raise DataError(
                f"Two labels in {table} differ in capitals only: {other} and {label}", next="Make them one."
            )


def _warnings(unknown: Sequence[Row], table: str) -> list[str]:
    if not unknown:
        return []
    shown = listed(unknown, _SHOWN, lambda row: row.cells["path"][:80])
    return [f"{table} names files that are not here, or more than one, {len(unknown)}: {shown}"]


def _inside(table: Path, root: Path) -> bytes | None:
    try:
        return os.fsencode(table.resolve().relative_to(root))
    except ValueError:
        return None


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)
