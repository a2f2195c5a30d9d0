"""What is done differently from one kind of device to the next: processors, NVIDIA's GPUs, Apple's.

What is quick is named for each kind it is known to be right on; any other gets what is right everywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor


def choose(*, cuda: bool, mps: bool) -> torch.device:
    """A GPU where torch has one, NVIDIA's first, else the processor."""
    if cuda:
        return torch.device("cuda")
    return torch.device("mps" if mps else "cpu")


def layout(device: torch.device) -> torch.memory_format:
    """How images and convolutions lie in memory: channels last is a quarter to two fifths faster on processors.

    On Apple's GPUs torch computes wrong gradients of normalisation from that, or none (pytorch/pytorch#175189).
    """
    return torch.channels_last if device.type in ("cpu", "cuda") else torch.contiguous_format


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """On the device. NVIDIA's GPUs fetch it while the processor goes on.

    Apple's would do so too, and may find other numbers where these have been (pytorch/pytorch#189690).
    """
    return tensor.to(device, non_blocking=device.type == "cuda")


def pins(device: torch.device) -> bool:
    """Whether batches lie in memory from which the device can fetch while the processor goes on."""
    return device.type == "cuda"


def fuses(device: torch.device) -> bool:
    """Whether an optimiser takes one pass over the weights: half the time on a processor."""
    return device.type in ("cpu", "cuda")


def of_sums(device: torch.device) -> torch.dtype:
    """The numbers for long sums: an Apple GPU has no float64."""
    return torch.float64 if device.type in ("cpu", "cuda") else torch.float32
