"""Images of two kinds that differ in their colours, drawn for a test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def draw(folder: Path, *, train: int, val: int, side: int = 40) -> Path:
    """An ImageFolder with so many images of each kind: noise around blue, noise around red."""
    chance = np.random.default_rng(0)
    for split, each in (("train", train), ("val", val)):
        for kind, tint in (("blue", (60, 60, 140)), ("red", (140, 60, 60))):
            for number in range(each):
                path = folder / split / kind / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                noise = chance.integers(0, 100, (side, side, 3))
                Image.fromarray((noise + np.array(tint)).astype(np.uint8)).save(path)
    return folder
