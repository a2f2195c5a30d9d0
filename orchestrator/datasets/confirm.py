"""The second step of finding near copies: candidates are decoded again and compared by their pixels."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from PIL import Image

from orchestrator.progress import Progress

from .judge import BROKEN, Verdict
from .near import LIKELY, Near, Pair, Small, candidates, compare
from .reading import read
from .scan import Labelled
from .signature import pixels

_BAR_FROM = 200  # files: fewer are looked at in a moment


class Checked(Protocol):
    """A usable image."""

    @property
    def file(self) -> Labelled: ...

    @property
    def verdict(self) -> Verdict: ...


Bytes = Callable[[Checked], bytes | None]


def near_copies(images: Sequence[Checked], root: Path, progress: Progress) -> Near:
    """Which contents of a dataset look the same, in all splits and classes. Files that have gone meanwhile are not."""
    place = os.fsencode(root)

    def data(image: Checked) -> bytes | None:
        found = read(place, image.file)
        return found if isinstance(found, bytes) else None

    unique = list({image.verdict.sha256: image for image in images}.values())
    found = candidates([image.verdict.near for image in unique])
    wanted = sorted({at for pair in found.alike for at in pair})
    small = _decoded([unique[at] for at in wanted], data, progress)
    pairs = []
    for at_one, at_other in found.alike:
        one, other = sorted((unique[at_one].verdict.sha256, unique[at_other].verdict.sha256))
        if one in small and other in small and (error := compare(small[one], small[other])) < LIKELY:
            pairs.append(Pair(one, other, error))
    same = {unique[at].verdict.sha256: unique[first].verdict.sha256 for first, at in found.same}
    return Near(sorted(pairs, key=lambda pair: (pair.one, pair.other)), same, found.searched)


def _decoded(images: Sequence[Checked], data: Bytes, progress: Progress) -> dict[str, Small]:
    """Threads are enough: Pillow decodes outside the interpreter's lock, and each file was decoded once already."""
    if not images:
        return {}
    if len(images) < _BAR_FROM:
        return _gathered(images, (_small(image, data) for image in images))
    with (
        ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="near") as pool,
        progress.bar("near", len(images), "images") as bar,
    ):

        def small(image: Checked) -> Small | None:
            bar.advance()
            return _small(image, data)

        return _gathered(images, pool.map(small, images))


def _gathered(images: Sequence[Checked], smalls: Iterable[Small | None]) -> dict[str, Small]:
    found = zip(images, smalls, strict=True)
    return {image.verdict.sha256: small for image, small in found if small is not None}


def _small(image: Checked, data: Bytes) -> Small | None:
    found = data(image)
    if found is None:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(found)) as opened:
                opened.seek(image.verdict.page)
                opened.load()
                return pixels(opened, image.verdict.orientation)
    except BROKEN:
        return None  # it is another file by now
