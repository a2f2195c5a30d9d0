"""Ways to look at one image: the middle as always, turned over, and crops. Functions of the image alone.

A classifier that is fitted on several views of each train image has seen more; val and test are seen in one way only.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image as Pillow

from remote.contract.dataset_manifest import Flips, Image
from remote.images.preprocessing import RESAMPLING, Pixels, Preprocessing, pixels

_SHARE = (0.35, 1.0)  # of the area that a crop keeps
_STRETCH = 4 / 3  # at most, of one side of a crop against the other


@dataclass(frozen=True)
class View:
    """number 0 is the whole middle; from 1 on crops, each another one."""

    number: int
    flipped: bool

    @property
    def name(self) -> str:
        return (
            f"{'crop ' + str(self.number) if self.number else 'centre'}{' flipped' if self.flipped else ''}"
        )


CENTRE = View(0, flipped=False)


def views(count: int, flips: Flips) -> list[View]:
    """The first `count` views: the middle, the middle turned over where the dataset allows it, then crops."""
    turned = flips != "none"
    first = [CENTRE, View(0, flipped=True)] if turned else [CENTRE]
    crops = [View(number, flipped=turned and number % 2 == 0) for number in range(1, count)]
    return [*first, *crops][:count]


def seen(view: View, spec: Preprocessing, image: Image, rgb: Pillow.Image) -> Pixels:
    """The pixels of the image in this view, at the size of the network."""
    if view.number:
        box = _box(rgb.size, f"{image.sha256}:{image.page}:{view.number}")
        result = np.asarray(rgb.resize((spec.crop, spec.crop), RESAMPLING[spec.interpolation], box=box))
    else:
        result = pixels(spec, rgb)
    return result[:, ::-1] if view.flipped else result


def _box(size: tuple[int, int], key: str) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of a part of an image of this size."""
    digest = hashlib.sha256(key.encode()).digest()
    shares = [int.from_bytes(digest[start : start + 8], "big") / 2**64 for start in range(0, 32, 8)]
    area = size[0] * size[1] * (_SHARE[0] + (_SHARE[1] - _SHARE[0]) * shares[0])
    stretch = math.exp((2 * shares[1] - 1) * math.log(_STRETCH))
    width, height = min(size[0], math.sqrt(area * stretch)), min(size[1], math.sqrt(area / stretch))
    left, top = (size[0] - width) * shares[2], (size[1] - height) * shares[3]
    return left, top, left + width, top + height
