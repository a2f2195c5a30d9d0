"""What this computer remembers of the files of a folder, as they were when they were read last.

    <records>/cache/folders/<hash of the folder, and of the way of looking at images>

A file is taken for unchanged when size, modification time and inode are. One that was written so shortly before it
was read that a later edit could carry the same time is not remembered.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from orchestrator.datasets.checks.checked import VERDICTS, Images
from orchestrator.datasets.checks.judge import Verdict
from orchestrator.datasets.columns import kept
from orchestrator.datasets.columns.column import Indices, matched
from orchestrator.datasets.columns.numbers import Numbers
from orchestrator.datasets.columns.rows import Form, Rows
from orchestrator.datasets.columns.texts import Blobs
from orchestrator.datasets.columns.words import Words
from orchestrator.datasets.folder.scan import Labelled

_TICK_NS = 50_000_000  # a clock of files that counts in nanoseconds moves at least so often
_COARSE_NS = 2_000_000_000  # ... and one that counts in seconds


class Stat(NamedTuple):
    path: bytes  # below the folder
    size: int
    mtime_ns: int
    inode: int


class Refused(NamedTuple):
    """A file that can't be used."""

    path: bytes
    size: int
    mtime_ns: int
    inode: int
    reason: str


_STATS = Form(Stat, path=Blobs, size=Numbers, mtime_ns=Numbers, inode=Numbers)
_REFUSED = Form(Refused, path=Blobs, size=Numbers, mtime_ns=Numbers, inode=Numbers, reason=Words)


@dataclass(frozen=True)
class Snapshot:
    files: Rows[Stat]
    verdicts: Rows[Verdict]  # of these files
    refused: Rows[Refused]

    def unchanged(self, files: Rows[Labelled]) -> Indices:
        """For each of these files the row of its verdict; -1 where it is not known as it is."""
        at = matched(files.columns["path"], self.files.columns["path"])
        if not len(self.files):
            return at
        same = at >= 0
        for name in ("size", "mtime_ns", "inode"):
            same &= self.files.numbers(name)[at] == files.numbers(name)
        return np.where(same, at, -1)

    def still_refused(self, files: Rows[Labelled]) -> dict[int, str]:
        """By position: why one of these files can't be used, where that is known of it as it is."""
        reasons = {refused[:4]: refused.reason for refused in self.refused}
        if not reasons:
            return {}
        stats = files.tuples("path", "size", "mtime_ns", "inode")
        return {at: reasons[stat] for at, stat in enumerate(stats) if stat in reasons}


NOTHING = Snapshot(_STATS.rows(), VERDICTS.rows(), _REFUSED.rows())


def is_kept(folder: Path | None, root: Path, form: str) -> bool:
    """Whether anything may be remembered of the files below `root`."""
    place = _place(folder, root, form)
    return place is not None and place.exists()


def load(folder: Path | None, root: Path, form: str) -> Snapshot:
    """What is remembered of the files below `root`.

    form            of verdicts: others do not count
    """
    pieces = kept.read(_place(folder, root, form), form=_form(form))
    if pieces is None:
        return NOTHING
    return Snapshot(_STATS.again(pieces), VERDICTS.again(pieces), _REFUSED.again(pieces))


def keep(
    folder: Path | None, root: Path, form: str, images: Images, refused: Iterable[Refused], now_ns: int
) -> None:
    """Remember files as they were read, not before `now_ns`."""
    place = _place(folder, root, form)
    if place is None:
        return
    settled = is_settled(images.files.numbers("mtime_ns"), now_ns)
    known = images if settled.all() else images.take(np.flatnonzero(settled))
    stats = Rows(_STATS, known.files.columns)
    some = _REFUSED.rows(one for one in refused if is_settled(one.mtime_ns, now_ns))
    pieces = (piece for rows in (stats, known.verdicts, some) for piece in rows.pieces())
    kept.write(place, pieces, form=_form(form))


def is_settled(mtime_ns: Indices | int, now_ns: int) -> NDArray[np.bool_]:
    """Whether an edit after `now_ns` is sure to give a file of this modification time another one."""
    times = np.asarray(mtime_ns)
    return times + np.where(times % 1_000_000 == 0, _COARSE_NS, _TICK_NS) < now_ns


def _place(folder: Path | None, root: Path, form: str) -> Path | None:
    if folder is None:
        return None
    name = hashlib.sha256(os.fsencode(root) + b"\0" + form.encode()).hexdigest()
    return folder / "folders" / name


def _form(form: str) -> str:
    return f"{form}; {_STATS}; {VERDICTS}; {_REFUSED}"
