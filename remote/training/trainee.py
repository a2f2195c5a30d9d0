"""What the training loop works with: a network, the batches it learns from, how far it has come, and whom it tells."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from remote.contract.dataset_manifest import Image
from remote.measures.evaluation import Labels
from remote.training.checkpoint import State
from remote.training.compiling import Forward


@dataclass(frozen=True)
class Batch:
    """What one step learns from: a function of (epoch, step) alone, whoever loads it and in whatever order."""

    inputs: Tensor  # (n, 3, height, width), normalised, on the device
    labels: Tensor  # (n,), whole numbers, on the device


class Batches(Protocol):
    """Images on their way to the network. Threads, caches and devices are its own affair."""

    @property
    def steps(self) -> int:
        """In each epoch."""

    def epoch(self, epoch: int, start: int) -> Iterator[Batch]:
        """The batches of an epoch, augmented, from step `start` on, in their order."""

    def plain(self, images: Sequence[Image]) -> Iterator[Tensor]:
        """These images in their order without augmentation, as inputs of the network, a batch at a time."""


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to; the last two are those of the images that steer. 0 is the state before the first."""

    epoch: int
    train_loss: float | None
    held_out_loss: float | None  # at the temperature that suits these images best
    held_out_accuracy: float | None
    seconds: float
    step_seconds: (
        float  # of these, in forward, backward and step, measuring too; on a GPU until they are in its queue
    )
    measured_seconds: float  # of these, for the images that steer


@dataclass
class Position:
    """Where the training is: all of it, beside tensors, that a checkpoint holds."""

    micro_batch: (
        int  # images that pass through the network together; fewer than the batch when memory ran out
    )
    epoch: int = 0
    step: int = 0  # of this epoch: batches already learned from
    images: int = 0  # of this epoch
    loss_sum: float = 0.0  # over these images
    seconds: float = 0.0
    step_seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best_loss: float = math.inf
    compiled: bool = False


@dataclass(frozen=True)
class Labelled:
    images: Sequence[Image]
    labels: Labels


@dataclass(frozen=True)
class Trainee:
    """The network, the images that it learns from, and whom it tells."""

    module: nn.Module
    batches: Batches
    class_counts: Sequence[int]  # of the train images
    device: torch.device
    should_stop: Callable[[], bool]
    due: Callable[[], bool]  # whether it is time for a checkpoint
    save: Callable[[State], object]
    on_batch: Callable[[int, int], None]  # the epoch, from 1, and images learned from in it
    on_epoch: Callable[[Epoch], None]
    tell: Callable[[str], None]  # a line for people about something unusual
    left_s: Callable[[], float] = lambda: math.inf  # until it is stopped, because its hours are over
    measured: int = 0  # images that are measured after the last epoch
    compiler: Callable[[nn.Module, Tensor], Forward] = lambda module, _: module  # given the first batch
    dtype: torch.dtype = torch.float32  # in which convolutions and matrix products are computed in training
