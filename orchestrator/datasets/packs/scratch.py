"""Folders for what is about to be sent, gone afterwards, and those of killed processes with the next one."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TextIO

from orchestrator.errors import CloudError

_LOCK = "lock"
_ADOPTED, _ADOPTED_LOCK = "pymp-*", "of-tlvm"  # temporary folders of multiprocessing, and what tells ours
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@contextmanager
def scratch() -> Iterator[Path]:
    """For small files, and one pack at a time. CloudError when what is written there does not fit."""
    parent = Path(tempfile.gettempdir())
    _sweep_adopted(parent)
    with _held(parent, "tlvm-scratch-", "TMPDIR names another place.") as folder:
        yield folder


def adopt(folder: Path) -> None:
    """Have multiprocessing's folder, which it removes at the end, removed by the next `scratch` if we are killed."""
    lock = os.open(folder / _ADOPTED_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    with suppress(BlockingIOError):  # another of our threads was first
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as long as this process lives


@contextmanager
def spool(parent: Path) -> Iterator[Path]:
    """For packs on their way: a folder below `parent`."""
    with _held(parent, "packs-", "So many may wait there at a time as are being sent.") as folder:
        yield folder


@contextmanager
def _held(parent: Path, prefix: str, hint: str) -> Iterator[Path]:
    """What goes wrong inside is translated only where it is this folder's fault."""
    with ExitStack() as ends:
        try:
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder = ends.enter_context(_folder(parent, prefix))
        except OSError as error:
            raise _refused(parent, error, hint) from None
        try:
            yield folder
        except OSError as error:
            if not _is_of(folder, error):
                raise
            raise _refused(parent, error, hint) from None


@contextmanager
def _folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A folder that is locked as long as its process lives; those that nobody holds are removed first."""
    _sweep(parent, prefix)
    folder, lock = _locked(parent, prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.close()


def _locked(parent: Path, prefix: str) -> tuple[Path, TextIO]:
    """A new folder and its lock. Another process may sweep it before it is locked: then the next one."""
    while True:
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
        try:
            lock = (folder / _LOCK).open("w")
        except FileNotFoundError:
            continue
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fstat(lock.fileno()).st_nlink:
            return folder, lock
        lock.close()


def _sweep(parent: Path, prefix: str) -> None:
    for folder in parent.glob(f"{prefix}*"):
        with suppress(OSError):
            try:
                _remove_unless_held(folder / _LOCK)
            except FileNotFoundError:  # it was killed before it came so far, or is about to
                folder.rmdir()


def _sweep_adopted(parent: Path) -> None:
    for lock in parent.glob(f"{_ADOPTED}/{_ADOPTED_LOCK}"):
        with suppress(OSError):
            _remove_unless_held(lock)


def _remove_unless_held(path: Path) -> None:
    """The folder of a lock. OSError when its owner lives, or it belongs to another user."""
    if path.parent.lstat().st_uid != os.getuid():  # in /tmp
        raise PermissionError
    with path.open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path.parent)


def _is_of(folder: Path, error: OSError) -> bool:
    """Whether it tells of a file in this folder. Of what is written to an open one it names no file."""
    if error.filename is None:
        return error.errno in _FULL
    named = error.filename
    return isinstance(named, str | bytes | os.PathLike) and Path(os.fsdecode(named)).is_relative_to(folder)


def _refused(place: Path, error: OSError, hint: str) -> CloudError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return CloudError(
        f"The disk is full: {place}" if full else f"The folder {place} can't be used",
        detail=str(error.strerror or error),
        next=f"A pack takes about 64 MiB there. {hint} Then run it again: it goes on.",
    )
