"""Files that came or went while their folder was uploaded.

A file that is made or removed changes the time of its folder, so that only the folders are looked at. Where one of them
changed, or was written so shortly before the walk that its time may not tell, its names are compared; the whole is
walked again only where these are others.
"""

from __future__ import annotations

import os
from collections.abc import Set
from itertools import chain

from orchestrator.datasets.folder.names import SetAside, decode, encode
from orchestrator.datasets.folder.scan import Scan
from orchestrator.datasets.folder.snapshot import is_settled


def is_touched(scan: Scan) -> bool:
    """Whether a file may have come or gone since the scan."""
    unsure = set()
    for path, mtime_ns in scan.folders.items():
        try:
            now_ns = (scan.root / os.fsdecode(path)).stat().st_mtime_ns
        except OSError:
            return True
        if now_ns != mtime_ns or not is_settled(mtime_ns, scan.began_ns):
            unsure.add(path)
    return bool(unsure) and _holds_others(scan, unsure)


def came_and_went(before: Scan, now: Scan) -> list[SetAside]:
    """The images that only one of two looks at a folder saw."""
    there, here = (set(scan.files.columns["path"]) for scan in (before, now))
    came = [SetAside(encode(path), "it appeared meanwhile") for path in sorted(here - there)]
    return came + [SetAside(encode(path), "it vanished meanwhile") for path in sorted(there - here)]


def _holds_others(scan: Scan, folders: Set[bytes]) -> bool:
    """Whether one of these folders holds other names than the scan saw there."""
    seen: dict[bytes, set[bytes]] = {folder: set() for folder in folders}
    aside = (decode(item.path) for item in scan.set_aside)
    for path in chain(scan.files.columns["path"], aside, filter(None, scan.folders)):
        above, _, name = path.rpartition(b"/")
        if above in seen:
            seen[above].add(name)
    root = os.fsencode(scan.root)
    try:
        return any(_names(root + b"/" + folder) != seen[folder] for folder in folders)
    except OSError:
        return True


def _names(place: bytes) -> set[bytes]:
    with os.scandir(place) as entries:
        return {entry.name for entry in entries}
