"""A GPU that is not NVIDIA's, such as Apple's: what is known of torch there is kept to, and nothing needs CUDA.

There is none here, so a device that torch has everywhere stands in, "meta": it knows shapes and types and no numbers.
Whoever asks it for a number is given 0, and what is computed on it is watched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from remote import devices
from remote.images.augmentation import FACTS, Augmentation
from remote.images.preprocessing import network_input, of_weights, with_image_size
from remote.networks import backbones
from remote.training import precision
from remote.training.loop import evaluate, fit
from remote.training.trainee import Batch, Position, Trainee
from tests.remote.test_training import RECIPE, InMemory, numbers

CPU, NVIDIA, APPLE, STAND_IN = map(torch.device, ("cpu", "cuda", "mps", "meta"))
SPEC = with_image_size(of_weights("mobilenet_v3_small"), 32)


class Watched(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The stand-in: 0 for whoever asks for a number; what was computed with more bits than it has, or lies otherwise."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0
        self.wrong: set[str] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given, first = dict(kwargs or {}), args[0] if args else None
        if isinstance(first, Tensor) and first.device == STAND_IN:
            if func is torch.ops.aten._local_scalar_dense.default:
                return first.dtype == torch.bool or 0.0
            if given.get("device") == CPU:
                return torch.zeros(first.shape, dtype=given.get("dtype") or first.dtype)
        result = func(*args, **given)
        there = [one for one in _flat(result) if one.device == STAND_IN]
        self.operations += len(there)
        if any(one.dtype == torch.float64 for one in there):
            self.wrong.add("float64")
        if "conv" in str(func) and not all(one.is_contiguous() for one in _flat(args)):
            self.wrong.add("channels last")
        if there and given.get("non_blocking"):
            self.wrong.add("not waited for")
        return result


def _flat(values: Any) -> list[Tensor]:
    found = values if isinstance(values, tuple | list) else [values]
    return [one for one in found if isinstance(one, Tensor)]


def test_the_device_is_the_best_that_torch_has() -> None:
    assert devices.choose(cuda=True, mps=True) == NVIDIA
    assert devices.choose(cuda=False, mps=True) == APPLE
    assert devices.choose(cuda=False, mps=False) == CPU


@pytest.mark.parametrize("device", [APPLE, STAND_IN])
def test_an_apple_gpu_gets_what_is_right_everywhere(device: torch.device) -> None:
    assert devices.layout(device) == torch.contiguous_format
    assert devices.of_sums(device) == torch.float32
    assert not devices.pins(device) and not devices.fuses(device)
    assert precision.training_precision(device, "auto") == torch.float32
    with precision.mixed(device, torch.float32):
        assert not torch.is_autocast_enabled(device.type if device == APPLE else "cpu")


@pytest.mark.parametrize("device", [CPU, NVIDIA])
def test_others_get_what_is_quick(device: torch.device) -> None:
    assert devices.layout(device) == torch.channels_last
    assert devices.of_sums(device) == torch.float64
    assert devices.fuses(device) and devices.pins(device) == (device == NVIDIA)


@pytest.mark.filterwarnings("ignore:.*which is a no-op")
def test_a_training_there_computes_nothing_that_it_cannot() -> None:
    """The loop on a real network: warm-up, mixup, label smoothing, balance, averaging, half a batch at a time."""
    network = backbones.build("mobilenet_v3_small", 3, seed=0)
    train, steering = numbers(20), numbers(6, first=100)
    spec = replace(RECIPE, epochs=2, mixup=0.2, ema_epochs=0.5)

    class There(InMemory):
        def epoch(self, epoch: int, start: int) -> Any:
            for step in range(start, self.steps):
                chosen = self.train.labels[step * 8 : step * 8 + 8]
                canvases = torch.zeros(len(chosen), 60, 60, 3, dtype=torch.uint8)
                given = (
                    devices.moved(canvases, STAND_IN),
                    devices.moved(torch.zeros(len(chosen), FACTS), STAND_IN),
                )
                yield Batch(augmentation.seen(*given), devices.moved(torch.from_numpy(chosen), STAND_IN))

        def plain(self, images: Sequence[object]) -> Any:
            yield network_input(SPEC, np.zeros((len(images), 32, 32, 3), np.uint8), STAND_IN)

    augmentation = Augmentation(SPEC, "strong", "all", 40)
    saved: list[object] = []
    trainee = Trainee(
        module=backbones.place(network.module, STAND_IN),
        batches=There(train),
        class_counts=[9, 7, 4],
        device=STAND_IN,
        should_stop=lambda: False,
        due=lambda: True,
        save=saved.append,
        on_batch=lambda epoch, done: None,
        on_epoch=lambda epoch: None,
        tell=lambda text: None,
    )
    with Watched() as watched:
        position = fit(trainee, spec, steering, start_counts=True, resumed=None)
        logits = evaluate(trainee, steering.images, Position(micro_batch=4))
    assert position.epoch == 2 and len(saved) > 6
    assert logits.dtype == np.float64 and logits.shape == (6, 3)
    assert watched.operations > 1000
    assert not watched.wrong


def test_the_watch_sees_what_would_be_wrong() -> None:
    with Watched() as watched:
        images = torch.empty(2, 3, 8, 8, device=STAND_IN).contiguous(memory_format=torch.channels_last)
        torch.nn.Conv2d(3, 4, 3, device=STAND_IN)(images)
        torch.zeros(2).to(STAND_IN, non_blocking=True)
        torch.zeros(2, device=STAND_IN, dtype=torch.float64)
    assert watched.wrong == {"channels last", "not waited for", "float64"}
