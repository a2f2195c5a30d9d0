"""The images of a dataset version, in columns."""

from __future__ import annotations

from bisect import bisect_left

from orchestrator.datasets.columns.hashes import Hashes
from orchestrator.datasets.columns.numbers import Numbers
from orchestrator.datasets.columns.rows import Form, Rows
from orchestrator.datasets.columns.texts import Texts
from orchestrator.datasets.columns.words import Words
from remote.contract.dataset_manifest import Image

IMAGES = Form(
    Image,
    path=Texts,
    split=Words,
    class_name=Words,
    label_source=Words,
    group=Words,
    size=Numbers,
    sha256=Hashes,
    mtime_ns=Numbers,
    width=Words,
    height=Words,
    orientation=Words,
    pages=Words,
    page=Words,
    mode=Words,
    pack=Words,
    offset=Numbers,
    excluded=Words,
)


def at_path(images: Rows[Image], path: str) -> Image | None:
    """Of images in path order the one there."""
    paths = images.columns["path"]
    at = bisect_left(paths, path)
    return images[at] if at < len(paths) and paths[at] == path else None
