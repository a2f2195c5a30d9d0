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


_IMAGE_SIZE = Parameter(
    "image_size",
    0,
    "side in pixels of what the network sees; 0: what its weights were made for (a multiple of 32 suits most)",
    low=0,
    least=16,
    high=1024,
)
_FRAMING = Parameter(
    "framing",
    "crop",
    "what the network sees of an image: crop is the middle square, whole is all of it, squeezed into a square",
    choices=("crop", "whole"),
)
_BATCH_SIZE = Parameter("batch_size", 32, "images that pass through the network together", low=1, high=4096)
_DECODE_WORKERS = Parameter(
    "decode_workers",
    0,
    "threads that decode images; 0: as many as there are cores, at most 16",
    low=0,
    high=128,
)
_IMAGE_MEMORY_MB = Parameter(
    "image_memory_mb",
    0,
    "memory for decoded images, MB; what is more goes to a file. 0: half of what is free",
    low=0,
    high=10_000_000,
)
_PRECISION = Parameter(
    "precision",
    "auto",
    "of the numbers in training: bf16 halves them; auto: bf16 where the device has instructions for it",
    choices=("auto", "fp32", "bf16"),
)
_COMPILE = Parameter(
    "compile",
    "auto",
    "the passes of training compiled by torch; auto: on an NVIDIA GPU with a compiler, in a long run",
    choices=("auto", "on", "off"),
)

_CACHE_GB = Parameter(
    "cache_gb",
    10.0,
    "features that the machine keeps for later runs, of all datasets together; 0: none",
    low=0.0,
    high=100_000.0,
)

# Of the scenarios that train layers step by step.
_EPOCHS = Parameter(
    "epochs", 15, "passes over train, at most; early stopping may end it sooner", low=1, high=10_000
)
_TRAIN_BATCH_SIZE = Parameter("batch_size", 64, "images per step", low=2, high=4096)
_LEARNING_RATE = Parameter(
    "learning_rate",
    0.0,
    "of AdamW, at its highest: after the warm-up, before the cosine takes it down; 0: what suits the network",
    low=0.0,
    high=10.0,
)
_WEIGHT_DECAY = Parameter(
    "weight_decay", 0.05, "of the weights; norms and biases have none", low=0.0, high=10.0
)
_WARMUP_EPOCHS = Parameter(
    "warmup_epochs",
    1.0,
    "epochs (or parts of one) over which the rate rises; at most half of all",
    low=0.0,
    high=1000.0,
)
_LABEL_SMOOTHING = Parameter(
    "label_smoothing", 0.0, "share of each label that is spread over all classes", low=0.0, high=0.9
)
_MIXUP = Parameter(
    "mixup", 0.0, "how much images are blended in pairs, 0.2 is usual; 0: not at all", low=0.0, high=10.0
)
_EMA_EPOCHS = Parameter(
    "ema_epochs",
    0.0,
    "epochs (or parts of one) over which the weights that are kept are averaged; 0: not at all",
    low=0.0,
    high=1000.0,
)
_BALANCE = Parameter(
    "balance",
    "auto",
    "on: rare classes count as much as frequent ones; auto: where the largest has over 3 times the smallest",
    choices=("auto", "on", "off"),
)
_AUGMENTATION = Parameter(
    "augmentation",
    "light",
    "what is done to a train image at random: light shifts and scales a little, strong crops widely; flips as the dataset allows",
    choices=("none", "light", "strong"),
)
_STEERING_SHARE = Parameter(
    "holdout",
    0.1,
    "share of train that steers early stopping where val is the reported figure",
    low=0.01,
    high=0.5,
)
_PATIENCE = Parameter(
    "patience", 5, "epochs without a better log-loss after which training stops", low=1, high=10_000
)

# Of the scenarios that leave the network as it is.
_FROZEN = (
    _BATCH_SIZE,
    _DECODE_WORKERS,
    _IMAGE_SIZE,
    _FRAMING,
    Parameter(
        "views",
        1,
        "ways to look at each train image: 2 adds it turned over, where the dataset allows it, more add crops",
        low=1,
        high=32,
    ),
    Parameter(
        "stages",
        "",
        "modules after which the network is looked into, with commas between them; empty: the ends of its stages",
    ),
    _CACHE_GB,
    Parameter(
        "folds",
        5,
        "of the cross-validation inside train that chooses the penalty",
        low=2,
        high=20,
    ),
    Parameter(
        "penalties",
        13,
        "how many penalties are tried, evenly spaced in their logarithm",
        low=1,
        high=100,
    ),
    Parameter(
        "penalty_max",
        10.0,
        "the strongest penalty (of the squared weights, beside the mean log-loss)",
        low=1e-12,
        high=1e6,
    ),
    Parameter("penalty_min", 1e-5, "the weakest penalty", low=1e-12, high=1e6),
    _BALANCE,
    Parameter(
        "holdout_above",
        20_000,
        "with more train images than this, one holdout takes the place of the folds",
        low=100,
        high=10_000_000,
    ),
    Parameter(
        "refit",
        "auto",
        "auto: where test is the reported figure, the classifier that is kept is fitted on train and val; off: on train",
        choices=("auto", "off"),
    ),
)

# Of these, what also a classifier needs that training begins with.
_CLASSIFIER = (
    "stages",
    "cache_gb",
    "folds",
    "penalties",
    "penalty_max",
    "penalty_min",
    "holdout_above",
)

SCENARIOS: Mapping[str, Scenario] = MappingProxyType(
    {
        "fixed-extractor": Scenario(
            "fixed-extractor",
            "little new data, similar to the old",
            "Train only a new classifier, on features of the frozen network.",
            _FROZEN,
        ),
        "initial-layers": Scenario(
            "initial-layers",
            "little new data, different from the old",
            "Train a classifier on features of the network's earlier layers; data choose which.",
            (
                *_FROZEN,
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
                replace(_EPOCHS, default=15),
                replace(_TRAIN_BATCH_SIZE, default=32),
                _DECODE_WORKERS,
                _IMAGE_MEMORY_MB,
                _PRECISION,
                _COMPILE,
                _IMAGE_SIZE,
                _FRAMING,
                _LEARNING_RATE,
                _WEIGHT_DECAY,
                _WARMUP_EPOCHS,
                _LABEL_SMOOTHING,
                _MIXUP,
                _EMA_EPOCHS,
                _BALANCE,
                replace(_AUGMENTATION, default="none"),
                Parameter(
                    "activations_gb",
                    4.0,
                    "memory for what the frozen part gives, computed once where augmentation is none; 0: none",
                    low=0.0,
                    high=100_000.0,
                ),
                *(parameter for parameter in _FROZEN if parameter.name in _CLASSIFIER),
                _STEERING_SHARE,
                _PATIENCE,
            ),
        ),
        "fine-tune-all": Scenario(
            "fine-tune-all",
            "lots of new data, similar to the old",
            "Fit a new classifier, then tune every layer, the first ones least.",
            (
                _EPOCHS,
                replace(_TRAIN_BATCH_SIZE, default=32),
                _DECODE_WORKERS,
                _IMAGE_SIZE,
                _CACHE_GB,
                _FRAMING,
                _IMAGE_MEMORY_MB,
                _PRECISION,
                _COMPILE,
                _LEARNING_RATE,
                Parameter(
                    "first_layers_rate",
                    0.1,
                    "rate of the first layers, as a share of the last ones'; in between it rises in even steps",
                    low=0.0,
                    high=1.0,
                ),
                _WEIGHT_DECAY,
                _WARMUP_EPOCHS,
                _LABEL_SMOOTHING,
                _MIXUP,
                _EMA_EPOCHS,
                _BALANCE,
                _AUGMENTATION,
                _STEERING_SHARE,
                _PATIENCE,
            ),
        ),
        "from-scratch": Scenario(
            "from-scratch",
            "lots of new data, different from the old",
            "Reuse the architecture, compute all weights anew.",
            (
                replace(_EPOCHS, default=90),
                _TRAIN_BATCH_SIZE,
                _DECODE_WORKERS,
                _IMAGE_SIZE,
                _FRAMING,
                _IMAGE_MEMORY_MB,
                _PRECISION,
                _COMPILE,
                replace(_LEARNING_RATE, default=1e-3),
                _WEIGHT_DECAY,
                _WARMUP_EPOCHS,
                replace(_LABEL_SMOOTHING, default=0.1),
                _MIXUP,
                _EMA_EPOCHS,
                _BALANCE,
                _AUGMENTATION,
                _STEERING_SHARE,
                replace(_PATIENCE, default=15),
            ),
        ),
    }
)
