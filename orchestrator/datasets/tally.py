"""How many images of which split, class and size: what every command may ask, without loading what decodes images."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import starmap

from remote.contract.dataset_manifest import Image, values

SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)  # pixels of the longer side


def counts(images: Sequence[Image]) -> dict[str, dict[str, int]]:
    """Images by split and class; those left out of training do not count."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for (split, label, excluded), times in Counter(values(images, "split", "class_name", "excluded")).items():
        if excluded is None:
            found[split][label] += times
    return {split: dict(sorted(found[split].items())) for split in ("train", "val", "test") if split in found}


def longer_sides(images: Sequence[Image]) -> dict[str, int]:
    """How many images are how large: {"up to 512": 900}, by the pixels of the longer side."""
    found: Counter[int] = Counter()
    for longer, times in Counter(starmap(max, values(images, "width", "height"))).items():
        found[next((limit for limit in SIZES if longer <= limit), 0)] += times
    rows = {f"up to {limit}": found[limit] for limit in SIZES if found[limit]}
    return rows | ({f"over {SIZES[-1]}": found[0]} if found[0] else {})
