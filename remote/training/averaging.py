"""A running average of the weights, which often serves better than the weights of the last step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class Average:
    """An exponential moving average of a module's parameters and buffers."""

    def __init__(self, module: nn.Module, *, steps: float) -> None:
        """steps    over about how many steps it is taken"""
        self._decay = math.exp(-1 / max(steps, 1e-9))
        self.tensors = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}

    def update(self, module: nn.Module, step: int) -> None:
        """After step number `step`. The first ones count more, so that the beginning is soon forgotten."""
        decay = min(self._decay, (1 + step) / (10 + step))
        ours, theirs = [], []
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                ours.append(self.tensors[name])
                theirs.append(tensor.detach())
            else:
                self.tensors[name].copy_(tensor)
        torch._foreach_lerp_(ours, theirs, 1 - decay)

    @contextmanager
    def in_place_of(self, module: nn.Module) -> Iterator[None]:
        """Inside, the module has the averaged weights."""
        own = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
        module.load_state_dict(self.tensors)
        try:
            yield
        finally:
            module.load_state_dict(own)
