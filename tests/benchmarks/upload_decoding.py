"""What the decoding side of the benchmark of uploads does with a file. Its workers import this and nothing else."""

from __future__ import annotations

from PIL import Image


def decoded(path: str) -> None:
    """Read a file and decode all of it."""
    with Image.open(path) as image:
        image.load()
