"""What an upload found and did; as it is told, kept, and told again when nothing has changed."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from orchestrator.datasets import tally
from orchestrator.datasets.checks.check import Outcome
from orchestrator.datasets.checks.leaks import Leak, leaks
from orchestrator.datasets.checks.remarks import remarks
from orchestrator.datasets.columns.images import IMAGES, at_path
from orchestrator.datasets.columns.rows import column
from orchestrator.datasets.folder.names import SetAside
from orchestrator.datasets.folder.scan import Scan
from orchestrator.datasets.publishing.plan import Plan
from orchestrator.datasets.publishing.publication import Published
from remote.contract.dataset_manifest import values

_STAYS = "kept as it was in the version before"


@dataclass(frozen=True)
class UploadResult:
    """What was found and done. Paths are below the dataset's folder, percent-encoded."""

    name: str
    version: str  # "" when it was only checked
    store: str
    unchanged: bool  # the store had this version already, nothing was written
    checked_only: bool
    images: int
    image_bytes: int
    counts: Mapping[str, Mapping[str, int]]  # images by split and class, those left out of training aside
    split_source: str  # "folders" or "hash"
    label_sources: Mapping[str, int]  # images by who says their class: "folder", or the name of a table
    flips: str
    intensity_window: list[float] | None
    modes: Mapping[str, int]  # images by Pillow's mode
    turned: int  # images that EXIF turns
    longer_sides: Mapping[str, int]  # images by the pixels of their longer side: "up to 512"
    excluded: list[SetAside]  # images in train that are left out of training, and why
    leaks: list[Leak]  # images on two sides of the split: equal, near copies, or of one group
    unusable: list[SetAside]  # images that can't be used, and why
    spoiled: list[SetAside]  # of these, images of the version before, which this one lacks
    foreign: list[SetAside]  # files and folders that are no part of the dataset, and why
    missed: list[
        SetAside
    ]  # vanished, changed, appeared, or can't be read; what is kept of them; run it again
    warnings: list[str]
    added: int  # images, against the version before
    changed: int
    moved: int
    removed: int
    relabelled: int  # of the images that were there before: of another class
    resplit: int  # on another side
    kept: int  # that the store has and this folder lacks
    packs_sent: int
    packs_reused: int
    packs_verified: int  # of these, looked at in the store, where they lie whole
    bytes_sent: int
    seconds: float


_REPORT = TypeAdapter(UploadResult)


def result_of(
    scan: Scan,
    outcome: Outcome,
    planned: Plan,
    seconds: float,
    *,
    store: str = "",
    done: Published | None = None,
) -> UploadResult:
    manifest, images = planned.manifest, planned.manifest.images
    packs = manifest.packs() - {""}
    made = planned.changes
    return UploadResult(
        name=scan.name,
        version=done.version if done else "",
        store=store,
        unchanged=done.unchanged if done else False,
        checked_only=done is None,
        images=len(images),
        image_bytes=sum(column(images, "size")),
        counts=tally.counts(images),
        split_source=manifest.split_source,
        label_sources=dict(Counter(column(images, "label_source")).most_common()),
        flips=manifest.flips,
        intensity_window=manifest.intensity_window,
        modes=dict(Counter(column(images, "mode")).most_common()),
        turned=sum(times for turn, times in Counter(column(images, "orientation")).items() if turn > 1),
        longer_sides=tally.longer_sides(images),
        excluded=[SetAside(path, why) for path, why in values(images, "path", "excluded") if why],
        leaks=leaks(images, outcome.near),
        unusable=outcome.unusable,
        spoiled=_spoiled(outcome.unusable, planned),
        foreign=scan.set_aside,
        missed=_missed(done.missed, planned) if done else outcome.missed,
        warnings=remarks(scan, outcome, planned),
        added=made.added,
        changed=made.changed,
        moved=made.moved,
        removed=made.removed,
        relabelled=made.relabelled,
        resplit=made.resplit,
        kept=len(planned.kept),
        packs_sent=len(done.packs_sent) if done else 0,
        packs_reused=len(packs - done.packs_sent) if done else 0,
        packs_verified=len(done.packs_verified) if done else 0,
        bytes_sent=done.bytes_sent if done else 0,
        seconds=seconds,
    )


def _spoiled(unusable: Sequence[SetAside], planned: Plan) -> list[SetAside]:
    gone = set(planned.changes.gone) if unusable else ()
    return [item for item in unusable if item.path in gone]


def _missed(missed: Sequence[SetAside], planned: Plan) -> list[SetAside]:
    """What becomes of each: a missed file is in a version only if it was in the one before."""
    images = IMAGES.rows(planned.manifest.images)
    return [
        SetAside(item.path, f"{item.reason}; {_STAYS}") if at_path(images, item.path) else item
        for item in missed
    ]


def and_missed(result: UploadResult, more: Sequence[SetAside]) -> UploadResult:
    known = {item.path for item in result.missed}
    missed = result.missed + [item for item in more if item.path not in known]
    return dataclasses.replace(result, missed=sorted(missed, key=lambda item: item.path))


def report(result: UploadResult) -> str:
    """As JSON, from which `again` makes it."""
    return _REPORT.dump_json(result).decode()


def again(report: str) -> UploadResult | None:
    """The result before, of an upload that changes nothing; None when it was written by another version of tlvm."""
    try:
        before = _REPORT.validate_json(report)
    except ValidationError:
        return None
    return dataclasses.replace(
        before,
        unchanged=True,
        added=0,
        changed=0,
        moved=0,
        removed=0,
        relabelled=0,
        resplit=0,
        spoiled=[],
        packs_sent=0,
        packs_reused=before.packs_sent + before.packs_reused,
        packs_verified=0,
        bytes_sent=0,
    )
