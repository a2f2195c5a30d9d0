"""Decoded images, kept so that each is decoded once in a run: in memory up to a limit, beyond it on disk.

The file on disk has no name: whatever ends the process, nothing is left of it. It is read with system calls, not
mapped, so that its pages are never counted as memory of this process.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from remote.images.preprocessing import Pixels

_DISK_RESERVE_BYTES = 2 * 1024**3  # stays free for checkpoints and results
_BLOCK_BYTES = 16 * 1024**2
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class _Spilled:
    offset: int
    shape: tuple[int, ...]


class ImageCache:
    """Pixels by key. Safe to use from threads.

    memory_bytes_max    of pixels in memory; 0: all of them go to disk
    folder              where the file on disk is made; None: nothing goes to disk
    What fits nowhere is made anew each time; `trouble` says why the disk takes no more.
    """

    def __init__(self, memory_bytes_max: int, folder: Path | None) -> None:
        self._memory_bytes_max = memory_bytes_max
        self._folder = folder
        self._kept: dict[Hashable, Pixels | _Spilled] = {}
        self._lock = threading.Lock()
        self._file: int | None = None  # its descriptor
        # Large blocks are filled with many images: arrays of their own would lie between those that decoding makes
        # and drops, and memory grew by 65 MB for 50 MB that were kept; now by 49.
        self._block: Pixels = np.empty(0, np.uint8)  # the rest of the last one
        self._reserved_bytes = 0  # of all of them
        self.memory_bytes = 0
        self.disk_bytes = 0
        self.trouble = ""

    def get(self, key: Hashable, make: Callable[[], Pixels]) -> Pixels:
        """What is kept under this key, or else what `make` makes, which is kept from now on. Not to be written to."""
        kept = self._kept.get(key)
        if kept is None:
            made = np.ascontiguousarray(make())
            self._keep(key, made)
            return made
        return self._read(kept) if isinstance(kept, _Spilled) else kept

    def close(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self._block, self._reserved_bytes = np.empty(0, np.uint8), 0
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _keep(self, key: Hashable, made: Pixels) -> None:
        with self._lock:
            if key in self._kept:
                return  # the same image, made by another thread meanwhile
            if self._has_room(made.nbytes):
                place, self._block = np.split(self._block, [made.nbytes])
                place[:] = made.reshape(-1)
                self._kept[key] = place.reshape(made.shape)
                self.memory_bytes += made.nbytes
            elif self._folder and not self.trouble:
                try:
                    self._kept[key] = self._spill(self._folder, made)
                except OSError as error:
                    self.trouble = str(error)

    def _has_room(self, size: int) -> bool:
        """Whether so many bytes fit into the last block, or else into a new one that may still be made."""
        left = self._memory_bytes_max - self._reserved_bytes
        if size > len(self._block) and size <= left:
            self._block = np.empty(min(left, max(size, _BLOCK_BYTES)), np.uint8)
            self._reserved_bytes += len(self._block)
        return size <= len(self._block)

    def _spill(self, folder: Path, made: Pixels) -> _Spilled:
        """OSError when the disk takes no more."""
        if self._file is None:
            folder.mkdir(parents=True, exist_ok=True)
            self._file, name = tempfile.mkstemp(prefix=".images-", dir=folder)
            Path(name).unlink()
        if shutil.disk_usage(folder).free - made.nbytes < _DISK_RESERVE_BYTES:
            raise OSError(f"less than {_DISK_RESERVE_BYTES >> 30} GiB of disk are free")
        spilled = _Spilled(self.disk_bytes, made.shape)
        data = made.tobytes()
        while data:
            written = os.pwrite(self._file, data, spilled.offset + made.nbytes - len(data))
            data = data[written:]
        self.disk_bytes += made.nbytes
        return spilled

    def _read(self, spilled: _Spilled) -> Pixels:
        if self._file is None:
            raise AssertionError("something was spilled into no file")
        size, parts = math.prod(spilled.shape), []
        while size:
            parts.append(os.pread(self._file, size, spilled.offset + math.prod(spilled.shape) - size))
            size -= len(parts[-1])
            if not parts[-1]:
                raise AssertionError("the file of decoded images is shorter than what was written to it")
        return np.frombuffer(b"".join(parts), dtype=np.uint8).reshape(spilled.shape)


def free_memory_bytes() -> int:
    """What this process may still take: of the computer, or of the container where that is less."""
    free = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]))
    with suppress(OSError, ValueError):  # "max" where there is no limit
        limit = int((_CGROUP / "memory.max").read_text(encoding="ascii"))
        free.append(max(0, limit - int((_CGROUP / "memory.current").read_text(encoding="ascii"))))
    if not free:  # macOS
        free.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    return min(free)
