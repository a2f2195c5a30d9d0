"""The scenarios and their parameters: names, defaults, ranges, and what each is for. One table for both halves.

The laptop resolves a scenario's parameters from it, so that a run spec leaves nothing to a default; the machine
checks them again. `configs/scenarios/<name>.toml` say the same for people; a test holds both together.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from . import shared_parameters as shared
from .document import ContractError
from .parameters import Parameter, Value

__all__ = ["SCENARIOS", "Parameter", "Scenario", "Value", "resolve", "scenario"]


@dataclass(frozen=True)
class Scenario:
    name: str
    cell: str  # of the two-by-two table: how much new data, how similar
    help: str
    parameters: tuple[Parameter, ...]

    def parameter(self, name: str) -> Parameter:
        """By name; ContractError with the nearest name otherwise."""
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        raise ContractError(
            f"{self.name} has no parameter {name[:80]!r}. {_nearest(name, (p.name for p in self.parameters))}"
        )


def scenario(name: str) -> Scenario:
    """By name; ContractError with the nearest name otherwise."""
    if name not in SCENARIOS:
        raise ContractError(f"There is no scenario {name[:80]!r}. {_nearest(name, SCENARIOS)}")
    return SCENARIOS[name]


def resolve(name: str, overrides: Mapping[str, Any]) -> dict[str, Value]:
    """Every parameter of a scenario: the override where there is one, else the default.

    Text is read as the parameter's type, so that flags and files may both be given here.
    ContractError   an unknown scenario or parameter (with the nearest name), a wrong type, a value out of range
    """
    found = scenario(name)
    values = {parameter.name: parameter.default for parameter in found.parameters}
    for key, value in overrides.items():
        values[key] = found.parameter(key).checked(value, of=name)
    return values


def _nearest(name: str, valid: Iterable[str]) -> str:
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else "There are: " + ", ".join(names)


SCENARIOS: Mapping[str, Scenario] = MappingProxyType(
    {
        "fixed-extractor": Scenario(
            "fixed-extractor",
            "little new data, similar to the old",
            "Train only a new classifier, on features of the frozen network.",
            shared.FROZEN,
        ),
        "initial-layers": Scenario(
            "initial-layers",
            "little new data, different from the old",
            "Train a classifier on features of the network's earlier layers; data choose which.",
            (
                *shared.FROZEN,
                Parameter(
                    "pooling",
                    "mean and deviation",
                    "what a channel says of an image: its mean over all positions, or also how much it varies",
                    choices=("mean", "mean and deviation"),
                ),
            ),
        ),
        "fine-tune-top": Scenario(
            "fine-tune-top",
            "little new data, similar to the old; a demonstration",
            "Fit a new classifier, then tune the last layers with it; the others stay as they are.",
            (
                Parameter(
                    "unfreeze_from",
                    "",
                    "the first module that is trained, such as layer4; empty: the last stage's first",
                ),
                replace(shared.EPOCHS, default=15),
                replace(shared.TRAIN_BATCH_SIZE, default=32),
                shared.DECODE_WORKERS,
                shared.IMAGE_MEMORY_MB,
                shared.PRECISION,
                shared.COMPILE,
                shared.IMAGE_SIZE,
                shared.FRAMING,
                shared.LEARNING_RATE,
                shared.WEIGHT_DECAY,
                shared.WARMUP_EPOCHS,
                shared.LABEL_SMOOTHING,
                shared.MIXUP,
                shared.EMA_EPOCHS,
                shared.BALANCE,
                replace(shared.AUGMENTATION, default="none"),
                Parameter(
                    "activations_gb",
                    4.0,
                    "memory for what the frozen part gives, computed once where augmentation is none; 0: none",
                    low=0.0,
                    high=100_000.0,
                ),
                *(parameter for parameter in shared.FROZEN if parameter.name in shared.CLASSIFIER),
                shared.STEERING_SHARE,
                shared.PATIENCE,
            ),
        ),
        "fine-tune-all": Scenario(
            "fine-tune-all",
            "lots of new data, similar to the old",
            "Fit a new classifier, then tune every layer, the first ones least.",
            (
                shared.EPOCHS,
                replace(shared.TRAIN_BATCH_SIZE, default=32),
                shared.DECODE_WORKERS,
                shared.IMAGE_SIZE,
                shared.CACHE_GB,
                shared.FRAMING,
                shared.IMAGE_MEMORY_MB,
                shared.PRECISION,
                shared.COMPILE,
                shared.LEARNING_RATE,
                Parameter(
                    "first_layers_rate",
                    0.1,
                    "rate of the first layers, as a share of the last ones'; in between it rises in even steps",
                    low=0.0,
                    high=1.0,
                ),
                shared.WEIGHT_DECAY,
                shared.WARMUP_EPOCHS,
                shared.LABEL_SMOOTHING,
                shared.MIXUP,
                shared.EMA_EPOCHS,
                shared.BALANCE,
                shared.AUGMENTATION,
                shared.STEERING_SHARE,
                shared.PATIENCE,
            ),
        ),
        "from-scratch": Scenario(
            "from-scratch",
            "lots of new data, different from the old",
            "Reuse the architecture, compute all weights anew.",
            (
                replace(shared.EPOCHS, default=90),
                shared.TRAIN_BATCH_SIZE,
                shared.DECODE_WORKERS,
                shared.IMAGE_SIZE,
                shared.FRAMING,
                shared.IMAGE_MEMORY_MB,
                shared.PRECISION,
                shared.COMPILE,
                shared.LEARNING_RATE,
                shared.WEIGHT_DECAY,
                shared.WARMUP_EPOCHS,
                replace(shared.LABEL_SMOOTHING, default=0.1),
                shared.MIXUP,
                shared.EMA_EPOCHS,
                shared.BALANCE,
                replace(shared.AUGMENTATION, default="strong"),
                shared.STEERING_SHARE,
                replace(shared.PATIENCE, default=15),
            ),
        ),
    }
)
