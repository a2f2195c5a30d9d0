"""What is done to a train image at random: a function of (seed, epoch, image), never of a generator's hidden state."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image as Pillow

from .contract.dataset_manifest import Flips, Image
from .preprocessing import RESAMPLING, Pixels, Preprocessing, pixels

_SCALES = {"light": (0.75, 1.0), "strong": (0.08, 1.0)}  # share of the area that is kept
_STRETCH = {"light": 1.1, "strong": 4 / 3}  # at most, of one side against the other


def order(count: int, *, seed: int, epoch: int) -> list[int]:
    """In which order the images come in an epoch."""
    found: list[int] = _generator(seed, epoch, 2**63).permutation(count).tolist()
    return found


def augmented(
    rgb: Pillow.Image,
    image: Image,
    spec: Preprocessing,
    strength: str,
    flips: Flips,
    *,
    seed: int,
    epoch: int,
) -> Pixels:
    """A crop of the image at the network's size, perhaps turned over.

    strength    none, light or strong
    flips       those that leave the meaning of an image alone
    """
    generator = _generator(seed, epoch, int(image.sha256[:16], 16))
    if strength == "none":
        result = pixels(spec, rgb)
    else:
        box = _box(rgb.size, _SCALES[strength], _STRETCH[strength], generator)
        result = np.asarray(rgb.resize((spec.crop, spec.crop), RESAMPLING[spec.interpolation], box=box))
    across, down, turned = generator.random(3) < 0.5
    if flips != "none" and across:
        result = result[:, ::-1]
    if flips == "all" and down:
        result = result[::-1]
    if flips == "all" and turned:
        result = result.swapaxes(0, 1)
    return result


def _box(
    size: tuple[int, int], scales: tuple[float, float], stretch: float, generator: np.random.Generator
) -> tuple[float, float, float, float]:
    """Left, top, right, bottom: a share of the largest square, stretched a little, anywhere inside the image."""
    width, height = size
    side = min(size) * math.sqrt(generator.uniform(*scales))
    ratio = math.exp(generator.uniform(-math.log(stretch), math.log(stretch)) / 2)
    wide, high = min(width, side * ratio), min(height, side / ratio)
    left, top = generator.uniform(0, width - wide), generator.uniform(0, height - high)
    return left, top, left + wide, top + high


def _generator(seed: int, epoch: int, item: int) -> np.random.Generator:
    return np.random.Generator(
        np.random.Philox(key=np.array([(seed % 2**32 << 32) + epoch, item], dtype=np.uint64))
    )
