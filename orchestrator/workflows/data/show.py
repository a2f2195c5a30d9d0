"""`tlvm datasets show NAME`: what a version of a dataset holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.datasets import tally
from orchestrator.datasets.checks import findings
from orchestrator.datasets.folder.names import SetAside
from orchestrator.workflows.data.datasets import resolve, versions_of
from orchestrator.workflows.workspace import Workspace


@dataclass(frozen=True)
class DatasetShown:
    """One version of a dataset."""

    name: str
    version: str
    newest: bool
    versions: list[str]  # all that the store holds
    images: int
    image_bytes: int
    packs: int
    classes: list[str]
    counts: Mapping[str, Mapping[str, int]]  # images by split and class, those left out of training aside
    split_source: str
    label_sources: Mapping[str, int]
    groups: int  # sets that stay on one side: patients, slides, videos, near copies
    flips: str
    intensity_window: list[float] | None
    modes: Mapping[str, int]
    turned: int  # images that EXIF turns
    longer_sides: Mapping[str, int]  # images by the pixels of their longer side: "up to 512"
    excluded: list[SetAside]
    warnings: list[str]


def show(workspace: Workspace, name: str | None, version: str | None = None) -> DatasetShown:
    """NotFoundError when there is no such dataset or version."""
    chosen, wanted, manifest = resolve(workspace, name, version)
    versions, head = versions_of(workspace, chosen)
    images = manifest.images
    return DatasetShown(
        name=chosen,
        version=wanted,
        newest=wanted == head,
        versions=sorted(versions),
        images=len(images),
        image_bytes=sum(image.size for image in images),
        packs=len(manifest.packs()),
        classes=manifest.classes,
        counts=tally.counts(images),
        split_source=manifest.split_source,
        label_sources=dict(Counter(image.label_source for image in images).most_common()),
        groups=len({image.group for image in images} - {None}),
        flips=manifest.flips,
        intensity_window=manifest.intensity_window,
        modes=dict(Counter(image.mode for image in images).most_common()),
        turned=sum(image.orientation > 1 for image in images),
        longer_sides=tally.longer_sides(images),
        excluded=[SetAside(image.path, image.excluded) for image in images if image.excluded],
        warnings=findings.warnings(images),
    )
