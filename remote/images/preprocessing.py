"""From RGB pixels to what a network was made to see: resize, crop, scale, by the definition of its weights.

The same pixels as torchvision's own transform of these weights makes from a Pillow image: a test compares them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from remote import devices
from remote.sources import source_of

Pixels = NDArray[np.uint8]  # height, width, 3
Framing = Literal["crop", "whole"]

_LONG = 8  # an image that is this much longer than wide is a strip
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Preprocessing:
    """The input specification of a network. It stands in model.json and inside model.safetensors."""

    resize: int  # pixels of the shorter side
    crop: int  # pixels of both sides of the middle that is kept; at most `resize`
    interpolation: Literal["bilinear", "bicubic"]
    mean: list[float]  # of red, green, blue, on a scale from 0 to 1
    std: list[float]
    framing: Framing = "crop"  # the middle of the image, or all of it, squeezed into a square

    def __post_init__(self) -> None:
        if not 0 < self.crop <= self.resize <= 4096 or len(self.mean) != 3 or len(self.std) != 3:
            raise ValueError(f"no preprocessing: resize {self.resize}, crop {self.crop}")

    @property
    def text(self) -> str:
        square = f"{self.crop} × {self.crop}"
        if self.framing == "whole":
            return f"the whole image squeezed into {square} ({self.interpolation})"
        return f"shorter side {self.resize}, middle {square} ({self.interpolation})"


def of_weights(model: str) -> Preprocessing:
    """What the source of a model says that its pre-trained weights were made to see."""
    return Preprocessing(**source_of(model).preprocessing(model))


def with_image_size(spec: Preprocessing, image_size: int) -> Preprocessing:
    """Another size, of the whole shorter side; 0 changes nothing."""
    return dataclasses.replace(spec, resize=image_size, crop=image_size) if image_size else spec


def framed(spec: Preprocessing, framing: str) -> Preprocessing:
    """How much of an image is seen: "crop" or "whole"."""
    return dataclasses.replace(spec, framing="whole" if framing == "whole" else "crop")


def pixels(spec: Preprocessing, image: Image.Image) -> Pixels:
    """Resized and cropped, (crop, crop, 3)."""
    if spec.framing == "whole":
        return np.asarray(image.resize((spec.crop, spec.crop), RESAMPLING[spec.interpolation]))
    short, long = sorted(image.size)
    new_long = int(spec.resize * long / short)
    width, height = (spec.resize, new_long) if image.width <= image.height else (new_long, spec.resize)
    left, top = round((width - spec.crop) / 2.0), round((height - spec.crop) / 2.0)
    resampling = RESAMPLING[spec.interpolation]
    if long > _LONG * short:
        # A strip of 1 x 3000 would become 256 x 768,000: only what the crop keeps is computed. The pixels may
        # differ by a few values from those of the whole image, which is why this is not done for all.
        x, y = image.width / width, image.height / height
        box = (left * x, top * y, (left + spec.crop) * x, (top + spec.crop) * y)
        return np.asarray(image.resize((spec.crop, spec.crop), resampling, box=box))
    if image.size != (width, height):
        image = image.resize((width, height), resampling)
    return np.asarray(image.crop((left, top, left + spec.crop, top + spec.crop)))


def network_input(spec: Preprocessing, batch: Pixels | torch.Tensor, device: torch.device) -> torch.Tensor:
    """A batch (n, height, width, 3) of bytes as the network's input (n, 3, height, width).

    The bytes are moved, not the floats: a quarter of the traffic.
    """
    given = torch.from_numpy(batch) if isinstance(batch, np.ndarray) else batch
    moved = devices.moved(given, device).permute(0, 3, 1, 2)
    return normalised(spec, moved.to(torch.float32, memory_format=devices.layout(device)))


def normalised(spec: Preprocessing, batch: torch.Tensor) -> torch.Tensor:
    """Values from 0 to 255, (n, 3, height, width), as the network knows them. Changes what it is given."""
    mean = torch.tensor(spec.mean, device=batch.device).view(1, 3, 1, 1)
    std = torch.tensor(spec.std, device=batch.device).view(1, 3, 1, 1)
    return batch.div_(255.0).sub_(mean).div_(std)


def plain_name(spec: Preprocessing) -> str:
    """Under which name images are kept as the network sees them without augmentation."""
    return f"plain, {spec.text}"
