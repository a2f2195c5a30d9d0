"""The batches of a training: images decoded in threads, augmented, and put on the device."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from . import augmentation
from .contract.dataset_manifest import Image
from .data import Reader, batches
from .preprocessing import Pixels, Preprocessing, network_input
from .recipe import Recipe
from .training import Batch, Labelled


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

    def epoch(self, epoch: int, start: int) -> Iterator[Batch]:
        """From step `start` on. CannotRun, naming the image, when one can't be read."""
        recipe = self.recipe
        order = augmentation.order(len(self.train.images), seed=recipe.seed, epoch=epoch)

        def load(index: int) -> Pixels:
            image = self.train.images[index]
            return augmentation.augmented(
                self.reader.rgb(image),
                image,
                self.spec,
                recipe.augmentation,
                recipe.flips,
                seed=recipe.seed,
                epoch=epoch,
            )

        todo = order[start * recipe.batch_size : self._whole]
        for batch in batches(todo, load, batch_size=recipe.batch_size, workers=self.workers):
            labels = torch.from_numpy(self.train.labels[list(batch.items)])
            yield Batch(network_input(self.spec, np.stack(batch.loaded), self.device), labels.to(self.device))

    def plain(self, images: Sequence[Image]) -> Iterator[Tensor]:
        def load(image: Image) -> Pixels:
            return self.reader.pixels(image, self.spec)

        for batch in batches(images, load, batch_size=self.recipe.batch_size, workers=self.workers):
            yield network_input(self.spec, np.stack(batch.loaded), self.device)

    @property
    def _whole(self) -> int:
        """The images that an epoch learns from: a last batch of one is left out, which normalisation can't take.

        The order differs in every epoch, so no image is left out of all.
        """
        count = len(self.train.images)
        return count - 1 if count % self.recipe.batch_size == 1 and count > 1 else count
