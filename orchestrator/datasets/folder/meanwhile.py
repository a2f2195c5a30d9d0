"""Files that came or went while their folder was uploaded.

A file that is made or removed changes the time of its folder, so that only the folders are looked at; the whole is
walked again only where one of them changed, or was written so shortly before the walk that its time may not tell.
"""

from __future__ import annotations

import os

from orchestrator.datasets.folder.names import SetAside, encode
from orchestrator.datasets.folder.scan import Scan
from orchestrator.datasets.folder.snapshot import is_settled


def is_touched(scan: Scan) -> bool:
    """Whether a file may have come or gone since the scan."""
    for path, mtime_ns in scan.folders.items():
        try:
            now_ns = (scan.root / os.fsdecode(path)).stat().st_mtime_ns
        except OSError:
            return True
        if now_ns != mtime_ns or not is_settled(mtime_ns, scan.began_ns):
            return True
    return False


def came_and_went(before: Scan, now: Scan) -> list[SetAside]:
    """The images that only one of two looks at a folder saw."""
    there, here = (set(scan.files.columns["path"]) for scan in (before, now))
    came = [SetAside(encode(path), "it appeared meanwhile") for path in sorted(here - there)]
    return came + [SetAside(encode(path), "it vanished meanwhile") for path in sorted(there - here)]
