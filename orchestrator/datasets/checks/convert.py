"""What becomes of an image before it travels: nothing, unless the user asks, or no machine could read it.

* HEIC and AVIF always travel as JPEG (quality 95; PNG where parts are transparent), turned upright: a machine has
  Pillow, perhaps an old one, and never a decoder for HEIC.
* `resize_px`: the longer side, by Lanczos, turned upright. Images that are smaller stay byte for byte.
* `page`: of a file with several the one that counts, "max" for the brightest value of each pixel over all pages.
  A chosen page is named in the manifest and the file travels whole; what "max" makes travels as PNG or TIFF.
* `strip_metadata`: EXIF (but for the rotation, which is applied), XMP, comments and thumbnails go; a JPEG is encoded
  again for it. The colour profile stays, for it changes the picture.

JPEG stays JPEG and lossy WebP becomes it (quality 95, colours at full resolution); everything else, lossless WebP too,
becomes PNG, 16 bits and transparency included, or TIFF where values are floats. The same file gives the same bytes as
long as Pillow and `ENCODING` are the same.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import warnings
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from orchestrator.datasets.checks.judge import (
    BROKEN,
    KNOWN,
    PIXELS_MAX,
    PNG_END,
    Unusable,
    Verdict,
    judge,
    one_line,
    orientation,
)
from orchestrator.datasets.checks.signature import DEEP, TURNS

MAX: Literal["max"] = "max"
QUALITY = 95
ENCODING = 2  # changes with the bytes that the same file becomes
_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1", b"avif", b"avis")
_LOSSY = ("JPEG", "MPO", "WEBP", "HEIF", "AVIF")


@dataclass(frozen=True)
class Conversion:
    """What the user asked for; the default changes nothing but HEIC and AVIF.

    For an upload None is "as the last time", and 0 or False "as they are"; `after` leaves none of these open.
    """

    resize_px: int | None = None  # of the longer side
    page: int | Literal["max"] | None = None  # from 1, as people count
    strip_metadata: bool | None = None

    @property
    def how(self) -> str:
        """Names the way of looking at images, for what is remembered of them; `of` reads it."""
        return "" if self == Conversion() else json.dumps(dataclasses.asdict(self), sort_keys=True)

    def after(self, last: Conversion) -> Conversion:
        """What is done now where `last` was done before."""
        return Conversion(
            (last.resize_px if self.resize_px is None else self.resize_px) or None,
            (last.page if self.page is None else self.page) or None,
            (last.strip_metadata if self.strip_metadata is None else self.strip_metadata) or None,
        )

    @staticmethod
    def of(how: str) -> Conversion:
        return Conversion(**json.loads(how)) if how else AS_IT_IS


AS_IT_IS = Conversion()


class _Unlike(Exception):
    """Pages that can't be laid over each other."""


def prepared(
    data: bytes, conversion: Conversion = AS_IT_IS, *, sha256: str = ""
) -> tuple[bytes, Verdict | Unusable]:
    """The bytes that travel, and what they are. Never raises for what is in `data`.

    sha256          of `data`, where it is known
    """
    page = conversion.page if isinstance(conversion.page, int) else None
    modern = _is_modern(data)
    if not modern and conversion == AS_IT_IS:
        return data, judge(data, sha256=sha256)
    converted = _guarded(data, conversion, modern=modern)
    if converted is None:
        return data, judge(data, page=page, sha256=sha256)
    found = judge(converted) if isinstance(converted, bytes) else converted
    if isinstance(found, Unusable) or isinstance(converted, Unusable):
        return data, found
    return converted, found._replace(size=len(converted))


def travelling(data: bytes, conversion: Conversion) -> bytes:
    """The bytes that travel, of a file whose verdict says that it is converted (`size`): it is not judged again."""
    converted = _guarded(data, conversion, modern=_is_modern(data))
    return converted if isinstance(converted, bytes) else data


def _is_modern(data: bytes) -> bool:
    return data[4:8] == b"ftyp" and data[8:12] in _BRANDS


def _guarded(data: bytes, conversion: Conversion, *, modern: bool) -> bytes | Unusable | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            formats = _modern_formats() if modern else KNOWN
            with Image.open(io.BytesIO(data), formats=formats) as image:
                return _converted(image, data, conversion, modern=modern)
    except _Unlike as error:
        return Unusable(str(error))
    except BROKEN as error:
        return Unusable(f"can't be decoded: {one_line(error)}") if modern else None


@functools.cache
def _modern_formats() -> tuple[str, ...]:
    import pillow_heif  # 20 ms, and most datasets hold no HEIC

    pillow_heif.register_heif_opener(thumbnails=False)
    return ("HEIF", "AVIF")


def _converted(
    image: Image.Image, data: bytes, conversion: Conversion, *, modern: bool
) -> bytes | Unusable | None:
    """None where nothing is to be done, or where `judge` says what is wrong."""
    width, height = image.size
    pages = 1 if image.format in ("MPO", "HEIF") else int(getattr(image, "n_frames", 1))
    too_large = width * height * (pages if conversion.page == MAX else 1) > PIXELS_MAX
    if too_large or (pages > 1 and conversion.page is None):
        return _refused(width * height, pages) if modern else None
    cut = image.format == "PNG" and PNG_END not in data
    missing = isinstance(conversion.page, int) and 1 < pages < conversion.page
    longer = conversion.resize_px or 0
    shrink = 0 < longer < max(width, height)
    merge = pages > 1 and conversion.page == MAX
    if cut or missing or not (modern or shrink or merge or conversion.strip_metadata):
        return None
    if isinstance(conversion.page, int) and pages > 1:
        image.seek(conversion.page - 1)
    if shrink and image.format == "JPEG":
        image.draft(None, (2 * longer, 2 * longer))  # decodes a half, a quarter or an eighth of the pixels
    picture = _brightest(image, pages) if merge else _plain(image)
    if shrink:
        picture = _resized(picture, longer)
    lossy = image.format in _LOSSY and not merge and not _is_lossless_webp(data)
    return _encoded(picture, image.info.get("icc_profile"), lossy=lossy)


def _refused(pixels: int, pages: int) -> Unusable:
    if pixels > PIXELS_MAX:
        return Unusable(f"{pixels:,} pixels, more than {PIXELS_MAX:,}: make it smaller")
    return Unusable(f"{pages} frames: say which one counts, --page N or --page max")


def _plain(image: Image.Image) -> Image.Image:
    """Upright, and of a mode that can be resized: L, LA, RGB, RGBA, or F for more than 8 bits."""
    image.load()
    turn = TURNS.get(orientation(image))
    upright = image if turn is None else image.transpose(turn)
    if upright.mode in DEEP:
        return upright
    if upright.has_transparency_data:
        return upright.convert("LA" if upright.mode == "LA" else "RGBA")
    return upright if upright.mode in ("L", "RGB") else upright.convert("L" if upright.mode == "1" else "RGB")


def _brightest(image: Image.Image, pages: int) -> Image.Image:
    """The largest value of each pixel over all pages (a maximum intensity projection)."""
    import numpy as np

    image.seek(0)
    first = _plain(image)
    most = np.asarray(first)
    for page in range(1, pages):
        image.seek(page)
        values = np.asarray(_plain(image))
        if values.shape != most.shape or values.dtype != most.dtype:
            raise _Unlike(f"its page {page + 1} is of another size or kind than page 1: choose one, --page N")
        most = np.maximum(most, values)
    return Image.fromarray(most)


def _resized(image: Image.Image, longer: int) -> Image.Image:
    share = longer / max(image.size)
    size = (max(1, round(image.width * share)), max(1, round(image.height * share)))
    if image.mode not in DEEP:
        return image.resize(size, Image.Resampling.LANCZOS)
    import numpy as np

    values = np.asarray(image)
    smooth = Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.LANCZOS)
    if values.dtype.kind == "f":
        return smooth
    return Image.fromarray(
        np.clip(np.rint(np.asarray(smooth)), values.min(), values.max()).astype(values.dtype)
    )


def _is_lossless_webp(data: bytes) -> bool:
    """By its chunks, of which those with the metadata may come first; Pillow does not tell."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return False
    at = 12
    while at < len(data) and data[at : at + 4] not in (b"VP8 ", b"VP8L"):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        is_frame = data[at : at + 4] == b"ANMF"  # whose picture is a chunk inside, after 16 bytes of its own
        at += 8 + (16 if is_frame else size + size % 2)
    return data[at : at + 4] == b"VP8L"


def _encoded(image: Image.Image, profile: bytes | None, *, lossy: bool) -> bytes:
    """Without metadata but for the profile of the colours."""
    out = io.BytesIO()
    kept = profile if image.mode in ("RGB", "RGBA") else None
    if image.mode in DEEP and image.mode not in ("I;16", "I;16L", "I;16B", "I;16N"):
        image.save(out, "TIFF", compression="tiff_adobe_deflate")
    elif lossy and image.mode in ("L", "RGB"):
        image.info.clear()  # comments and EXIF are kept otherwise
        image.save(out, "JPEG", quality=QUALITY, subsampling=0, icc_profile=kept)
    else:
        image.info.clear()
        image.save(out, "PNG", icc_profile=kept)
    return out.getvalue()
