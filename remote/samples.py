"""`python -m remote.samples FOLDER`: real images to try tlvm on, without internet.

The handwritten digits that scikit-learn carries (1,797 images of 8 x 8 pixels, written by 13 people; E. Alpaydin and
C. Kaynak, UCI "Optical Recognition of Handwritten Digits", CC BY 4.0), one PNG file each, in one folder a class.
Nothing imports this module: it alone needs scikit-learn, which is on the user's computer, never on a machine.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_SIDE_PX = 32  # four times the original: large enough to look at


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m remote.samples", description="Write handwritten digits as PNG files."
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--digits", default="0-9", help="first and last, like 0-4")
    parser.add_argument("--each", type=int, default=200, help="at most so many images a digit")
    chosen = parser.parse_args(arguments)
    first, last = (int(digit) for digit in chosen.digits.split("-"))
    try:
        count = write(chosen.folder, range(first, last + 1), chosen.each)
    except ImportError:
        print("scikit-learn is not installed here; it comes with: pip install 'tlvm[train]'", file=sys.stderr)
        return 3
    print(count)
    return 0


def write(folder: Path, digits: range, each: int) -> int:
    """Write `<folder>/<name of the digit>/<number>.png`; returns how many files. Same call, same bytes."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    count = 0
    for digit in digits:
        place = folder / NAMES[digit]
        place.mkdir(parents=True, exist_ok=True)
        for number in np.flatnonzero(labels == digit)[:each]:
            _picture(images[number].reshape(8, 8)).save(place / f"{number:04d}.png")
            count += 1
    return count


def _picture(values: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> Image.Image:
    """Ink from 0 (none) to 16 becomes black on white."""
    grey = (255 - values * 255 / 16).round().astype(np.uint8)
    return Image.fromarray(grey).resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BICUBIC)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
