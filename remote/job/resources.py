"""What a run uses of its machine: memory, processor, GPU memory, and what it leaves of the disk."""

from __future__ import annotations

import ctypes
import resource
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from ctypes import byref, c_int, c_ulonglong, c_void_p
from pathlib import Path

from remote.contract.run_status import Resources

LOOK_S = 5.0  # between two looks at the GPU
_LIBRARY = "libnvidia-ml.so.1"  # comes with the driver; nvidia-smi asks it, too


class Gauge:
    """Looks now and then while a training runs. Memory of the GPU is the most that was seen in use, by whomever."""

    def __init__(
        self, folder: Path, accelerators: Sequence[int], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder = folder
        self._accelerators = accelerators
        self._clock = clock
        self._looked_at: float | None = None
        self._gpu_bytes = 0

    def look(self) -> None:
        now = self._clock()
        if self._accelerators and (self._looked_at is None or now - self._looked_at >= LOOK_S):
            self._looked_at = now
            self._gpu_bytes = max(self._gpu_bytes, gpu_bytes_used(self._accelerators))

    def read(self) -> Resources:
        """Processes that have ended count: the training, and what it started and waited for."""
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return Resources(
            peak_memory_mb=round(peak_memory_mb(), 1),
            processor_s=round(ended.ru_utime + ended.ru_stime, 2),
            gpu_memory_mb=round(self._gpu_bytes / 1e6, 1) if self._accelerators else None,
            disk_free_mb=round(shutil.disk_usage(self._folder).free / 1e6, 1),
        )


def peak_memory_mb() -> float:
    """Of the largest process that this one started and that has ended."""
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


def gpu_bytes_used(numbers: Sequence[int]) -> int:
    """In use on these GPUs together; 0 where the driver does not say."""
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        return 0
    if library.nvmlInit_v2() != 0:
        return 0
    try:
        return sum(_used(library, number) for number in numbers)
    finally:
        library.nvmlShutdown()


class _Memory(ctypes.Structure):
    _fields_ = (("total", c_ulonglong), ("free", c_ulonglong), ("used", c_ulonglong))


def _used(library: ctypes.CDLL, number: int) -> int:
    device, memory = c_void_p(), _Memory()
    if library.nvmlDeviceGetHandleByIndex_v2(c_int(number), byref(device)) != 0:
        return 0
    if library.nvmlDeviceGetMemoryInfo(device, byref(memory)) != 0:
        return 0
    return int(memory.used)
