"""The passes of a training compiled (torch.compile) where that pays, and left as they are where it fails.

Only forward and backward of training: what is measured, reported and predicted passes the network as it is.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from remote.networks import memory
from remote.training import precision

Forward = Callable[[Tensor], Tensor]

# Images of 224 px that pass in a training before compiling pays: it takes about a minute, and saves a tenth or two of
# some minutes. A rule about sizes, not about measured times, so that a run that goes on decides the same.
_PAYS_FROM = 500_000
_SIDE = 224


def wanted(asked: str, device: torch.device, *, images: int, crop: int) -> bool:
    """Whether to compile.

    asked   "on", "off", or "auto": on an NVIDIA GPU with a compiler at hand, where the run is long enough
    images  that pass at most, in all epochs together
    crop    their side, pixels
    """
    if asked != "auto":
        return asked == "on"
    long_enough = images * (crop / _SIDE) ** 2 >= _PAYS_FROM
    return device.type == "cuda" and long_enough and not lacking(device)


def lacking(device: torch.device) -> str:
    """What torch.compile would need for this device that is not here; empty: nothing."""
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            return "Triton"
        return "" if _there("CC", "cc", "gcc", "clang") else "a C compiler"
    if device.type == "cpu":
        return "" if _there("CXX", "g++", "clang++") else "a C++ compiler"
    return f"support of {device.type}"


def compiled(
    module: nn.Module, inputs: Tensor, dtype: torch.dtype, *, folder: Path, tell: Callable[[str], None]
) -> Forward:
    """The module's pass, compiled for such inputs; where that fails the module itself, and `tell` hears why.

    Tried on the inputs, forward and backward, so that what can fail fails here; the module stays as it was.
    folder      where compiled code is kept for later runs
    """
    if what := lacking(inputs.device):
        tell(f"Not compiled, going on without: this machine lacks {what}")
        return module
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))
    before = {name: tensor.detach().clone() for name, tensor in module.named_buffers()}
    forward: Forward = module
    try:
        # One piece of code for each shape: code for any shape would be used from the second shape on, so that the
        # bits of a batch would depend on the ones before it.
        forward = torch.compile(module, dynamic=False)
        with precision.mixed(inputs.device, dtype):
            logits = forward(inputs).float()
        torch.autograd.backward(logits.sum())
    except (RuntimeError, ImportError, OSError) as error:
        if not (isinstance(error, RuntimeError) and memory.ran_out(error)):  # then the loop halves the batch
            tell(f"Not compiled, going on without: {_reason(error)}")
            forward = module
    else:
        # Later shapes, such as a shorter last batch: what fails there passes as it is, and torch says so in the log.
        torch._dynamo.config.suppress_errors = True
    module.zero_grad(set_to_none=True)
    with torch.no_grad():
        for name, tensor in module.named_buffers():
            tensor.copy_(before[name])
    return forward


def _there(variable: str, *names: str) -> bool:
    """Whether one of these programs can be run, or the one that the variable names instead of them."""
    return any(shutil.which(name) for name in ([os.environ[variable]] if variable in os.environ else names))


def _reason(error: Exception) -> str:
    """The first line that says something, of an error that can fill screens."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
