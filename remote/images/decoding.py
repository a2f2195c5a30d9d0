"""From the bytes of an image file to upright RGB pixels, 8 bits a channel, for every kind of file that Pillow reads.

What Pillow's own `convert("RGB")` gets wrong, without a word: 16-bit grey comes out all white and floats all black,
rotation by EXIF is not applied, transparent images show the colours that were hidden.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

# What Pillow's decoders raise for damaged files; DecompressionBombError is not an OSError.
UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    ZeroDivisionError,
    struct.error,
    Image.DecompressionBombError,
)

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}


class Unreadable(Exception):
    """The file is not an image that can be used; the text says why."""


def decode(data: bytes | memoryview, *, page: int = 0, window: Sequence[float] | None = None) -> Image.Image:
    """The image as RGB, turned as its EXIF says, transparent parts on white.

    page        which image of a file that holds several
    window      the values of 16-bit and float images that become black and white, the same for a whole dataset
    Unreadable  a damaged file, or more than 8 bits without a window
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            if page:
                image.seek(page)
            image.load()
            return _rgb(_upright(image), window)
    except UnidentifiedImageError:  # whose own words are the address of a buffer
        raise Unreadable("not an image, or one of a kind that can't be read") from None
    except UNREADABLE as error:
        raise Unreadable(f"{type(error).__name__}: {error}"[:300]) from None


def _upright(image: Image.Image) -> Image.Image:
    """Read after `load()`: TIFF turns itself there, and then says so."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except UNREADABLE:
        orientation = 1  # the pixels are whole; only the block of EXIF beside them can't be parsed
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image, window: Sequence[float] | None) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _windowed(image, window)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.copy() if image.readonly else image
    if image.has_transparency_data or image.mode in _PREMULTIPLIED:
        straight = image.convert(_PREMULTIPLIED.get(image.mode, image.mode)).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), straight).convert("RGB")
    return image.convert("RGB")


def _windowed(image: Image.Image, window: Sequence[float] | None) -> Image.Image:
    if window is None:
        raise Unreadable(
            f"it has more than 8 bits a pixel (mode {image.mode}), and its dataset was checked without any such "
            "image, so that nothing says which values are black and white"
        )
    low, high = window
    values = np.nan_to_num(np.asarray(image, dtype=np.float32))
    share = np.clip((values - low) / max(high - low, 1e-12), 0.0, 1.0)
    grey = Image.fromarray(np.round(share * 255.0).astype(np.uint8))
    return grey.convert("RGB")
