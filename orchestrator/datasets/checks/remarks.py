"""What the user is told of a dataset that can be used, in sentences."""

from __future__ import annotations

from operator import methodcaller

from orchestrator.datasets.checks import findings
from orchestrator.datasets.checks.check import Outcome
from orchestrator.datasets.columns.rows import column
from orchestrator.datasets.folder.names import MODERN
from orchestrator.datasets.folder.scan import Scan
from orchestrator.datasets.publishing.plan import Plan
from orchestrator.datasets.splits import grouping
from remote.contract.wording import count


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
    lowered = map(str.lower, column(images, "path"))
    if modern := sum(map(methodcaller("endswith", MODERN), lowered)):
        said.append(f"Sent as JPEG, and downloaded as such: {count(modern, 'HEIC or AVIF image')}")
    if planned.manifest.split_source == "hash" and any(image.split == "val" for image in images):
        said.append("No val folder: a fifth of each class, chosen by content, is val and stays val")
    return said
