"""Room for packs: those that no run has used for longest go first, and none that an unfinished run may need."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from remote.contract.dataset_manifest import decode_manifest
from remote.contract.document import ContractError, decode
from remote.contract.layout import MachineHome, RunFolder
from remote.contract.run_spec import RunSpec
from remote.contract.run_status import FINAL, RunStatus
from remote.job import line

LIMIT_SHARE = 0.5  # of the disk, for packs
FREE_SHARE = 0.05  # of the disk, for everything else that a run writes
STALE_S = 24 * 3600  # a part that is older belongs to a fetch that died


def make_room(home: MachineHome, size: int, *, keep: set[str], limit_bytes: int | None = None) -> list[str]:
    """Delete packs until `size` bytes more fit; which ones, least recently used first.

    keep            packs that stay
    limit_bytes     for all packs; default: half of the disk

    Where that is not enough nothing more is deleted: the disk will say so itself.
    """
    folder = home.root / "packs"
    if not folder.is_dir():
        return []
    with packs_in_peace(home):
        _sweep(folder)
        over = _over(folder, size, limit_bytes)
        if over <= 0:
            return []
        needed = keep | _needed(home)
        evicted = []
        for _, path, length in sorted(_files(folder, "*.tar")):
            if over > 0 and path.stem not in needed:
                path.unlink(missing_ok=True)
                evicted.append(path.stem)
                over -= length
        return evicted


def has_room(home: MachineHome, size: int, *, limit_bytes: int | None = None) -> bool:
    """Whether `size` bytes of packs more fit as things are."""
    folder = home.root / "packs"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return _over(folder, size, limit_bytes) <= 0


def packs_in_peace(home: MachineHome) -> AbstractContextManager[None]:
    """Nobody makes room meanwhile: a pack that is seen here, by a run that has its manifest, stays."""
    return line.holding(home.locks / "packs")


def _over(folder: Path, size: int, limit_bytes: int | None) -> int:
    """Bytes that have to go so that `size` more fit."""
    disk = shutil.disk_usage(folder)
    limit = int(disk.total * LIMIT_SHARE) if limit_bytes is None else limit_bytes
    used = sum(length for _, _, length in _files(folder, "*.tar"))
    return max(used + size - limit, int(disk.total * FREE_SHARE) + size - disk.free if size else 0)


def _files(folder: Path, pattern: str) -> Iterator[tuple[float, Path, int]]:
    """When each was used last, where it is and its size."""
    for path in folder.glob(pattern):
        try:
            seen = path.stat()
        except FileNotFoundError:  # another process was faster
            continue
        yield seen.st_mtime, path, seen.st_size


def _needed(home: MachineHome) -> set[str]:
    """The packs of every run that is not over."""
    needed: set[str] = set()
    for place in home.runs.glob("*"):
        run = RunFolder(place)
        try:
            status = decode(RunStatus, run.status.read_bytes(), what="status")
            if status.state in FINAL:
                continue
            spec = decode(RunSpec, run.spec.read_bytes(), what="spec")
            data = run.manifest.read_bytes()
            needed |= decode_manifest(data, version=spec.dataset.version).packs()
        except (FileNotFoundError, NotADirectoryError, ContractError):
            continue  # it has not begun to fetch, or can't go on
    return needed


def _sweep(folder: Path) -> None:
    for written, part, _ in _files(folder, ".*"):
        if written < time.time() - STALE_S:
            part.unlink(missing_ok=True)
