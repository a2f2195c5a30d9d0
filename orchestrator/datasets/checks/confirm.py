"""The second step of finding near copies: candidates are decoded again and compared by their pixels."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from PIL import Image

from orchestrator.datasets.checks import near_memory
from orchestrator.datasets.checks.checked import Checked, Images
from orchestrator.datasets.checks.convert import AS_IT_IS, Conversion, travelling
from orchestrator.datasets.checks.judge import BROKEN, KNOWN
from orchestrator.datasets.checks.near import (
    LIKELY,
    Near,
    Pair,
    Small,
    StandIns,
    candidates,
    candidates_of,
    compare,
)
from orchestrator.datasets.checks.near_memory import Compared
from orchestrator.datasets.checks.signature import ENOUGH_PX, SIGNATURE_BYTES, pixels
from orchestrator.datasets.checks.workers import cores
from orchestrator.datasets.columns.hashes import Hashes, distinct, is_among
from orchestrator.datasets.folder.reading import read
from orchestrator.progress import Progress

_BAR_FROM = 200  # files: fewer are looked at in a moment, unless they are large
_BAR_FROM_PIXELS = 100_000_000

Bytes = Callable[[Checked], bytes | None]


def near_copies(
    images: Images,
    root: Path,
    progress: Progress,
    *,
    conversion: Conversion = AS_IT_IS,
    remembered: Path | None = None,
) -> Near:
    """Which contents of a dataset look the same, in all splits and classes. Files that have gone meanwhile are not.

    remembered      a folder for what was found: contents are compared with new ones only, and no pair again
    """
    hashes, first, _ = distinct(images.verdicts.hashes("sha256"))
    fingerprints = images.verdicts.columns["near"].table(SIGNATURE_BYTES)
    same = StandIns.found(hashes, fingerprints, first)
    alone = np.flatnonzero(same.of(hashes) == hashes)
    contents, first = hashes[alone], first[alone]
    before = near_memory.load(remembered, root)
    errors = before.among(contents)
    if np.array_equal(contents, before.contents):
        return Near(_close(errors), same, before.searched)
    fingerprints = fingerprints[first]
    new = np.flatnonzero(~is_among(contents, before.contents))
    some = candidates_of(new, fingerprints) if before.searched else None
    alike, searched = some or candidates(fingerprints)
    names = Hashes.of(contents)
    todo = [(one, other) for one, other in alike if (names[one], names[other]) not in errors]
    folder = os.fsencode(root)

    def data(image: Checked) -> bytes | None:
        content = read(folder, image.file)
        if not isinstance(content, bytes):
            return None
        return travelling(content, conversion) if image.verdict.size else content

    wanted = {at for pair in todo for at in pair}
    small = _decoded([images[int(first[at])] for at in sorted(wanted)], data, progress)
    for one, other in ((names[one], names[other]) for one, other in todo):
        if one in small and other in small:
            errors[one, other] = compare(small[one], small[other])
    gone = [at for at in wanted if names[at] not in small]
    near_memory.keep(remembered, root, Compared(np.delete(contents, gone), searched, errors))
    return Near(_close(errors), same, searched)


def _close(errors: Mapping[tuple[str, str], float]) -> list[Pair]:
    return [Pair(*pair, error) for pair, error in sorted(errors.items()) if error < LIKELY]


def _decoded(images: Sequence[Checked], data: Bytes, progress: Progress) -> dict[str, Small]:
    """Threads are enough: Pillow decodes outside the interpreter's lock, and each file was decoded once already."""
    if not images:
        return {}
    pixels = sum(image.verdict.width * image.verdict.height for image in images)
    is_long = len(images) >= _BAR_FROM or pixels >= _BAR_FROM_PIXELS
    with (
        ThreadPoolExecutor(cores(), thread_name_prefix="near") as pool,
        progress.bar("near", len(images), "images") if is_long else nullcontext() as bar,
    ):

        def small(image: Checked) -> Small | None:
            if bar:
                bar.advance()
            return _small(image, data)

        found = zip(images, pool.map(small, images), strict=True)
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
                smaller = opened.draft(None, (ENOUGH_PX, ENOUGH_PX))  # of a JPEG; None of other formats
                opened.load()
                return pixels(opened, image.verdict.orientation, extent=smaller and smaller[1][2:])
    except BROKEN:
        return None  # it is another file by now
