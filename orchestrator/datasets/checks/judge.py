"""One image: is it one, can all of it be decoded, what is it? Runs in worker processes, on untrusted bytes.

`load()`, not `verify()`, decides: `verify()` passes JPEG files that end too early. Truncated files are refused,
never filled up with grey.
"""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from orchestrator.datasets.checks import jpeg
from orchestrator.datasets.checks.signature import DEEP, signature, signature_of_greys

PIXELS_MAX = 89_478_485  # where Pillow begins to warn of a decompression bomb; 256 MiB of RGB
SAMPLES = 1024  # pixels of a 16-bit or float image that stand for it
_ORIENTATION = 274  # EXIF tag
_EXTENSIONS = {
    "JPEG": "jpg",
    "MPO": "jpg",
    "PNG": "png",
    "WEBP": "webp",
    "BMP": "bmp",
    "DIB": "bmp",
    "PPM": "ppm",
    "TIFF": "tif",
}
KNOWN = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF", "GIF")  # no other decoder ever sees the bytes
PNG_END = b"IEND\xaeB`\x82"
BROKEN = (  # all that Pillow's decoders were seen to raise on damaged files
    OSError,
    ValueError,
    SyntaxError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    RuntimeError,
    MemoryError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class Verdict(NamedTuple):
    """What an image is; a function of its bytes and of the page that counts."""

    sha256: str
    extension: str  # of its real format, whatever its name says: "jpg"
    width: int  # pixels, as stored
    height: int
    mode: str  # of Pillow
    orientation: int  # EXIF, 1 to 8
    pages: int
    sample: bytes  # of DEEP images: SAMPLES values, float32; else empty
    near: bytes = b""  # the fingerprint by which near copies are found (`signature`)
    page: int = 0  # the one that counts
    size: int = 0  # bytes, of an image that was converted; 0: as the file is


@dataclass(frozen=True, slots=True)
class Unusable:
    reason: str


def judge(data: bytes, *, page: int | None = None, sha256: str = "") -> Verdict | Unusable:
    """Decode all of an image. Never raises for what is in `data`.

    page            from 1: which one counts, of a file that holds several
    sha256          of `data`, where it is known
    """
    if not data:
        return Unusable("empty file")
    if data.startswith(b"version https://git-lfs"):
        return Unusable("a pointer of git-lfs, not the image: run `git lfs pull`")
    sha256 = sha256 or hashlib.sha256(data).hexdigest()
    if found := _plain_jpeg(data, sha256):
        return found
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _decode(data, page, sha256)
    except UnidentifiedImageError:
        return Unusable("not an image, whatever its name says")
    except Image.DecompressionBombError:
        return Unusable(f"more than {PIXELS_MAX:,} pixels: make it smaller")
    except BROKEN as error:
        return Unusable(f"can't be decoded: {one_line(error)}")


def _plain_jpeg(data: bytes, sha256: str) -> Verdict | None:
    """The verdict of `_decode`, of most JPEG files at a fraction of the time; None: `_decode` tells."""
    found = jpeg.plain(data)
    if found is None or found.size[0] * found.size[1] > PIXELS_MAX:
        return None
    greys = jpeg.greys(data, found)
    near = greys and signature_of_greys(greys, found.size, 1, found.coded)
    return Verdict(sha256, "jpg", *found.size, found.mode, 1, 1, b"", near) if near else None


def _decode(data: bytes, page: int | None, sha256: str, *, whole: bool = False) -> Verdict | Unusable:
    """`whole`: all pixels are wanted, not only the greys that tell JPEG pictures apart."""
    with Image.open(io.BytesIO(data), formats=KNOWN) as image:
        form = image.format or ""
        width, height = image.size
        if form not in _EXTENSIONS:
            return Unusable(f"{form} is not taken as a photo, whatever its name says")
        if width * height > PIXELS_MAX:
            return Unusable(f"{width * height:,} pixels, more than {PIXELS_MAX:,}: make it smaller")
        if width * height == 0:
            return Unusable("no pixels")
        pages = int(getattr(image, "n_frames", 1))
        chosen = 0
        if pages > 1 and form != "MPO":  # of MPO the first picture is the photo, the others are previews
            what = "pages" if form == "TIFF" else "frames"
            if page is None:
                return Unusable(f"{pages} {what}: say which one counts, --page N or --page max")
            if page > pages:
                return Unusable(f"{pages} {what}: there is no page {page}")
            chosen = page - 1
            image.seek(chosen)
            width, height = image.size
        mode = image.mode
        coded = None if whole or form != "JPEG" or mode not in ("L", "RGB") else jpeg.checksum(data)
        if coded is not None:
            image.draft("L", (jpeg.FINE, jpeg.FINE))
        image.load()
        if form == "PNG" and PNG_END not in data:
            return Unusable("can't be decoded: it ends too early")  # Pillow does not look at the last bytes
        sample = _sample(image) if image.mode in DEEP else b""
        if image.mode in DEEP and not sample:
            return Unusable("no finite pixel")
        turned = orientation(image)
        if coded is None:
            mode, near = image.mode, signature(image, turned)
        elif not (near := signature_of_greys(image, (width, height), turned, coded)):
            return _decode(data, page, sha256, whole=True)
        return Verdict(sha256, _EXTENSIONS[form], width, height, mode, turned, pages, sample, near, chosen)


def orientation(image: Image.Image) -> int:
    """1, "as it is", where EXIF says nothing, nonsense, or is broken: the pixels are sound all the same."""
    if image.format == "JPEG" and "exif" not in image.info and "xmp" not in image.info:
        return 1  # nothing to parse, which small files are quick to tell
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except BROKEN:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _sample(image: Image.Image) -> bytes:
    """Pixels spread evenly by the golden ratio: no generator whose stream may change, no beat with the rows."""
    import numpy as np

    values = np.asarray(image).astype(np.float32).ravel()
    places = ((np.arange(SAMPLES) + 0.5) * 0.6180339887498949 % 1 * values.size).astype(np.int64)
    chosen = values[places]
    return chosen[np.isfinite(chosen)].tobytes()


def one_line(error: BaseException) -> str:
    """What Pillow says, without the address of the buffer that it may name."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:120] if "<_io" not in text else type(error).__name__
