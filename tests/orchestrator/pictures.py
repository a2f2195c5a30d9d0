"""Small real images and folders of them, each different, the same on every run."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path

from PIL import Image


def picture(number: int, form: str = "PNG", size: tuple[int, int] = (8, 6)) -> bytes:
    """A file whose bytes are a function of its number."""
    colours = hashlib.shake_256(str(number).encode()).digest(8 * 6 * 3)  # no two look alike
    image = Image.frombytes("RGB", (8, 6), colours).resize(size, Image.Resampling.NEAREST)
    out = io.BytesIO()
    image.save(out, form)
    return out.getvalue()


def fill(root: Path, counts: Mapping[str, int], *, start: int = 0) -> Path:
    """`{"train/ants": 3}` writes three images into that folder; numbers go on from folder to folder."""
    number = start
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for _ in range(count):
            (root / folder / f"{number:04d}.png").write_bytes(picture(number))
            number += 1
    return root
