"""JPEG files are judged without making all their pixels, and nothing that Pillow refuses passes for it."""

from __future__ import annotations

import io
import random
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from orchestrator.datasets.checks import jpeg
from orchestrator.datasets.checks.judge import Unusable, Verdict, judge
from orchestrator.datasets.checks.signature import SIGNATURE_BYTES
from tests.shared_data import shared

TURNED = Image.Exif()
TURNED[274] = 6
CODINGS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "full colours": {"subsampling": 0, "quality": 95},
    "restarts": {"restart_marker_blocks": 4},
    "turned": {"exif": TURNED},
}


def photo() -> Image.Image:
    (first, *_) = sorted(shared("data/hymenoptera/train/bees").glob("*.jpg"))
    with Image.open(first) as image:
        return image.resize((160, 136))


def coded(image: Image.Image, **how: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", **how)
    return out.getvalue()


def damaged(data: bytes, chance: random.Random) -> Iterator[bytes]:
    for _ in range(40):
        yield data[: chance.randrange(len(data))]
        yield data[: -chance.randrange(1, 6)]
        for most in (700, len(data)):
            bent = bytearray(data)
            bent[chance.randrange(most)] = chance.randrange(256)
            yield bytes(bent)


def decoded(data: bytes) -> bool:
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(io.BytesIO(data), formats=["JPEG"]) as image,
        ):
            image.load()
    except Exception:  # noqa: BLE001  # whatever Pillow raises on damaged files
        return False
    return True


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("coding", CODINGS)
def test_what_pillow_cannot_decode_whole_is_refused(coding: str, mode: str) -> None:
    data = coded(photo().convert(mode), **CODINGS[coding])
    verdict = judge(data)
    assert isinstance(verdict, Verdict)
    turned = 6 if coding == "turned" else 1
    assert verdict[1:7] == ("jpg", 160, 136, mode, turned, 1)
    assert (jpeg.plain(data) is None) == (coding == "turned")
    chance = random.Random(f"{coding} {mode}")
    for bent in damaged(data, chance):
        assert isinstance(judge(bent), Verdict) == decoded(bent)


def test_metadata_changes_no_fingerprint_and_pixels_do() -> None:
    image = photo()
    plain, said = coded(image), coded(image, comment=b"by somebody", dpi=(72, 72))
    other = coded(image, quality=74)
    prints = [judge(data) for data in (plain, said, other)]
    near = [found.near for found in prints if isinstance(found, Verdict)]
    assert [len(one) for one in near] == [SIGNATURE_BYTES] * 3
    assert near[0] == near[1] != near[2]


def test_the_same_colours_meant_otherwise_are_another_picture() -> None:
    """A segment of Adobe says whether three channels are RGB: it counts as pixels do."""
    data = coded(photo())
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00%c"
    codes = [jpeg.checksum(data[:2] + adobe % transform + data[2:]) for transform in (0, 1)]
    assert len({jpeg.checksum(data), *codes}) == 3


@pytest.mark.parametrize("size", [(1, 1), (63, 9), (64, 64), (127, 200), (513, 512), (1100, 1030)])
def test_greys_have_the_pixels_that_a_fingerprint_needs(size: tuple[int, int]) -> None:
    data = coded(photo().resize(size))
    found = jpeg.plain(data)
    assert found is not None
    greys = jpeg.greys(data, found)
    assert greys is not None
    assert min(greys.size) >= min(jpeg.FINE, *size)
    assert max(greys.size) <= max(2 * jpeg.FINE * max(size) // min(size) + 1, -(-max(size) // 8))


def test_even_pictures_are_told_apart_by_all_their_pixels() -> None:
    """Of two greys that are nearly even little is left at the size of a fingerprint."""
    even = Image.new("RGB", (128, 128), (80, 80, 80))
    spotted = even.copy()
    spotted.putpixel((3, 3), (84, 84, 84))
    ways = (coded(even), coded(even, progressive=True), coded(spotted, quality=100, subsampling=0))
    near = [found.near for found in map(judge, ways) if isinstance(found, Verdict)]
    assert near[0] == near[1] != near[2]


@pytest.mark.parametrize("cut", [0, 3, 4, 6, 20, 200])
def test_heads_that_end_too_early_are_no_segments(cut: int) -> None:
    data = coded(photo())[:cut]
    assert jpeg.plain(data) is None
    assert jpeg.checksum(data) is None
    assert isinstance(judge(data), Unusable)
