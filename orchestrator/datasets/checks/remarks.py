"""What the user is told of a dataset that can be used, in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from orchestrator.datasets.checks import findings
from orchestrator.datasets.checks.check import Outcome
from orchestrator.datasets.checks.checked import Images
from orchestrator.datasets.folder.scan import Scan
from orchestrator.datasets.publishing.plan import Plan
from orchestrator.datasets.splits import grouping
from remote.contract.wording import count

_FORMATS = {
    "jpg": ("JPEG", (b"jpg", b"jpeg", b"jpe", b"jfif")),
    "png": ("PNG", (b"png",)),
    "tif": ("TIFF", (b"tif", b"tiff")),
}  # that images are converted to, with the endings that say so


def remarks(scan: Scan, outcome: Outcome, planned: Plan) -> list[str]:
    images = planned.manifest.images
    said = [*scan.warnings, *findings.warnings(images), *grouping.too_few(images)]
    if not outcome.near.searched:
        said.append("So many images look alike that near copies were sought among the most alike only")
    if hint := grouping.suggestion(scan.files):
        said.append(hint)
    if planned.kept:
        said.append(
            f"Kept, although this folder lacks them: {count(len(planned.kept), 'image')} that the store has"
        )
    said += _in_other_formats(outcome.images)
    if planned.manifest.split_source == "hash" and any(image.split == "val" for image in images):
        said.append("No val folder: a fifth of each class, chosen by content, is val and stays val")
    return said


def _in_other_formats(images: Images) -> Iterator[str]:
    """Of images that were converted, those whose names say another format than they travel in."""
    codes, sizes = images.verdicts.codes("size")  # 0: not converted
    converted = np.flatnonzero(np.array(sizes, dtype=np.int64)[codes])
    paths, extensions = images.files.picked(converted, "path"), images.verdicts.picked(converted, "extension")
    found = Counter(
        (extension, path.rpartition(b".")[2].lower())
        for (path,), (extension,) in zip(paths, extensions, strict=True)
    )
    for extension, (form, usual) in _FORMATS.items():
        named = [
            f"{count(number, 'image')} named .{ending.decode()}"
            for (into, ending), number in sorted(found.items())
            if into == extension and ending not in usual
        ]
        if named:
            yield f"Sent as {form}, and downloaded as such: {', '.join(named)}"
