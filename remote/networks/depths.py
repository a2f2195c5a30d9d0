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

LAST = "features"  # the block that the head is given
MEAN = "mean"  # the pooling without deviations
_RESNET = ("maxpool", "layer1", "layer2", "layer3", "layer4")
_SIDE = 28  # of the grid of positions, about, from which a standard deviation is computed: more say no more


def _within(container: str, *indices: int) -> tuple[str, ...]:
    return tuple(f"{container}.{index}" for index in indices)


# Where each stage ends: the module whose output is the stage's, by the start of the model's name; the longest that
# fits counts. A new family is one line here.
ENDS: dict[str, tuple[str, ...]] = {
    "alexnet": _within("features", 2, 5, 12),
    "convnext": _within("features", 1, 3, 5, 7),
    "densenet": (
        "features.pool0",
        *(f"features.denseblock{number}" for number in (1, 2, 3)),
        "features.norm5",
    ),
    "efficientnet": _within("features", 1, 2, 3, 5, 8),
    "efficientnet_v2_s": _within("features", 1, 2, 3, 5, 7),
    "mnasnet": _within("layers", 7, 8, 9, 11, 16),
    "mobilenet_v2": _within("features", 1, 3, 6, 13, 18),
    "mobilenet_v3_large": _within("features", 1, 3, 6, 12, 16),
    "mobilenet_v3_small": _within("features", 0, 1, 3, 8, 12),
    "regnet": ("stem", *(f"trunk_output.block{number}" for number in range(1, 5))),
    "resnet": _RESNET,
    "resnext": _RESNET,
    "shufflenet": ("maxpool", "stage2", "stage3", "conv5"),
    "squeezenet1_0": _within("features", 2, 6, 11, 12),
    "squeezenet1_1": _within("features", 2, 5, 8, 12),
    "vgg11": _within("features", 2, 5, 10, 15, 20),
    "vgg11_bn": _within("features", 3, 7, 14, 21, 28),
    "vgg13": _within("features", 4, 9, 14, 19, 24),
    "vgg13_bn": _within("features", 6, 13, 20, 27, 34),
    "vgg16": _within("features", 4, 9, 16, 23, 30),
    "vgg16_bn": _within("features", 6, 13, 23, 33, 43),
    "vgg19": _within("features", 4, 9, 18, 27, 36),
    "vgg19_bn": _within("features", 6, 13, 26, 39, 52),
    "wide_resnet": _RESNET,
}


def stage_ends(network: Network, named: str = "") -> list[str]:
    """The modules whose outputs are looked at, from the input on; empty for a family that the table lacks.

    named       paths of modules with commas between them, instead of the table
    CannotRun   a path that the network does not have
    """
    family = max((name for name in ENDS if network.model.startswith(name)), key=len, default="")
    ends = [name.strip() for name in named.split(",")] if named else list(ENDS.get(family, ()))
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
