"""Features at every depth of a network, out of one pass: what its stages see, pooled over the positions of the image.

A stage gives two blocks of numbers for each image: the mean of every channel, and its standard deviation, which tells
textures apart that have the same mean. The head's input is a block of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from remote.errors import CannotRun
from remote.networks.backbones import Network
from remote.sources import source_of

LAST = "features"  # the block that the head is given
MEAN = "mean"  # the pooling without deviations
_SIDE = 28  # of the grid of positions, about, from which a standard deviation is computed: more say no more


def stage_ends(network: Network, named: str = "") -> list[str]:
    """The modules whose outputs are looked at, from the input on; empty for a family whose source does not know them.

    named       paths of modules with commas between them, instead of the table
    CannotRun   a path that the network does not have
    """
    known = source_of(network.model).stage_ends(network.model)
    ends = [name.strip() for name in named.split(",")] if named else list(known)
    there = dict(network.module.named_modules())
    for name in ends:
        if name not in there or not name:
            raise CannotRun(
                f"{network.model} has no module {name!r}, which `stages` names. At its top there are: "
                + ", ".join(child for child, _ in network.module.named_children())
            )
    return list(dict.fromkeys(ends))


def mean_of(stage: str) -> str:
    """The block of a stage's means."""
    return f"{stage} mean"


def deviation_of(stage: str) -> str:
    """The block of a stage's standard deviations."""
    return f"{stage} deviation"


def blocks_of(stages: Sequence[str], *, deviations: bool) -> tuple[str, ...]:
    """The blocks of several stages, in the order in which a classifier is given them."""
    return (*map(mean_of, stages), *(deviation_of(stage) for stage in stages if deviations))


@contextmanager
def watched(network: Network, ends: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """While it lasts, every pass of the network leaves the blocks of its stages here, each (n, channels)."""
    blocks: dict[str, Tensor] = {}

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if not isinstance(output, Tensor):
                raise CannotRun(
                    f"The module {name!r} gives {type(output).__name__}, not numbers: name another."
                )
            mean, deviation = pooled(output)
            blocks[mean_of(name)], blocks[deviation_of(name)] = mean, deviation

        return hook

    hooks = [network.module.get_submodule(name).register_forward_hook(note(name)) for name in ends]
    try:
        yield blocks
    finally:
        for hook in hooks:
            hook.remove()


def pooled(output: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over positions.

    output      (n, channels, height, width); of transformers (n, tokens, channels); or (n, features): no positions
    """
    if output.ndim == 2:
        return output, torch.zeros_like(output)
    over = (2, 3) if output.ndim == 4 else (1,)
    mean = output.mean(over)
    some = output[:, :, :: _step(output.shape[2]), :: _step(output.shape[3])] if output.ndim == 4 else output
    spread = (some - some.mean(over, keepdim=True)).square().mean(over).sqrt()
    return mean, spread


def _step(side: int) -> int:
    return max(1, side // _SIDE)
