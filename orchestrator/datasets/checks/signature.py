"""A small fingerprint of a picture, by which near copies find each other, and the 32 pixels that then decide.

Both are of the picture as people see it: turned as EXIF says, on white where it is transparent (icons whose colours
are all black differ in their transparency only). Mirrored, turned or cut copies have other fingerprints.

numpy is loaded for images of more than 8 bits only, as in `judge` and `convert`: it is half of what a worker loads.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, cast

from PIL import Image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WIDTH, HEIGHT = 9, 8  # a difference hash compares neighbours: 8 × 8 bits
SIGNATURE_BYTES = WIDTH * HEIGHT + 4
FINGERPRINT = 4  # changes with the way it is taken
SIDE = 32  # pixels, of the picture that decides
ENOUGH_PX = 8 * SIDE  # of the shorter side, from which that follows to within two grey levels
DEEP = frozenset({"I;16", "I;16B", "I;16L", "I;16N", "I", "F"})
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_FINE = 64  # pixels of either side to which a larger picture is first averaged
_EVEN = 2  # grey levels: what differs less at 64 pixels may be noise that was averaged away
# Percent of values on either side that may be anything: hot pixels, stars, what is not a number.
_OUTLIERS = 0.5
_PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}


def signature(image: Image.Image, orientation: int) -> bytes:
    """9 × 8 grey averages, and a checksum of the picture at 64 to 127 pixels. `image` is loaded.

    Whole pixels are averaged, which takes a fraction of the time that decoding took. The checksum is of all pixels
    where nothing is left of the picture at that size: two even greys need not be the same picture.
    """
    plain = flat(image)
    small = _turned(plain.reduce(max(1, min(plain.size) // _FINE)), orientation)
    exact = _turned(plain, orientation) if _is_even(small) else small
    grey = _stretched(small) if small.mode == "F" else small.convert("L")
    averages = grey.resize((WIDTH, HEIGHT), Image.Resampling.BOX).tobytes()
    size = b"%dx%d" % (image.size if orientation < 5 else image.size[::-1])
    return averages + zlib.crc32(exact.tobytes(), zlib.crc32(size)).to_bytes(4, "big")


def signature_of_greys(greys: Image.Image, size: tuple[int, int], orientation: int, coded: int) -> bytes:
    """The same of a JPEG's `greys` (`checks.jpeg`), with a checksum of what its pixels follow from instead of theirs.

    size            of the whole picture, pixels
    coded           that checksum
    b""             nearly even: its pixels must tell
    """
    low, high = cast(tuple[int, int], greys.getextrema())
    if high - low <= _EVEN:
        return b""
    averages = _turned(greys, orientation).resize((WIDTH, HEIGHT), Image.Resampling.BOX).tobytes()
    return averages + zlib.crc32(b"%dx%d %d" % (*size, orientation), coded).to_bytes(4, "big")


def pixels(
    image: Image.Image, orientation: int, *, extent: tuple[float, float] | None = None
) -> NDArray[np.uint8] | NDArray[np.float32]:
    """32 × 32 × 3, as the values are: 16-bit and float images are not scaled.

    extent          width and height of what `image` shows, in its pixels, where the last ones lie partly outside
    """
    import numpy as np

    plain = flat(image)
    deep = plain.mode == "F"
    if min(plain.size) > _FINE:
        values = _averaged(plain, extent or plain.size)
        small = Image.fromarray(values if deep else np.rint(values).astype(np.uint8))
    else:
        small = plain.resize((SIDE, SIDE), Image.Resampling.BOX)
    turned = np.asarray(_turned(small if deep else small.convert("RGB"), orientation))
    return np.repeat(turned[:, :, np.newaxis], 3, axis=2) if deep else turned


def flat(image: Image.Image) -> Image.Image:
    """Grey ("L"), colour ("RGB"), or float ("F") of an image of any mode; what is transparent becomes white."""
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if image.mode in DEEP:
        import numpy as np

        return Image.fromarray(np.nan_to_num(np.asarray(image, dtype=np.float32)))
    if image.has_transparency_data or image.mode in _PREMULTIPLIED:
        straight = image.convert(_PREMULTIPLIED.get(image.mode, image.mode)).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), straight).convert("RGB")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _averaged(image: Image.Image, extent: tuple[float, float]) -> NDArray[np.float32]:
    """32 × 32, or 32 × 32 × 3: the exact averages of as many equal parts.

    Pillow's box takes pixels whole, so that the parts of a copy of another size are not quite the same.
    """
    import numpy as np

    across, down = (max(1, size // ENOUGH_PX) for size in image.size)
    values = np.asarray(image.reduce((across, down)), dtype=np.float32)
    columns = _shares(extent[0] / across, values.shape[1])
    lines = _shares(extent[1] / down, values.shape[0])
    averaged: NDArray[np.float32] = columns @ (lines @ values.reshape(len(values), -1)).reshape(
        SIDE, values.shape[1], -1
    )
    return averaged.reshape(SIDE, SIDE, *values.shape[2:])


def _shares(extent: float, count: int) -> NDArray[np.float32]:
    """32 × count: how much of a part each of `count` pixels is."""
    import numpy as np

    edges = np.linspace(0, extent, SIDE + 1)[:, np.newaxis]
    starts = np.arange(count)
    shared = np.minimum(edges[1:], starts + 1) - np.maximum(edges[:-1], starts)
    return (shared.clip(0) * (SIDE / extent)).astype(np.float32)


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    turn = TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def _is_even(image: Image.Image) -> bool:
    if image.mode == "F":
        return False  # its averages are not rounded
    extremes = [cast(tuple[int, int], band.getextrema()) for band in image.split()]
    return all(high - low <= _EVEN for low, high in extremes)


def _stretched(image: Image.Image) -> Image.Image:
    """Float values over their own range, outliers aside, as grey: only for finding, never for deciding."""
    import numpy as np

    values = np.asarray(image)
    low, high = np.percentile(values, (_OUTLIERS, 100 - _OUTLIERS)).tolist()
    inside = np.clip(values, low, high)
    return Image.fromarray(((inside - low) * (255 / max(high - low, 1e-12))).astype(np.uint8))
