"""How a network is trained: the settings, resolved; the rate of each layer at each step; the optimiser."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from remote import devices
from remote.contract.dataset_manifest import Flips

# The highest rate of AdamW for layers that come with pre-trained weights, by the start of the model's name; the
# longest that fits counts. Networks without normalisation fall apart at rates that suit the others: VGG16 ended 5 to
# 50 points below its frozen self under one rate for all (google-research/stable_transfer, a table of 19 networks).
_RATES = {
    "": 2e-4,
    "alexnet": 3e-5,
    "convnext": 5e-5,
    "maxvit": 5e-5,
    "squeezenet": 5e-5,
    "swin": 3e-5,
    "vgg": 1e-5,
    "vit": 3e-5,
}
_DEPTHS = 6  # so many different rates, at most
_WITH_NORMALISATION = ("vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn")


@dataclass(frozen=True)
class Recipe:
    """How to train. Nothing is left to a default."""

    epochs: int
    batch_size: int
    learning_rate: float  # the highest, of the last layers
    first_layers_rate: float  # the rate of the first layers as a share of that; in between, in even steps
    weight_decay: float
    warmup_epochs: float
    label_smoothing: float
    mixup: float  # how much two images are mixed; 0: not at all
    ema_epochs: float  # over about how many epochs the weights are averaged; 0: not at all
    balanced: bool  # rare classes count as much as frequent ones
    augmentation: str  # none, light, strong
    flips: Flips
    patience: int
    seed: int


def fine_tuning_rate(model: str) -> float:
    """The highest rate that suits a pre-trained network of this architecture."""
    if model in _WITH_NORMALISATION:
        return _RATES[""]
    return _RATES[max((name for name in _RATES if model.startswith(name)), key=len)]


def optimiser(module: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW of the parameters that have a gradient. Norms and biases do not decay.

    Each group has a `share`: its rate is the share times `learning_rate(...)`.
    """
    depth_of = depths(module)
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((depth_of[name], parameter.ndim > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": groups[depth, decays],
                "share": recipe.first_layers_rate ** (1 - depth / (_DEPTHS - 1)),
                "weight_decay": recipe.weight_decay if decays else 0.0,
            }
            for depth, decays in sorted(groups)
        ],
        lr=recipe.learning_rate,
        fused=all(devices.fuses(parameter.device) for parameter in module.parameters()),
    )


def depths(module: nn.Module) -> dict[str, int]:
    """How deep each parameter lies: 0 near the input, 5 near the output, an equal number of layers in each.

    torchvision's networks name their layers in the order in which they are passed.
    """
    names = [name for name, _ in module.named_parameters()]
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
    of_layer = {layer: number * _DEPTHS // len(layers) for number, layer in enumerate(layers)}
    return {name: of_layer[name.rpartition(".")[0]] for name in names}


def set_rate(trained: torch.optim.Optimizer, rate: float) -> None:
    for group in trained.param_groups:
        group["lr"] = rate * group["share"]


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Rises in a line over the warm-up, then falls along a cosine to nothing at the end of the last epoch.

    step    from the beginning of the training; there are `steps` in each epoch
    """
    warmup = min(recipe.warmup_epochs, recipe.epochs / 2) * steps
    if step < warmup:
        return recipe.learning_rate * (step + 1) / (warmup + 1)
    share = (step - warmup) / max(1.0, recipe.epochs * steps - warmup)
    return recipe.learning_rate * (1 + math.cos(math.pi * min(1.0, share))) / 2


def shares(counts: Sequence[int], device: torch.device) -> torch.Tensor:
    """The logarithm of each class's share of the images; of none, as if there were one."""
    numbers = torch.tensor([max(1, count) for count in counts], dtype=torch.float32, device=device)
    return (numbers / numbers.sum()).log()
