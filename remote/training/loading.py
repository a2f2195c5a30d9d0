"""The batches of a training: images decoded once, cut and augmented while the steps before theirs are computed.

Threads cut them. A GPU then augments and normalises the batch as a whole; on a processor the same threads do that, a
few images each, so that the thread that trains finds its batch ready.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from remote import devices
from remote.contract.dataset_manifest import Image
from remote.images import augmentation
from remote.images.augmentation import FACTS, Augmentation, Shares
from remote.images.data import Reader, ahead
from remote.images.preprocessing import Preprocessing, network_input, pixels, plain_name
from remote.training.recipe import Recipe
from remote.training.trainee import Batch, Labelled

_PART = 8  # images that a thread prepares at a time; the numbers do not depend on it


@dataclass(frozen=True)
class _Step:
    """One batch on its way: threads fill the rows."""

    indices: list[int]  # of train images
    canvases: Tensor  # (n, canvas, canvas, 3), bytes
    facts: Tensor  # (n, FACTS)
    # (n, 3, crop, crop), what the network sees; None: the GPU makes it of the two above.
    inputs: Tensor | None


@dataclass(frozen=True)
class _Plain:
    """Images without augmentation on their way: threads fill the rows."""

    images: Sequence[Image]
    bytes: Tensor  # (n, crop, crop, 3)
    inputs: Tensor | None  # as above


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
        for step in ahead(self._steps(epoch, start), workers=self.workers, begin=one_thread_each):
            inputs = step.inputs
            if inputs is None:
                inputs = self._augmentation.seen(self._moved(step.canvases), self._moved(step.facts))
            yield Batch(inputs, self._moved(torch.from_numpy(self.train.labels[step.indices])))

    def images(self, epoch: int, step: int) -> list[Image]:
        """Those of this batch, in its order."""
        first = step * self.recipe.batch_size
        return [self.train.images[index] for index in self._order(epoch)[first:][: self.recipe.batch_size]]

    def plain(self, images: Sequence[Image]) -> Generator[Tensor, None, None]:
        """Without augmentation. CannotRun as above."""
        for batch in ahead(self._plain_steps(images), workers=self.workers, begin=one_thread_each):
            inputs = batch.inputs
            yield network_input(self.spec, batch.bytes, self.device) if inputs is None else inputs

    def _steps(self, epoch: int, start: int) -> Iterator[tuple[_Step, list[Callable[[], None]]]]:
        chance = augmentation.shares(self.train.images, seed=self.recipe.seed, epoch=epoch)
        order, size = self._order(epoch), self.recipe.batch_size
        for first in range(start * size, len(order), size):
            indices = order[first : first + size]
            # Zeros, because interpolation at the edge of an image touches what is beside it with a weight of 1e-6.
            canvases = self._bytes(len(indices), self._augmentation.canvas).zero_()
            facts = torch.empty(len(indices), FACTS, pin_memory=devices.pins(self.device))
            step = _Step(indices, canvases, facts, self._inputs(len(indices)))
            yield step, [partial(self._prepare, step, chance, part) for part in _parts(len(indices))]

    def _prepare(self, step: _Step, chance: Shares, part: slice) -> None:
        """Some images of a batch."""
        kept, canvases, facts = self._augmentation, step.canvases[part], step.facts[part]
        for row, index in enumerate(step.indices[part]):
            source = self.reader.kept(self.train.images[index], kept.name, kept.source)
            kept.cut(source, chance[index], canvases[row].numpy(), facts[row].numpy())
        if step.inputs is not None:
            step.inputs[part] = kept.seen(canvases, facts)

    def _plain_steps(self, images: Sequence[Image]) -> Iterator[tuple[_Plain, list[Callable[[], None]]]]:
        for first in range(0, len(images), self.recipe.batch_size):
            some = images[first : first + self.recipe.batch_size]
            batch = _Plain(some, self._bytes(len(some), self.spec.crop), self._inputs(len(some)))
            yield batch, [partial(self._load, batch, part) for part in _parts(len(some))]

    def _load(self, batch: _Plain, part: slice) -> None:
        """Some images of a batch. Those of test are measured once, so they are not kept."""
        for row, image in enumerate(batch.images[part], part.start):
            if image.split == "test":
                loaded = self.reader.pixels(image, self.spec)
            else:
                loaded = self.reader.kept(image, plain_name(self.spec), partial(pixels, self.spec))
            batch.bytes[row].numpy()[:] = loaded
        if batch.inputs is not None:
            batch.inputs[part] = network_input(self.spec, batch.bytes[part], self.device)

    def _bytes(self, images: int, side: int) -> Tensor:
        return torch.empty(images, side, side, 3, dtype=torch.uint8, pin_memory=devices.pins(self.device))

    def _inputs(self, images: int) -> Tensor | None:
        if self.device.type != "cpu":
            return None
        shape = (images, 3, self.spec.crop, self.spec.crop)
        with torch.inference_mode(False):  # of this thread alone: those that fill it would not be allowed to
            return torch.empty(shape, memory_format=devices.layout(self.device))

    def _moved(self, tensor: Tensor) -> Tensor:
        return devices.moved(tensor, self.device)

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


def one_thread_each() -> None:
    """At the start of a thread that loads: torch computes in this thread alone, and the one that trains keeps its own.

    Else each would bring as many threads as there are cores, and they would push each other off them.
    """
    torch.set_num_threads(1)


def _parts(images: int) -> list[slice]:
    return [slice(first, min(first + _PART, images)) for first in range(0, images, _PART)]
