"""`--group-by`: which images are of one patient, slide or video, from a pattern over paths or from a table.

What the user calls a group is needed here only; `together` names it by its content before it travels.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.datasets.columns.rows import column
from orchestrator.datasets.folder.labels import Finder
from orchestrator.datasets.folder.scan import LABELLED, Labelled, Scan
from orchestrator.datasets.folder.tables import rows
from orchestrator.datasets.splits.together import GROUPED
from orchestrator.errors import ConfigError, DataError
from remote.contract.dataset_manifest import DatasetManifest, Image, values
from remote.contract.wording import count

NONE = "none"  # --group-by none: what was grouped before no longer is
FEW_GROUPS = 5  # of a class, below which a figure says more of these few than of the class
_NAMES = r"([^/]*\d[^/]*)[-_. ][A-Za-z]*\d+\.\w+$"  # patient12_slice003.png, video7-frame_0100.jpg
_DEEPER = r"/(.+)/[^/]+$"  # tumour/patient12/003.png, below the folder of the class
_SEEN_MIN = 0.8  # share of the images that a suggested pattern fits
_LOOKED_AT = 1000  # images that say whether it is worth to look at all
_GROUPS_MIN = 5
_EACH_MIN = 2.0  # images a group on average


def grouped(scan: Scan, by: str) -> Scan:
    """The same files, each with its group; files of no group stand for themselves.

    by              a regular expression, searched in each path below the dataset's folder: its first capture group
                    (else all that it matched) names the group; or a CSV table (path, group); or "none"
    ConfigError     not a regular expression, or it fits no path
    """
    if by == NONE:
        return scan
    groups = _from_table(scan, Path(by)) if by.lower().endswith((".csv", ".tsv")) else _from_pattern(scan, by)
    alone = [file for file in scan.files if file.path not in groups]
    said = f"--group-by names no group of {count(len(alone), 'image')}: each stands for itself"
    return dataclasses.replace(
        scan,
        files=LABELLED.rows(file._replace(group=groups.get(file.path, file.group)) for file in scan.files),
        warnings=[*scan.warnings, said] if alone else scan.warnings,
    )


def suggestion(files: Sequence[Labelled]) -> str | None:
    """What to say when names look as if several images were of one patient, slide or video."""
    if not files or set(column(files, "group")) != {None}:
        return None
    folders = ("^[^/]+" if files[0].split is None else "^[^/]+/[^/]+") + _DEEPER
    some = files[:: max(1, len(files) // _LOOKED_AT)]
    for pattern, where in ((_NAMES, "file names"), (folders, "folders")):
        if not _found(some, re.compile(pattern), unfit_max=round(2 * (1 - _SEEN_MIN) * len(some))):
            continue
        found = _found(files, re.compile(pattern), unfit_max=round((1 - _SEEN_MIN) * len(files)))
        sizes = Counter(found.values())
        few = len(sizes) < _GROUPS_MIN or len(found) < _EACH_MIN * len(sizes)
        if len(found) >= _SEEN_MIN * len(files) and not few:
            example, most = sizes.most_common(1)[0]
            return (
                f"The {where} look grouped, {len(sizes)} groups such as {example!r} with {most} images. If these are of "
                f"one patient, slide or video: --group-by '{pattern}' keeps them on one side"
            )
    return None


def require_same_way(by: str | None, files: Sequence[Labelled], newest: DatasetManifest) -> None:
    """ConfigError when the version before was grouped and this one would quietly not be."""
    grouped_now = by is not None or not {None}.issuperset(column(files, "group"))
    if not grouped_now and _has_asked(newest.images):
        raise ConfigError(
            f"The version before of {newest.dataset} was made with groups (--group-by), and this one has none",
            next="Give --group-by as before; or --group-by none, if they no longer count.",
        )


def too_few(images: Sequence[Image]) -> list[str]:
    """What is said of classes that are found in few groups only."""
    if not _has_asked(images):
        return []
    groups: dict[str, set[str]] = defaultdict(set)
    for class_name, group, sha256 in values(images, "class_name", "group", "sha256"):
        groups[class_name].add(group or sha256)
    poor = [f"{name} ({len(of)})" for name, of in sorted(groups.items()) if len(of) < FEW_GROUPS]
    if not poor:
        return []
    return [f"Found in fewer than {FEW_GROUPS} groups, which allows no honest figure: {', '.join(poor)}"]


def _has_asked(images: Sequence[Image]) -> bool:
    """Whether the user asked for a group of these."""
    return any(group.startswith(GROUPED) for group in set(column(images, "group")) - {None})


def _from_pattern(scan: Scan, by: str) -> Mapping[bytes, str]:
    try:
        pattern = re.compile(by)
    except re.error as error:
        raise ConfigError(
            f"--group-by {by!r} is not a regular expression: {error}",
            next="Give a pattern over paths, like '(patient[0-9]+)', or a table: groups.csv.",
        ) from None
    found = _found(scan.files, pattern)
    if not found and scan.files:
        raise ConfigError(
            f"--group-by {by!r} fits no path of {scan.name}",
            detail=f"One of them: {_text(scan.files[0].path)}",
            next="The pattern is searched in the path below the dataset's folder.",
        )
    return found


def _found(
    files: Sequence[Labelled], pattern: re.Pattern[str], *, unfit_max: int | None = None
) -> dict[bytes, str]:
    """The group of each path that fits; none as soon as more than `unfit_max` do not."""
    found: dict[bytes, str] = {}
    for seen, path in enumerate(column(files, "path"), 1):
        if match := pattern.search(_text(path)):
            found[path] = match[1 if pattern.groups else 0] or ""
        elif unfit_max is not None and seen - len(found) > unfit_max:
            return {}
    return found


def _from_table(scan: Scan, table: Path) -> Mapping[bytes, str]:
    finder = Finder(list(scan.files.columns["path"]))
    groups: dict[bytes, str] = {}
    for row in rows(table, needed=("path", "group")):
        path = finder.find(row.cells["path"])
        if path is not None and groups.setdefault(path, row.cells["group"]) != row.cells["group"]:
            raise DataError(
                f"Line {row.line} of {table.name} puts {row.cells['path'][:200]} into a second group",
                next="An image is of one group: remove one of the lines.",
            )
    if not groups:
        raise DataError(
            f"No line of {table.name} names an image of {scan.name}",
            next="Paths in the table are below the dataset's folder.",
        )
    return groups


def _text(path: bytes) -> str:
    return os.fsdecode(path).encode("utf-8", "replace").decode()
