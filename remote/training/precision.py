"""With how many bits a network is trained: bfloat16 where the device has instructions for it.

Without such instructions it is several times slower than float32 (8 times, measured on AVX2). Features and figures
are computed in float32 everywhere, so that they are the ones that `tlvm predict` sees on any computer.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

import torch

_CPU_INSTRUCTIONS = {"avx512_bf16", "amx_bf16"}
_AMPERE = (8, 0)  # the first of NVIDIA's GPUs that multiply bfloat16


def training_precision(device: torch.device, asked: str) -> torch.dtype:
    """asked    "fp32", "bf16", or "auto": what the device is made for"""
    if asked == "auto":
        return torch.bfloat16 if multiplies_bfloat16(device) else torch.float32
    return torch.bfloat16 if asked == "bf16" else torch.float32


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for it."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= _AMPERE
    return device.type == "cpu" and bool(_CPU_INSTRUCTIONS & _cpu_flags())


def mixed(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """A context in which convolutions and matrix products are computed with this precision, the rest as it should."""
    return torch.autocast(device.type, dtype=dtype) if dtype == torch.bfloat16 else nullcontext()


def _cpu_flags(path: Path = Path("/proc/cpuinfo")) -> set[str]:
    """Linux only; nothing elsewhere."""
    with suppress(OSError):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                return set(line.partition(":")[2].split())
    return set()
