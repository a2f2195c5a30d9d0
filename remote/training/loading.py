"""The batches of a training: images decoded once, then cut in threads, and augmented as a batch on the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from remote.contract.dataset_manifest import Image
from remote.images import augmentation
from remote.images.augmentation import FACTS, Augmentation, Shares
from remote.images.data import Reader, ahead, batches
from remote.images.preprocessing import Pixels, Preprocessing, network_input, pixels
from remote.training.recipe import Recipe
from remote.training.trainee import Batch, Labelled

_PART = 8  # images that a thread prepares at a time


@dataclass(frozen=True)
class _Step:
    """One batch on its way: threads fill the rows."""

    indices: list[int]  # of train images
    canvases: Tensor  # (n, canvas, canvas, 3), bytes
    facts: Tensor  # (n, FACTS)


@dataclass(frozen=True)
class Loader:
    """Batches of a training, in an order that depends on seed and epoch alone."""

    train: Labelled
    recipe: Recipe
    spec: Preprocessing
    reader: Reader
    device: torch.device
    workers: int

    @property
    def steps(self) -> int:
        return math.ceil(self._whole / self.recipe.batch_size)

    def epoch(self, epoch: int, start: int) -> Generator[Batch, None, None]:
        """From step `start` on. CannotRun, naming the image, when one can't be read."""
        for step in ahead(self._steps(epoch, start), workers=self.workers):
            inputs = self._augmentation.seen(*(self._moved(part) for part in (step.canvases, step.facts)))
            yield Batch(inputs, self._moved(torch.from_numpy(self.train.labels[step.indices])))

    def images(self, epoch: int, step: int) -> list[Image]:
        """Those of this batch, in its order."""
        first = step * self.recipe.batch_size
        return [self.train.images[index] for index in self._order(epoch)[first:][: self.recipe.batch_size]]

    def plain(self, images: Sequence[Image]) -> Iterator[Tensor]:
        """Without augmentation. Images of test are measured once, so they are not kept."""

        def load(image: Image) -> Pixels:
            if image.split == "test":
                return self.reader.pixels(image, self.spec)
            return self.reader.kept(image, ("plain", self.spec.text), partial(pixels, self.spec))

        for batch in batches(images, load, batch_size=self.recipe.batch_size, workers=self.workers):
            yield network_input(self.spec, np.stack(batch.loaded), self.device)

    def _steps(self, epoch: int, start: int) -> Iterator[tuple[_Step, list[Callable[[], None]]]]:
        chance = augmentation.shares(self.train.images, seed=self.recipe.seed, epoch=epoch)
        order, size = self._order(epoch), self.recipe.batch_size
        for first in range(start * size, len(order), size):
            indices = order[first : first + size]
            step = self._empty(indices)
            parts = range(0, len(indices), _PART)
            yield step, [partial(self._prepare, step, chance, part) for part in parts]

    def _empty(self, indices: list[int]) -> _Step:
        side = self._augmentation.canvas
        pinned = self.device.type == "cuda"  # memory from which a GPU fetches while the processor goes on
        # Zeros, because interpolation at the edge of an image touches what is beside it with a weight of 1e-6 or so.
        canvases = torch.zeros(len(indices), side, side, 3, dtype=torch.uint8, pin_memory=pinned)
        return _Step(indices, canvases, torch.empty(len(indices), FACTS, pin_memory=pinned))

    def _prepare(self, step: _Step, chance: Shares, first: int) -> None:
        """The images of a batch from number `first` on, a part of them."""
        canvases: Pixels = step.canvases.numpy()
        facts: NDArray[np.float32] = step.facts.numpy()
        kept = self._augmentation
        for row in range(first, min(first + _PART, len(step.indices))):
            index = step.indices[row]
            source = self.reader.kept(self.train.images[index], ("source", kept.side), kept.source)
            kept.cut(source, chance[index], canvases[row], facts[row])

    def _moved(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=True)

    def _order(self, epoch: int) -> list[int]:
        return augmentation.order(len(self.train.images), seed=self.recipe.seed, epoch=epoch)[: self._whole]

    @cached_property
    def _augmentation(self) -> Augmentation:
        recipe = self.recipe
        return Augmentation.of(self.train.images, self.spec, recipe.augmentation, recipe.flips)

    @property
    def _whole(self) -> int:
        """The images that an epoch learns from: a last batch of one is left out, which normalisation can't take.

        The order differs in every epoch, so no image is left out of all.
        """
        count = len(self.train.images)
        return count - 1 if count % self.recipe.batch_size == 1 and count > 1 else count
