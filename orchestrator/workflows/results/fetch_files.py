"""Files of a result out of the store into their folder: whole and verified, resumed, never over anything else.

What is on its way lies in the hidden folder `.pull` of the result, held by one process: a second one waits, and then
finds the files. What was cut short there goes on at its byte.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from orchestrator.errors import CloudError, ConflictError
from orchestrator.progress import Bar
from orchestrator.workflows.results.pulled_files import LocalFile
from orchestrator.workflows.workspace import Workspace
from remote.contract import layout
from remote.contract.run_status import ResultFile
from remote.contract.store import Begun

_THREADS = 4
_CHUNK_BYTES = 1024 * 1024
_SPARE_BYTES = 64 * 1024 * 1024  # of the disk, left alone
_BESIDE = ".pull"


class Damaged(CloudError):
    """The store does not hold what the manifest says."""


def bring(workspace: Workspace, run_id: str, folder: Path, files: Sequence[LocalFile]) -> int:
    """How many of the files were not there yet; all of them are now.

    ConflictError   something else is in the way of one; it is left alone
    Damaged         the store holds something else than the manifest says
    OSError         this computer does not take them
    """
    if not _missing(folder, files):
        shutil.rmtree(folder / _BESIDE, ignore_errors=True)
        return 0
    with _alone(folder) as beside:
        missing = _missing(folder, files)
        try:
            _require_room(folder, beside, sum(file.size for file in missing))
        except OSError:
            _keep_what_came(beside)
            raise
        with (
            workspace.progress.bar("pull", sum(file.size for file in missing), "bytes") as bar,
            ThreadPoolExecutor(_THREADS) as pool,
        ):
            waiting = [pool.submit(_fetch, workspace, run_id, folder, file, beside, bar) for file in missing]
            try:
                for fetched in waiting:
                    fetched.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                _keep_what_came(beside)
                raise
        # Another, who found all files there, may be removing it too.
        shutil.rmtree(beside, ignore_errors=True)
    return len(missing)


def _missing(folder: Path, files: Sequence[LocalFile]) -> list[LocalFile]:
    return [file for file in files if not _is_there(folder, file)]


def _is_there(folder: Path, file: LocalFile) -> bool:
    """False when the place is free. ConflictError when something else has it, or the way there leads elsewhere."""
    path = folder / file.path
    for above in (folder.parent, *_between(folder, path)):
        if above.is_symlink() or (above.exists() and not above.is_dir()):
            raise _in_the_way(above)
    if not path.exists() and not path.is_symlink():
        return False
    if path.is_symlink() or not path.is_file() or not _holds(path, file.parts):
        raise _in_the_way(path)
    return True


def _between(folder: Path, path: Path) -> Iterator[Path]:
    """The folders from `folder` down to the one that holds `path`."""
    yield folder
    for part in path.parent.relative_to(folder).parts:
        folder = folder / part
        yield folder


def _in_the_way(path: Path) -> ConflictError:
    return ConflictError(
        f"{path} is not the run's, or was changed here: it is left alone",
        next="Move it away, then pull again.",
    )


@contextmanager
def _alone(folder: Path) -> Iterator[Path]:
    """The hidden folder of what is on its way, for this process alone."""
    beside = folder / _BESIDE
    while True:
        beside.mkdir(parents=True, exist_ok=True)
        try:
            held = os.open(beside, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:  # removed since it was made
            continue
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
            if _is_still(beside, held):  # else whoever had it has come to the end and removed it
                yield beside
                return
        finally:
            os.close(held)


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False


def _keep_what_came(beside: Path) -> None:
    """Bytes that the next pull need not fetch again; a folder without any is taken away."""
    for part in beside.iterdir():
        if part.stat().st_size == 0:
            part.unlink()
    for folder in (beside, beside.parent):
        with suppress(OSError):  # it holds something
            folder.rmdir()


def _require_room(folder: Path, beside: Path, wanted: int) -> None:
    begun = sum(part.stat().st_size for part in beside.iterdir())
    free = shutil.disk_usage(folder).free + begun - _SPARE_BYTES
    if wanted > free:
        raise OSError(f"It has {wanted} bytes, and {max(0, free)} are free")


def _fetch(workspace: Workspace, run_id: str, folder: Path, file: LocalFile, beside: Path, bar: Bar) -> None:
    """One file, whole and verified, or nothing of it."""
    pieces = []
    for part in file.parts:
        pieces.append(_piece(workspace, layout.run_key(run_id, part.path), part, beside))
        bar.advance(part.size)
    whole = pieces[0]
    if len(pieces) > 1:
        whole = whole.with_suffix(".whole")
        with whole.open("wb") as target:
            for piece in pieces:
                with piece.open("rb") as source:
                    shutil.copyfileobj(source, target, _CHUNK_BYTES)
    path = folder / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() or path.is_symlink():  # since it was looked at
        raise _in_the_way(path)
    whole.replace(path)
    for piece in pieces:
        piece.unlink(missing_ok=True)


def _piece(workspace: Workspace, key: str, part: ResultFile, beside: Path) -> Path:
    """One blob, verified; what an earlier pull left of it goes on."""
    name = hashlib.sha256(f"{key} {part.sha256}".encode()).hexdigest()
    piece, begun = beside / name, beside / f"{name}.part"
    if piece.is_file() and _holds(piece, [part]):
        return piece
    blob = workspace.store.get(key)
    if blob is None or blob.size != part.size:
        there = "is not in the store" if blob is None else f"has {blob.size} bytes, not {part.size}"
        raise _damaged(f"{key} {there}")
    begun.touch()
    workspace.store.download(key, piece, begun=Begun(part=begun))
    if not _holds(piece, [part]):
        piece.unlink()
        raise _damaged(f"{key} is not the file that MANIFEST.json names (sha256)")
    return piece


def _damaged(what: str) -> Damaged:
    return Damaged(what, next="The run has to be repeated: its result is damaged.")


def _holds(path: Path, parts: Sequence[ResultFile]) -> bool:
    if path.stat().st_size != sum(part.size for part in parts):
        return False
    with path.open("rb") as file:
        return all(_digest(file, part.size) == part.sha256 for part in parts)


def _digest(file: BinaryIO, size: int) -> str:
    """The sha256 of the next `size` bytes."""
    digest = hashlib.sha256()
    while size > 0 and (chunk := file.read(min(size, _CHUNK_BYTES))):
        digest.update(chunk)
        size -= len(chunk)
    return digest.hexdigest()
