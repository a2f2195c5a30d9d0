"""When memory runs out in the middle of a step: how that is recognised, and how to go on with fewer images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from remote.errors import CannotRun

_LEAST = 2  # images: normalisation has nothing to go by with one
# What allocators say that raise a plain RuntimeError: of the processor, of Apple's GPUs, of the libraries on CUDA.
_SAID = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "could not create a memory",
)


def ran_out(error: RuntimeError) -> bool:
    """Whether this error of torch is about memory."""
    return isinstance(error, torch.OutOfMemoryError) or any(said in str(error) for said in _SAID)


def halved(images: int, device: torch.device) -> int:
    """How many images to try after so many did not fit. CannotRun when nothing is left to halve."""
    if images <= _LEAST:
        raise CannotRun(
            f"{images} images of this size do not fit into memory. Choose a smaller image_size or network, or a "
            "machine with more memory."
        )
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return max(_LEAST, images // 2)


def parts(batch: Tensor, at_most: int) -> Sequence[Tensor]:
    """The batch in even parts of at most so many images; never one alone, for the sake of normalisation."""
    count = -(-len(batch) // at_most)
    if count > 1 and len(batch) // count < _LEAST:
        count = max(1, len(batch) // _LEAST)
    return [batch] if count == 1 else torch.tensor_split(batch, count)
