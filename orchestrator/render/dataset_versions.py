"""Versions of datasets on the screen: what one holds, how two differ, what was removed."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.datasets.packs.collect import Collected
from orchestrator.datasets.packs.repack import PackUse
from orchestrator.render.console import Screen
from orchestrator.render.datasets import aside, classes, sides, window
from orchestrator.render.progress import labelled
from orchestrator.render.text import columns, size
from orchestrator.workflows.data.diff import DatasetDiff
from orchestrator.workflows.data.remove import DatasetRemoved
from orchestrator.workflows.data.show import DatasetShown
from orchestrator.workflows.runs.overview import short
from remote.contract.wording import count, listed

_LISTED_MAX = 10


def shown(screen: Screen, result: DatasetShown) -> None:
    which = "the newest" if result.newest else "an old one"
    screen.line(
        labelled(
            "dataset",
            f"{result.name} {result.version[:12]}, {which} of {count(len(result.versions), 'version')}: "
            f"{count(result.images, 'image')}, {size(result.image_bytes)} in {count(result.packs, 'pack')}",
        )
    )
    made = "given" if result.split_source == "folders" else "made by content"
    together = f"; {count(result.groups, 'group')} kept together" if result.groups else ""
    screen.line(labelled("split", f"{sides(result.counts)}; {made}{together}"))
    screen.lines(columns(classes(result.counts), indent=" " * 8))
    sources = ", ".join(f"{source} {number:,}" for source, number in result.label_sources.items())
    screen.line(labelled("labels", sources))
    modes = ", ".join(f"{mode} {number:,}" for mode, number in result.modes.items())
    turned = f"; {result.turned:,} turned by EXIF" if result.turned else ""
    screen.line(labelled("pixels", f"{modes}; flips {result.flips}{turned}"))
    pixels = ", ".join(f"{step} {number:,}" for step, number in result.longer_sides.items())
    screen.line(labelled("sizes", f"longer side {pixels}"))
    if result.intensity_window:
        screen.line(labelled("window", window(result.intensity_window)))
    for text in result.warnings:
        screen.line(labelled("warn", text), style="yellow")
    aside(screen, "left out", result.excluded)
    screen.next(f"tlvm run fixed-extractor --dataset {result.name}")


def compared(screen: Screen, result: DatasetDiff) -> None:
    screen.line(f"{_short(result.first)} → {_short(result.second)}")
    moved = [f"{source} → {to}" for source, to in result.moved]
    for label, paths in (
        ("added", result.added),
        ("removed", result.removed),
        ("changed", result.changed),
        ("moved", moved),
        ("class", result.relabelled),
        ("split", result.resplit),
    ):
        _paths(screen, label, paths)
    for key, (before, after) in result.settings.items():
        screen.line(labelled("setting", f"{key}: {before} → {after}"))
    parts = (result.added, result.removed, result.changed, moved, result.relabelled, result.resplit)
    if not any(parts) and not result.settings:
        screen.line(labelled("same", "no image differs"))
    screen.line(labelled("new", f"{size(result.new_bytes)} of images that only the second has"))


def removed(screen: Screen, result: DatasetRemoved) -> None:
    if not result.removed:
        screen.line(f"Nothing was removed: {result.name} is still there.")
        screen.next(f"tlvm datasets show {result.name}")
        return
    what = "and all its versions" if result.all_of_it else "only"
    versions = ", ".join(version[:12] for version in result.versions[:_LISTED_MAX])
    screen.line(labelled("removed", f"{result.name} {versions} {what}".replace("  ", " ")))
    if result.named_by:
        names = listed(result.named_by, _LISTED_MAX, lambda run_id: short(run_id, result.named_by))
        screen.line(labelled("runs", f"that name it can't be repeated: {names}"), style="yellow")
    screen.next("tlvm datasets gc frees the space of images that no version names")


def collected(screen: Screen, result: Collected) -> None:
    screen.line(labelled("packs", f"{count(result.packs, 'pack')}, {size(result.pack_bytes)}"))
    would = ", would be deleted" if result.dry_run else ""
    _packs(screen, "deleted", result.deleted, f"named by no version{would}")
    _packs(screen, "waiting", result.condemned, "named by no version; a later gc deletes them")
    if not (result.deleted or result.condemned):
        screen.line(labelled("nothing", "to delete: every pack is named by a version"))
    for one in result.repacked:
        done = f"packed anew as version {one.version[:12]}" if one.version else "would be packed anew"
        what = f"of {one.dataset} {done}; version {one.before[:12]} goes later"
        _packs(screen, "packed", one.packs, what)
    for name in result.replaced:
        screen.line(labelled("deleted", f"{_short(name)}: another version is in its place"))
    if result.wasteful:
        dead = sum(use.size - use.live_bytes for use in result.wasteful)
        held = "kept for older versions and for runs"
        _packs(screen, "half used", result.wasteful, f"{held}, {size(dead)} of which no version names")
    if result.condemned or result.repacked:
        screen.next("tlvm datasets gc, after the grace period")
    elif result.dry_run and result.deleted:
        screen.next("the same without --dry-run")
    else:
        screen.next("tlvm datasets")


def _packs(screen: Screen, label: str, uses: Sequence[PackUse], what: str) -> None:
    if not uses:
        return
    total = sum(use.size for use in uses)
    screen.line(labelled(label, f"{count(len(uses), 'pack')}, {size(total)} {what}"))


def _paths(screen: Screen, label: str, paths: Sequence[str]) -> None:
    if paths:
        screen.line(labelled(label, count(len(paths), "image")))
    for path in paths[:_LISTED_MAX]:
        screen.line(f"        {path}")
    if len(paths) > _LISTED_MAX:
        screen.line(f"        ... and {len(paths) - _LISTED_MAX} more (--json lists all)")


def _short(name: str) -> str:
    dataset, _, version = name.partition("@")
    return f"{dataset} {version[:12]}"
