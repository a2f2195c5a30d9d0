"""A source of models with one architecture, as another library would be added: one file. Satisfies `remote.sources.Source`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


def build(model: str, classes: int) -> nn.Module:
    def stage(given: int, gives: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(given, gives, 3, stride=2, padding=1), nn.BatchNorm2d(gives), nn.ReLU(inplace=True)
        )

    layers = [
        ("early", stage(3, 8)),
        ("late", stage(8, 16)),
        ("pool", nn.AdaptiveAvgPool2d(1)),
        ("flat", nn.Flatten()),
        ("classes", nn.Linear(16, classes)),
    ]
    return nn.Sequential(OrderedDict(layers))


def arguments(model: str) -> dict[str, Any]:
    return {}


def head_path(model: str) -> str:
    return "classes"


def stage_ends(model: str) -> tuple[str, ...]:
    return "early", "late"


def preprocessing(model: str) -> dict[str, Any]:
    return {
        "resize": 32,
        "crop": 32,
        "interpolation": "bilinear",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
    }


def todays_names(model: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.replace("last.", "classes."): tensor for name, tensor in tensors.items()}


def loading(model: str) -> tuple[str, str]:
    return "import toys", 'toys.create(card["model"], len(card["classes"]))'
