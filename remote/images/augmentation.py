"""What is done to a train image at random: a function of (seed, epoch, image), never of a generator's hidden state.

Chance is drawn for all images of an epoch at once; threads cut out the part of each image that its crop needs; then
the batch is resized, turned and coloured as a whole, on the device. Boxes, colours and erasing are those of
torchvision's transforms v2 (`resized_crop`, `adjust_*`, `erase`), with numbers of its own for each image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from torch import Tensor
from torch.nn import functional

from remote import devices
from remote.contract.dataset_manifest import Flips, Image
from remote.images.preprocessing import Pixels, Preprocessing, normalised, pixels, plain_name

Shares = NDArray[np.float64]  # (images, NUMBERS), each from 0 to below 1
NUMBERS = 16  # drawn for an image in an epoch


@dataclass(frozen=True)
class _Strength:
    scale: tuple[float, float]  # share of the area that is kept
    stretch: float  # at most, of one side against the other
    colour: float = 0.0  # brightness, contrast and saturation are multiplied by 1 ± this, at most
    erase: float = 0.0  # how often a part is blanked out


_STRENGTHS = {
    "none": _Strength((1.0, 1.0), 1.0),
    "light": _Strength((0.75, 1.0), 1.1),
    "strong": _Strength((0.08, 1.0), 4 / 3, colour=0.4, erase=0.1),
}
_SMALLEST_CROP = 0.75  # of the area, that still has a pixel of the source for each of its own
_STRIP = 4  # of a longer image only the middle is kept
_ERASED = (0.02, 0.2)  # share of the area
_GREY = (0.2989, 0.587, 0.114)  # of red, green, blue: torchvision's

# The columns of what the device is told about each image.
_LEFT, _TOP, _WIDE, _HIGH, _LAST_X, _LAST_Y, _ACROSS, _DOWN, _TURNED = range(9)
_BRIGHTNESS, _CONTRAST, _SATURATION, _BLANK_LEFT, _BLANK_TOP, _BLANK_RIGHT, _BLANK_BOTTOM = range(9, 16)
FACTS = 16


def order(count: int, *, seed: int, epoch: int) -> list[int]:
    """In which order the images come in an epoch."""
    key = np.array([(seed % 2**32 << 32) + epoch, 2**63], dtype=np.uint64)
    found: list[int] = np.random.Generator(np.random.Philox(key=key)).permutation(count).tolist()
    return found


def shares(images: Sequence[Image], *, seed: int, epoch: int) -> Shares:
    """The numbers that chance gives these images in this epoch: a hash of the three, spread evenly."""
    own = np.array([int(image.sha256[-16:], 16) ^ image.page for image in images], dtype=np.uint64)
    time = np.array([(seed % 2**32 << 32) + epoch], dtype=np.uint64)
    state = _scrambled(_scrambled(own) ^ _scrambled(time))[:, None]
    numbers = _scrambled(state + np.arange(1, NUMBERS + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    spread: Shares = (numbers >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return spread


@dataclass(frozen=True)
class Augmentation:
    """How train images are changed on their way to the network."""

    spec: Preprocessing
    strength: str  # none, light or strong
    flips: Flips  # those that leave the meaning of an image alone
    side: int  # pixels of the shorter side at which images are kept, at most

    @staticmethod
    def of(images: Sequence[Image], spec: Preprocessing, strength: str, flips: Flips) -> Augmentation:
        """For these images: kept no larger than the network or the largest of them can use."""
        useful = math.ceil(spec.crop / math.sqrt(_SMALLEST_CROP))
        there = max((min(image.width, image.height) for image in images), default=useful)
        return Augmentation(spec, strength, flips, max(1, min(useful, there)))

    @property
    def canvas(self) -> int:
        """Side of the square into which the part of each image goes that its crop needs."""
        if self.strength == "none":
            return self.spec.crop
        return math.ceil(self.side * math.sqrt(_STRENGTHS[self.strength].stretch)) + 3

    @property
    def name(self) -> str:
        """Under which name sources are kept."""
        if self.strength == "none":
            return plain_name(self.spec)
        return f"source at {self.side}, {self.spec.text}"

    def source(self, rgb: Pillow.Image) -> Pixels:
        """What is kept of an image, whatever the epoch: (height, width, 3)."""
        if self.strength == "none":
            return pixels(self.spec, rgb)
        if self.spec.framing == "whole":
            size = (min(rgb.width, self.side), min(rgb.height, self.side))
            return np.asarray(rgb if size == rgb.size else rgb.resize(size, Pillow.Resampling.BILINEAR))
        wide, high = (min(side, _STRIP * min(rgb.size)) for side in rgb.size)
        left, top = (rgb.width - wide) // 2, (rgb.height - high) // 2
        shrink = min(1.0, self.side / min(wide, high))
        size = (max(1, round(wide * shrink)), max(1, round(high * shrink)))
        if size == rgb.size:
            return np.asarray(rgb)
        return np.asarray(
            rgb.resize(size, Pillow.Resampling.BILINEAR, box=(left, top, left + wide, top + high))
        )

    def cut(self, source: Pixels, share: Shares, canvas: Pixels, facts: NDArray[np.float32]) -> None:
        """Put the part that the crop needs on the canvas, and into `facts` what is to be done to it.

        share   the row of this image, (NUMBERS,)
        canvas  (canvas, canvas, 3); what lies outside of the part is never looked at
        facts   (FACTS,)
        """
        strength = _STRENGTHS[self.strength]
        height, width = source.shape[:2]
        wide, high = self._size(width, height, share[0], share[1])
        left, top = share[2] * (width - wide), share[3] * (height - high)
        x, y = max(0, math.floor(left - 0.5)), max(0, math.floor(top - 0.5))
        part = source[y : math.floor(top + high - 0.5) + 2, x : math.floor(left + wide - 0.5) + 2]
        canvas[: part.shape[0], : part.shape[1]] = part
        facts[_LEFT : _LAST_Y + 1] = left - x, top - y, wide, high, part.shape[1] - 1, part.shape[0] - 1
        facts[_ACROSS : _TURNED + 1] = share[4:7] < 0.5
        facts[_BRIGHTNESS : _SATURATION + 1] = 1 + strength.colour * (2 * share[7:10] - 1)
        facts[_BLANK_LEFT:] = self._blank(share[10:15]) if share[15] < strength.erase else 0

    def seen(self, canvases: Tensor, facts: Tensor) -> Tensor:
        """The network's input, (n, 3, crop, crop), on the device of what is given.

        canvases    (n, canvas, canvas, 3), bytes
        facts       (n, FACTS)
        """
        layout = devices.layout(canvases.device)
        given = canvases.permute(0, 3, 1, 2).to(torch.float32, memory_format=layout)
        image = functional.grid_sample(given, self._grid(facts), mode="bilinear", align_corners=True)
        strength = _STRENGTHS[self.strength]
        if strength.colour:
            image = _coloured(image, facts)
        image = normalised(self.spec, image)
        if strength.erase:
            image = image.masked_fill(self._blanks(facts), 0.0)  # 0 is the mean colour
        return image.contiguous(memory_format=layout)

    def _size(self, width: int, height: int, area: float, ratio: float) -> tuple[float, float]:
        """Of the box: a share of the largest square (or of the whole image), stretched a little."""
        strength = _STRENGTHS[self.strength]
        low, high = strength.scale
        share = math.sqrt(low + (high - low) * area)
        stretch = math.exp((2 * ratio - 1) * math.log(strength.stretch) / 2)
        side = min(width, height) * share
        if self.spec.framing == "whole":
            return min(width, width * share * stretch), min(height, height * share / stretch)
        return min(width, side * stretch), min(height, side / stretch)

    def _grid(self, facts: Tensor) -> Tensor:
        """Where in its canvas each pixel of the result comes from: (n, crop, crop, 2) of x and y, from -1 to 1."""
        crop = self.spec.crop
        steps = (torch.arange(crop, device=facts.device, dtype=torch.float32) + 0.5) / crop
        axes = []
        for start, size, last, flip, allowed in (
            (_LEFT, _WIDE, _LAST_X, _ACROSS, self.flips != "none"),
            (_TOP, _HIGH, _LAST_Y, _DOWN, self.flips == "all"),
        ):
            along = torch.where(facts[:, flip, None] > 0, 1 - steps, steps) if allowed else steps
            place = facts[:, start, None] + along * facts[:, size, None] - 0.5
            inside = torch.minimum(place.clamp(min=0), facts[:, last, None])
            axes.append(inside * (2 / max(1, self.canvas - 1)) - 1)
        shape = (len(facts), crop, crop)
        grid = torch.stack([axes[0][:, None, :].expand(shape), axes[1][:, :, None].expand(shape)], dim=-1)
        if self.flips != "all":
            return grid
        return torch.where(facts[:, _TURNED, None, None, None] > 0, grid.transpose(1, 2), grid)

    def _blank(self, share: Shares) -> tuple[float, float, float, float]:
        """Left, top, right and bottom, in pixels of the result."""
        crop = self.spec.crop
        area = _ERASED[0] + (_ERASED[1] - _ERASED[0]) * share[0]
        stretch = math.exp((2 * share[1] - 1) * math.log(3) / 2)
        wide, high = crop * math.sqrt(area) * stretch, crop * math.sqrt(area) / stretch
        left, top = share[2] * (crop - wide), share[3] * (crop - high)
        return left, top, left + wide, top + high

    def _blanks(self, facts: Tensor) -> Tensor:
        middles = torch.arange(self.spec.crop, device=facts.device) + 0.5
        across = (middles >= facts[:, _BLANK_LEFT, None]) & (middles < facts[:, _BLANK_RIGHT, None])
        down = (middles >= facts[:, _BLANK_TOP, None]) & (middles < facts[:, _BLANK_BOTTOM, None])
        return (down[:, :, None] & across[:, None, :])[:, None]


def _coloured(image: Tensor, facts: Tensor) -> Tensor:
    """Brightness, then contrast, then saturation; values from 0 to 255."""
    brightness, contrast, saturation = facts[:, _BRIGHTNESS : _SATURATION + 1, None, None, None].unbind(1)
    image = (image * brightness).clamp_(0, 255)
    image = torch.lerp(_grey(image).mean((1, 2, 3), keepdim=True), image, contrast).clamp_(0, 255)
    return torch.lerp(_grey(image), image, saturation).clamp_(0, 255)


def _grey(image: Tensor) -> Tensor:
    weights = torch.tensor(_GREY, device=image.device).view(1, 3, 1, 1)
    return (image * weights).sum(1, keepdim=True)


def _scrambled(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finish of SplitMix64 (Steele, Lea, Flood, 2014): every bit of the input moves every bit of the output."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values
