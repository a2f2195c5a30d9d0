"""Files that can't be read just now: they are taken for what this folder held there when it was last uploaded.

That they are gone is not known. So the image stays in the dataset, on its side of the split, and no byte is sent.
Of what the newest version has otherwise (others changed or removed it), `merge` tells.
"""

from __future__ import annotations

from collections.abc import Set

import numpy as np

from orchestrator.datasets.checks.checked import Checked, Images
from orchestrator.datasets.checks.findings import NEAR_COPY
from orchestrator.datasets.checks.judge import Verdict
from orchestrator.datasets.columns.column import Indices
from orchestrator.datasets.columns.images import at_path
from orchestrator.datasets.columns.rows import Rows
from orchestrator.datasets.columns.words import Words
from orchestrator.datasets.folder import names
from orchestrator.datasets.folder.scan import Labelled
from orchestrator.datasets.publishing.merge import Held
from orchestrator.datasets.splits.together import NEAR
from remote.contract.dataset_manifest import Image


def recalled(missed: Rows[Labelled], newest: Rows[Image], held: Held | None) -> Images:
    """Those of `missed` that this folder held as the newest version has them, as if they had been read."""
    found: list[Checked] = []
    for file in missed if held is not None else ():
        path = names.encode(file.path)
        image = at_path(newest, path)
        if held is not None and image is not None and held.at(path) == image.sha256:
            found.append(Checked(file, _verdict(image)))
    return Images.of(found)


def with_recalled(read: Images, known: Images) -> Images:
    """Both, in path order, without the fingerprints by which near copies were found."""
    if not len(known):
        return read
    read, known = read.without_fingerprints(), known.without_fingerprints()
    both = Images(read.files.joined(known.files), read.verdicts.joined(known.verdicts))
    paths = list(both.files.columns["path"])
    return both.take(np.array(sorted(range(len(paths)), key=paths.__getitem__), dtype=np.int64))


def with_near_copies(here: Rows[Image], before: Rows[Image], same: Indices, paths: Set[str]) -> Rows[Image]:
    """What was a near copy of one that can't be read still is: left out of training, and in one group with it.

    same            the place of each path of `here` in the version before
    paths           of those that can't be read
    """
    if not paths:
        return here
    near = {label for path, label in before.tuples("path", "group") if label and path in paths}
    near = {label for label in near if label.startswith(NEAR)}
    groups, excluded = (list(here.columns[name]) for name in ("group", "excluded"))
    unchanged = (same >= 0) & (before.hashes("sha256")[same] == here.hashes("sha256"))
    at = np.flatnonzero(unchanged)
    known = before.picked(same[at], "path", "group", "excluded")
    for place, (path, group, why) in zip(at.tolist(), known, strict=True):
        if group in near and groups[place] is None:
            groups[place] = group
        original = (why or "").removeprefix(f"{NEAR_COPY} ")
        if why and original != why and (path in paths or original in paths):
            excluded[place] = why
    return here.but(group=Words.of_values(groups), excluded=Words.of_values(excluded))


def _verdict(image: Image) -> Verdict:
    """Its extension, samples and fingerprint are wanted of what is packed or measured now, which this is not."""
    return Verdict(
        image.sha256,
        "",
        image.width,
        image.height,
        image.mode,
        image.orientation,
        image.pages,
        b"",
        page=image.page,
        size=image.size,
    )
