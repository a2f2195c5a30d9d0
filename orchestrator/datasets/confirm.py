"""The second step of finding near copies: candidates are decoded again and compared by their pixels."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from PIL import Image

from orchestrator.progress import Progress

from .convert import AS_IT_IS, Conversion, prepared
from .judge import BROKEN, KNOWN, Verdict
from .near import LIKELY, Near, Pair, Small, candidates, compare, stand_ins
from .near_memory import Memory
from .reading import read
from .scan import Labelled
from .signature import pixels

_HASHED_AT_ONCE = 1000
_BAR_FROM = 200  # files: fewer are looked at in a moment


class Checked(Protocol):
    """A usable image."""

    @property
    def file(self) -> Labelled: ...

    @property
    def verdict(self) -> Verdict: ...


Bytes = Callable[[Checked], bytes | None]


def near_copies(
    images: Sequence[Checked],
    root: Path,
    progress: Progress,
    *,
    conversion: Conversion = AS_IT_IS,
    remembered: Path | None = None,
) -> Near:
    """Which contents of a dataset look the same, in all splits and classes. Files that have gone meanwhile are not.

    remembered      a folder for what was found: the same contents are not searched again, nor pairs compared again
    """
    unique = {image.verdict.sha256: image for image in images}
    hashes = sorted(unique)
    memory = Memory(remembered, root)
    same = stand_ins((sha256, unique[sha256].verdict.near) for sha256 in hashes)
    key = _key(hashes)
    if (found := memory.known(key)) is not None:
        return Near(found.pairs, same, found.searched)
    unequal = [sha256 for sha256 in hashes if sha256 not in same] if same else hashes
    alike, searched = candidates([unique[sha256].verdict.near for sha256 in unequal])
    place = os.fsencode(root)

    def data(image: Checked) -> bytes | None:
        content = read(place, image.file)
        return prepared(content, conversion)[0] if isinstance(content, bytes) else None

    pairs = [(unequal[one], unequal[other]) for one, other in alike]
    errors = {pair: error for pair in pairs if (error := memory.error(pair)) is not None}
    wanted = sorted({sha256 for pair in pairs if pair not in errors for sha256 in pair})
    small = _decoded([unique[sha256] for sha256 in wanted], data, progress)
    for one, other in pairs:
        if (one, other) not in errors and one in small and other in small:
            errors[one, other] = compare(small[one], small[other])
    close = [Pair(*pair, error) for pair, error in sorted(errors.items()) if error < LIKELY]
    memory.keep(key, close, errors, searched=searched)
    return Near(close, same, searched)


def _key(hashes: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for start in range(0, len(hashes), _HASHED_AT_ONCE):
        digest.update("".join(hashes[start : start + _HASHED_AT_ONCE]).encode())
    return digest.hexdigest()


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
            with Image.open(io.BytesIO(found), formats=KNOWN) as opened:
                opened.seek(image.verdict.page)
                opened.load()
                return pixels(opened, image.verdict.orientation)
    except BROKEN:
        return None  # it is another file by now
