"""A folder for what is about to be sent, gone afterwards."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from orchestrator.errors import CloudError

_LOCK = "lock"


@contextmanager
def scratch() -> Iterator[Path]:
    """For small files, and one pack at a time. CloudError when what is written there does not fit."""
    place = Path(tempfile.gettempdir())
    with (
        _refused(place, "TMPDIR names another place."),
        tempfile.TemporaryDirectory(prefix="tlvm-") as folder,
    ):
        yield Path(folder)


@contextmanager
def spool(parent: Path) -> Iterator[Path]:
    """For packs on their way: a folder below `parent`. Those that killed processes left there are removed."""
    with _refused(parent, "So many may wait there at a time as are being sent."):
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _sweep(parent)
        folder, lock = _locked(parent)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.close()


def _locked(parent: Path) -> tuple[Path, TextIO]:
    """A new folder and its lock. Another process may sweep it before it is locked: then the next one."""
    while True:
        folder = Path(tempfile.mkdtemp(dir=parent, prefix="packs-"))
        lock = (folder / _LOCK).open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fstat(lock.fileno()).st_nlink:
            return folder, lock
        lock.close()


def _sweep(parent: Path) -> None:
    for folder in parent.glob("packs-*"):
        with suppress(OSError), (folder / _LOCK).open("r+") as lock:  # held: its owner lives
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)


@contextmanager
def _refused(place: Path, hint: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise CloudError(
            f"The disk is full: {place}" if full else f"The folder {place} can't be used",
            detail=str(error.strerror or error),
            next=f"A pack takes about 64 MiB there. {hint} Then run it again: it goes on.",
        ) from None
