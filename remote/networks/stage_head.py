"""A classifier on what some stages of a network see: part of the network's file, as two tensors of its own.

The network keeps all of its layers but its old head; `stages_head.weight` and `.bias` are applied to the means (and
deviations) of the stages' channels, one stage after the other, all means before all deviations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from remote.errors import CannotRun
from remote.networks import backbones, depths
from remote.networks.backbones import Network

NAME = "stages_head"


class _AllSeen(Exception):
    """Every stage has been passed, in the middle of a pass."""


def attach(network: Network, weight: Tensor, bias: Tensor) -> None:
    """Give the network, whose own head is removed, a head on its stages.

    weight  (classes, numbers of all stages)
    """
    head = nn.Linear(weight.shape[1], weight.shape[0])
    head.weight, head.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
    network.module.add_module(NAME, head)


def prepare(network: Network, tensors: Mapping[str, Tensor]) -> None:
    """Make the network ready to load these tensors, which have such a head among them. CannotRun when they do not."""
    weight, bias = tensors.get(f"{NAME}.weight"), tensors.get(f"{NAME}.bias")
    if weight is None or bias is None or weight.ndim != 2:
        raise CannotRun(
            f"Its file has no classifier on stages ({NAME}.weight, {NAME}.bias), which model.json names"
        )
    backbones.remove_head(network)
    attach(network, torch.zeros_like(weight), torch.zeros_like(bias))


def logits(network: Network, stages: Sequence[str], pooling: str, inputs: Tensor) -> Tensor:
    """(n, classes) of a batch of inputs, (n, 3, height, width). No layer behind the last of the stages is computed."""
    with depths.watched(network, stages) as blocks, _ending_with(network, stages), suppress(_AllSeen):
        network.module(inputs)
    wanted = depths.blocks_of(stages, deviations=pooling != depths.MEAN)
    head = network.module.get_submodule(NAME)
    result: Tensor = head(torch.cat([blocks[name] for name in wanted], dim=1))
    return result


@contextmanager
def _ending_with(network: Network, stages: Sequence[str]) -> Iterator[None]:
    """While it lasts, a pass ends with _AllSeen behind the last of these stages, in whatever order they come.

    Stages of the table only: a module that was named by hand may come twice in a pass, and the last time counts.
    """
    seen: set[nn.Module] = set()
    of_table = set(stages) <= set(depths.stage_ends(network))
    modules = {network.module.get_submodule(name) for name in stages} if of_table else set()

    def hook(module: nn.Module, *_: Any) -> None:
        seen.add(module)
        if seen == modules:
            seen.clear()
            raise _AllSeen

    hooks = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for one in hooks:
            one.remove()
