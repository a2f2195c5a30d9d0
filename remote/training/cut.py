"""A network in two parts: what is frozen, up to a cut, and what is trained, from the cut on.

The upper part is a network of its own that shares its tensors with the whole: every layer before the cut just passes
its input on. So it takes what the lower part gives, and that can be computed once for each image.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from remote import devices
from remote.contract.dataset_manifest import Image
from remote.errors import CannotRun, Stopped
from remote.features.feature_cache import Floats32
from remote.networks import depths
from remote.networks.backbones import Network
from remote.training.loading import Loader
from remote.training.trainee import Batch


@dataclass(frozen=True)
class Cut:
    """Where the frozen part ends."""

    name: str  # the first module that is trained
    below: list[str]  # modules that are frozen


class _Reached(Exception):
    """The cut, in the middle of a pass; carries what is given to the module there."""

    def __init__(self, given: Tensor) -> None:
        self.given = given


def cut(network: Network, name: str) -> Cut:
    """By the name of the first module that is trained; empty: what follows the last stage but one.

    CannotRun   the network has no such module, or nothing is before it
    """
    wanted = name or _after(network, depths.stage_ends(network))
    found = list(_before(network.module, wanted))
    if wanted not in dict(network.module.named_modules()) or not wanted:
        raise CannotRun(
            f"{network.model} has no module {wanted!r} to unfreeze from. At its top there are: "
            + ", ".join(child for child, _ in network.module.named_children())
        )
    if not found:
        raise CannotRun(
            f"Nothing comes before {wanted!r} in {network.model}: for all layers, run fine-tune-all"
        )
    return Cut(wanted, found)


def freeze_below(network: Network, where: Cut) -> None:
    """No gradient and eval mode before the cut; everything else is trained."""
    network.module.requires_grad_(True)
    for name in where.below:
        network.module.get_submodule(name).requires_grad_(False).eval()


def below(network: Network, where: Cut, inputs: Tensor) -> Tensor:
    """What the module at the cut is given for these inputs. Nothing behind the cut is computed."""

    def reached(_: nn.Module, given: tuple[Any, ...]) -> NoReturn:
        raise _Reached(given[0])

    hook = network.module.get_submodule(where.name).register_forward_pre_hook(reached)
    try:
        with torch.no_grad():
            network.module(inputs)
    except _Reached as at:
        return at.given
    finally:
        hook.remove()
    raise CannotRun(f"{network.model} never comes to {where.name!r}")


def upper(network: Network, where: Cut, inputs: Tensor) -> nn.Module | None:
    """The part from the cut on, which shares its tensors with the network; None where the network is no chain there.

    inputs      on which both are compared, to the bit; the network is in eval mode
    """
    tensors = [*network.module.parameters(), *network.module.buffers()]
    module = copy.deepcopy(network.module, {id(tensor): tensor for tensor in tensors})
    for name in where.below:
        parent, _, child = name.rpartition(".")
        setattr(module.get_submodule(parent), child, nn.Identity())
    try:
        with torch.no_grad():
            equal = torch.equal(network.module(inputs), module(below(network, where, inputs)))
    except RuntimeError:
        return None
    return module if equal else None


@dataclass(frozen=True)
class CutBatches:
    """Batches of a training from the cut on: each image's activations were computed once and are kept in memory."""

    loader: Loader  # which images come in which step
    activations: Floats32  # (images, ...)
    row_of: dict[str, int]  # by path
    labels: dict[str, int]
    device: torch.device

    @staticmethod
    def of(
        loader: Loader, images: Sequence[Image], activations: Floats32, classes: Sequence[str]
    ) -> CutBatches:
        """The activations of these images, which are all that train and are measured."""
        row_of = {image.path: row for row, image in enumerate(images)}
        labels = {name: number for number, name in enumerate(classes)}
        return CutBatches(loader, activations, row_of, labels, loader.device)

    @property
    def steps(self) -> int:
        return self.loader.steps

    def epoch(self, epoch: int, start: int) -> Iterator[Batch]:
        for step in range(start, self.steps):
            images = self.loader.images(epoch, step)
            labels = torch.tensor([self.labels[image.class_name] for image in images])
            yield Batch(self._of(images), labels.to(self.device))

    def images(self, epoch: int, step: int) -> list[Image]:
        return self.loader.images(epoch, step)

    def plain(self, images: Sequence[Image]) -> Iterator[Tensor]:
        size = self.loader.recipe.batch_size
        for start in range(0, len(images), size):
            yield self._of(images[start : start + size])

    def _of(self, images: Sequence[Image]) -> Tensor:
        rows = self.activations[[self.row_of[image.path] for image in images]]
        moved = devices.moved(torch.from_numpy(rows), self.device)
        return moved.contiguous(memory_format=devices.layout(self.device)) if moved.ndim == 4 else moved


def activations(
    network: Network, where: Cut, loader: Loader, images: Sequence[Image], stop: Callable[[], bool]
) -> Floats32:
    """What the frozen part gives for each image, (images, ...). Stopped between two batches."""
    result, done = np.empty(0, np.float32), 0
    for inputs in loader.plain(images):
        if stop():
            raise Stopped("while activations were computed")
        given = below(network, where, inputs)
        if not done:
            result = np.empty((len(images), *given.shape[1:]), np.float32)
        result[done : done + len(given)] = given.float().cpu().numpy()
        done += len(given)
    return result


def _before(module: nn.Module, wanted: str, prefix: str = "") -> Iterator[str]:
    """The modules that come before one, as whole as possible. torchvision's networks name layers in their order."""
    for name, child in module.named_children():
        path = prefix + name
        if path == wanted:
            return
        if wanted.startswith(path + "."):
            yield from _before(child, wanted, path + ".")
            return
        yield path


def _after(network: Network, ends: Sequence[str]) -> str:
    """The module that follows the end of the last stage but one; empty where the stages are not known."""
    if len(ends) < 2:
        return ""
    parent, _, name = ends[-2].rpartition(".")
    names = [child for child, _ in network.module.get_submodule(parent).named_children()]
    following = names[names.index(name) + 1 :]
    return f"{parent}.{following[0]}" if parent and following else "".join(following[:1])
