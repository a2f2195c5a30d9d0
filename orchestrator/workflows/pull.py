"""`tlvm pull RUN`: the result of a run, verified, in a folder of its own; again costs nothing, partial is resumed.

Everything that MANIFEST.json says is somebody else's word: no path leaves the folder, no size is believed, and no file
that was not pulled from here is ever replaced.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from orchestrator.errors import CloudError, ConflictError, NotFoundError, TlvmError
from orchestrator.progress import Bar
from orchestrator.workflows.looks import keep_looks
from orchestrator.workflows.run_documents import result_manifest
from orchestrator.workflows.runs import called, find
from orchestrator.workflows.workspace import Workspace
from remote.contract import layout
from remote.contract.document import ContractError
from remote.contract.run_status import ResultFile, ResultManifest

FILES_MAX = 10_000
STREAMS = {"log": "log.txt", "events": "events.jsonl"}  # segments in the store, one file here
_SEGMENT = re.compile(r"(log|events)/([0-9]{16})")
_THREADS = 4
_CHUNK_BYTES = 1024 * 1024
_SPARE_BYTES = 64 * 1024 * 1024  # of the disk, left alone


@dataclass(frozen=True)
class PullResult:
    run_id: str
    folder: Path
    state: str  # of the run, when its manifest was written
    files: int
    bytes: int
    fetched: int  # files that were not there yet


@dataclass(frozen=True)
class LocalFile:
    """One file of the result here, made of one blob, or of the segments of a stream in order."""

    path: str  # below the folder
    parts: list[ResultFile]

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)


def pull(workspace: Workspace, run: str) -> PullResult:
    """Copy what MANIFEST.json names into <project folder>/runs/<run id>/, every file verified by size and sha256.

    Then the run counts in the ledger of looks; a store that refuses that is a warning.

    run             an id, or the end of one
    NotFoundError   no such run, or it has no result yet
    ConflictError   a file is in the way that is not the result's
    CloudError      the manifest or a file is not what it should be, or the disk is full
    """
    run_id = find(workspace, run)
    try:
        manifest = result_manifest(workspace.store, run_id)
        files = local_files(manifest, run_id) if manifest else []
    except ContractError as error:
        raise CloudError(f"The result of {run_id} can't be trusted", detail=str(error)) from None
    if manifest is None:
        raise NotFoundError(
            f"The run {run_id} has no result in the store yet",
            next=f"tlvm logs -f {called(workspace, run_id)} follows it; tlvm status shows its state.",
        )
    folder = workspace.project_folder / "runs" / run_id
    try:
        fetched = _bring(workspace, run_id, folder, files)
    except OSError as error:
        raise CloudError(
            f"The result of {run_id} can't be written to {folder}",
            detail=str(error),
            next=f"Make room there, then tlvm pull {called(workspace, run_id)} goes on.",
        ) from None
    _count_looks(workspace, run_id, folder)
    workspace.records.pulled(run_id, folder)
    return PullResult(run_id, folder, manifest.state, len(files), sum(file.size for file in files), fetched)


def local_files(manifest: ResultManifest, run_id: str) -> list[LocalFile]:
    """What the manifest becomes here. ContractError when it asks for anything that a result never is."""
    if manifest.run_id != run_id:
        raise ContractError(f"MANIFEST.json is of the run {manifest.run_id[:80]!r}")
    if len(manifest.files) > FILES_MAX:
        raise ContractError(f"MANIFEST.json names {len(manifest.files)} files, more than {FILES_MAX}")
    parts: dict[str, list[ResultFile]] = {}
    for file in manifest.files:
        layout.inside(file.path)
        layout.sha256(file.sha256)
        if file.size < 0 or any(part.startswith(".") for part in file.path.split("/")):
            raise ContractError(f"MANIFEST.json: {file.path[:80]!r} is no file of a result")
        parts.setdefault(_local_path(file.path), []).append(file)
    files = [LocalFile(path, _in_order(path, segments)) for path, segments in sorted(parts.items())]
    _refuse_collisions([file.path for file in files])
    return files


def _local_path(path: str) -> str:
    segment = _SEGMENT.fullmatch(path)
    return STREAMS[segment[1]] if segment else path


def _in_order(path: str, parts: list[ResultFile]) -> list[ResultFile]:
    ordered = sorted(parts, key=lambda part: part.path)
    if path not in STREAMS.values():
        if len(parts) > 1:
            raise ContractError(f"MANIFEST.json names {path[:80]!r} twice")
        return ordered
    position = 0
    for part in ordered:
        segment = _SEGMENT.fullmatch(part.path)
        if segment is None or int(segment[2]) != position:
            raise ContractError(f"MANIFEST.json: {part.path[:80]!r} does not begin where the one before ends")
        position += part.size
    return ordered


def _refuse_collisions(paths: list[str]) -> None:
    """Two names that a file system may take for one, or a file where another needs a folder."""
    names = {path.casefold() for path in paths}
    if len(names) < len(paths):
        raise ContractError("MANIFEST.json names two files that differ only by case")
    for name in names:
        above = name.split("/")[:-1]
        if any("/".join(above[:depth]) in names for depth in range(1, len(above) + 1)):
            raise ContractError(f"MANIFEST.json: {name[:80]!r} lies below a file")


def _count_looks(workspace: Workspace, run_id: str, folder: Path) -> None:
    try:
        keep_looks(workspace.store, run_id, folder / "metrics.json")
    except TlvmError as error:
        workspace.progress.warn(f"That {run_id} looked at these images could not be counted: {error.what}")


def _bring(workspace: Workspace, run_id: str, folder: Path, files: list[LocalFile]) -> int:
    missing = [file for file in files if not _is_there(folder, file)]
    if not missing:
        return 0
    wanted = sum(file.size for file in missing)
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free - _SPARE_BYTES
    if wanted > free:
        raise OSError(f"It has {wanted} bytes, and {max(0, free)} are free")
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix=".pull-") as beside,
        workspace.progress.bar("pull", wanted, "bytes") as bar,
        ThreadPoolExecutor(_THREADS) as pool,
    ):
        waiting = [
            pool.submit(_fetch, workspace, run_id, folder, file, Path(beside) / str(number), bar)
            for number, file in enumerate(missing)
        ]
        try:
            for fetched in waiting:
                fetched.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return len(missing)


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


def _holds(path: Path, parts: list[ResultFile]) -> bool:
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


def _fetch(workspace: Workspace, run_id: str, folder: Path, file: LocalFile, beside: Path, bar: Bar) -> None:
    """One file, whole and verified, or nothing of it."""
    for number, part in enumerate(file.parts):
        piece = beside.with_name(f"{beside.name}-{number}")
        key = layout.run_key(run_id, part.path)
        blob = workspace.store.get(key)
        if blob is None or blob.size != part.size:
            there = "is not in the store" if blob is None else f"has {blob.size} bytes, not {part.size}"
            raise CloudError(f"{key} {there}", next="The run has to be repeated: its result is damaged.")
        workspace.store.download(key, piece)
        if not _holds(piece, [part]):
            raise CloudError(
                f"{key} is not the file that MANIFEST.json names (sha256)",
                next="The run has to be repeated: its result is damaged.",
            )
        if len(file.parts) == 1:
            piece.replace(beside)
        else:
            with piece.open("rb") as source, beside.open("ab") as target:
                shutil.copyfileobj(source, target, _CHUNK_BYTES)
            piece.unlink()
        bar.advance(part.size)
    path = folder / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() or path.is_symlink():  # since it was looked at
        raise _in_the_way(path)
    beside.replace(path)
