"""Photos that are much larger than any model sees: what sending them smaller would save, from a few of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from orchestrator.datasets.checks.convert import Conversion, prepared
from orchestrator.datasets.checks.judge import Unusable
from orchestrator.datasets.checks.signature import DEEP
from orchestrator.datasets.folder.reading import read
from orchestrator.datasets.folder.scan import Labelled, Scan
from remote.contract.wording import duration, size

RESIZE_PX = 512  # models see 224 to 384, and augmentation wants some more
BYTES_MIN = 50_000_000  # less travels in a minute anyhow
_LARGE = 2  # times RESIZE_PX, from which a photo is much larger
_SAVING_MIN = 0.5  # of the bytes
_MEASURED = 12  # files
_LINE_BITS_PER_S = 10_000_000


@dataclass(frozen=True)
class Offer:
    bytes_now: int
    bytes_then: int  # about
    resize_px: int

    @property
    def told(self) -> str:
        """What sending photos smaller would save."""
        now, then = (f"{size(n)} ({duration(n * 8 / _LINE_BITS_PER_S)} at 10 Mbit/s)" for n in self._bytes)
        return f"{now} as they are, or about {then} at {self.resize_px} px; most models see 224"

    @property
    def _bytes(self) -> tuple[int, int]:
        return self.bytes_now, self.bytes_then


def offer(scans: Sequence[Scan]) -> Offer | None:
    """None where little would be saved, or images are of more than 8 bits (whose values should be looked at first).

    Twelve files, evenly spread, are converted; what they save is taken for what all save.
    """
    total = sum(int(scan.files.numbers("size").sum()) for scan in scans)
    if total < BYTES_MIN:
        return None
    step = max(1, sum(len(scan.files) for scan in scans) // _MEASURED)
    starts = accumulate((len(scan.files) for scan in scans), initial=0)
    spread = [
        (os.fsencode(scan.root), scan.files[at])
        for scan, start in zip(scans, starts, strict=False)
        for at in range(-start % step, len(scan.files), step)
    ]
    measured = [found for place in spread[:_MEASURED] if (found := _measured(*place)) is not None]
    before = sum(now for now, _ in measured)
    if not before:
        return None
    share = sum(then for _, then in measured) / before
    return Offer(total, round(total * share), RESIZE_PX) if share <= 1 - _SAVING_MIN else None


def _measured(root: bytes, file: Labelled) -> tuple[int, int] | None:
    """Bytes as it is, and as it would be."""
    data = read(root, file)
    if not isinstance(data, bytes):
        return None
    as_it_is = prepared(data)[1]
    if isinstance(as_it_is, Unusable) or as_it_is.mode in DEEP:
        return None
    if max(as_it_is.width, as_it_is.height) < _LARGE * RESIZE_PX:
        return file.size, file.size
    return file.size, len(prepared(data, Conversion(resize_px=RESIZE_PX))[0])
