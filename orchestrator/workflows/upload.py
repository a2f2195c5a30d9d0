"""`tlvm upload DIR`: from a folder of labelled images to a dataset version in the store.

Scan, check, plan, packs, manifest, HEAD, in this order: a version that can be seen is whole. Interrupted anywhere and
run again, it goes on, since packs are named by their content. Two uploads at once meet at HEAD: the second plans
anew against the first's version.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.datasets import findings
from orchestrator.datasets.check import Outcome, check
from orchestrator.datasets.names import SetAside
from orchestrator.datasets.plan import Plan, Wishes
from orchestrator.datasets.publication import Publication, Published, Seen, first_plan
from orchestrator.datasets.scan import Scan, survey
from orchestrator.errors import PartialError
from orchestrator.records import SeenRecord
from orchestrator.workflows.workspace import Workspace
from remote.contract.dataset_manifest import Flips


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
    flips: str
    intensity_window: list[float] | None
    modes: Mapping[str, int]  # images by Pillow's mode
    turned: int  # images that EXIF turns
    excluded: list[SetAside]  # images in train that are left out of training, and why
    unusable: list[SetAside]  # images that can't be used, and why
    foreign: list[SetAside]  # files and folders that are no part of the dataset, and why
    missed: list[SetAside]  # vanished or changed meanwhile: the rest is done, run it again
    warnings: list[str]
    added: int  # images, against the version before
    changed: int
    moved: int
    removed: int
    kept: int  # that the store has and this folder lacks
    packs_sent: int
    packs_reused: int
    bytes_sent: int
    seconds: float


def upload(
    workspace: Workspace,
    folder: Path,
    *,
    name: str | None = None,
    check_only: bool = False,
    replace: bool = False,
    allow_shrink: bool = False,
    flips: Flips | None = None,
    processes: int | None = None,
) -> list[UploadResult]:
    """Upload every dataset that `folder` holds; all are checked before the first byte is sent.

    name            of the dataset, where there is one; default: the folder's
    check_only      stop after the check; the store is not asked
    replace         the folder is right, whatever others published meanwhile
    allow_shrink    many images may be gone
    DataError       a dataset can't be used; ConflictError: others published what this folder contradicts

    Files that vanished or changed meanwhile stand in `missed`: `require_all` makes them an error.
    """
    began = time.monotonic()
    wishes = Wishes(flips, replace, allow_shrink)
    found = survey(folder, name=name)
    _warn_of_ignored(workspace, found.ignored)
    outcomes = [check(scan, workspace.progress, processes=processes) for scan in found.datasets]
    ready = list(zip(found.datasets, outcomes, strict=True))
    plans = [first_plan(scan, outcome, wishes) for scan, outcome in ready]
    if check_only:
        return [
            _result(scan, outcome, planned, time.monotonic() - began)
            for (scan, outcome), planned in zip(ready, plans, strict=True)
        ]
    return [_publish(workspace, scan, outcome, wishes, began) for scan, outcome in ready]


def require_all(results: Sequence[UploadResult]) -> None:
    """PartialError naming the files that vanished or changed during the upload, if there are any."""
    missed = [(result.name, item) for result in results for item in result.missed]
    if missed:
        listed = [f"{name}: {item.path}: {item.reason}" for name, item in missed[:10]]
        more = [f"and {len(missed) - 10} more"] if len(missed) > 10 else []
        raise PartialError(
            f"{len(missed)} files vanished or changed while they were read; the rest is uploaded",
            detail="\n".join(listed + more),
            next="Run it again when nothing writes into the folder.",
        )


def _warn_of_ignored(workspace: Workspace, ignored: Sequence[SetAside]) -> None:
    if ignored:
        more = f" and {len(ignored) - 5} more" if len(ignored) > 5 else ""
        named = ", ".join(item.path for item in ignored[:5])
        workspace.progress.warn(f"Not part of a dataset: {named}{more}")


def _publish(
    workspace: Workspace, scan: Scan, outcome: Outcome, wishes: Wishes, began: float
) -> UploadResult:
    store, records = workspace.store, workspace.records
    before = records.seen(scan.root, store.url, scan.name)
    seen = Seen(before.version, before.differing) if before else None
    done = Publication(store, scan, outcome, wishes, seen, workspace.progress).publish()
    if Seen(done.version, done.plan.kept) != seen:
        records.save_seen(SeenRecord(str(scan.root), store.url, scan.name, done.version, done.plan.kept))
    return _result(scan, outcome, done.plan, time.monotonic() - began, store=store.url, done=done)


def _result(
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
    return UploadResult(
        name=scan.name,
        version=done.version if done else "",
        store=store,
        unchanged=done.unchanged if done else False,
        checked_only=done is None,
        images=len(images),
        image_bytes=sum(image.size for image in images),
        counts=findings.counts(images),
        split_source=manifest.split_source,
        flips=manifest.flips,
        intensity_window=manifest.intensity_window,
        modes=dict(Counter(image.mode for image in images).most_common()),
        turned=sum(image.orientation > 1 for image in images),
        excluded=[SetAside(image.path, image.excluded) for image in images if image.excluded],
        unusable=outcome.unusable,
        foreign=scan.set_aside,
        missed=done.missed if done else outcome.missed,
        warnings=_warnings(scan, planned),
        added=planned.added,
        changed=planned.changed,
        moved=planned.moved,
        removed=planned.removed,
        kept=len(planned.kept),
        packs_sent=len(done.packs_sent) if done else 0,
        packs_reused=len(packs - done.packs_sent) if done else 0,
        bytes_sent=done.bytes_sent if done else 0,
        seconds=seconds,
    )


def _warnings(scan: Scan, planned: Plan) -> list[str]:
    said = [*scan.warnings, *findings.warnings(planned.manifest.images)]
    if planned.kept:
        said.append(f"Kept, although this folder lacks them: {len(planned.kept)} images that the store has")
    if planned.manifest.split_source == "hash":
        said.append("No val folder: a fifth of each class, chosen by content, is val and stays val")
    return said
