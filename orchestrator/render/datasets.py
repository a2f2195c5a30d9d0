"""What an upload found and did, and what the store holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.datasets.names import SetAside
from orchestrator.render.console import Screen
from orchestrator.render.progress import labelled
from orchestrator.render.text import columns, count, duration, size
from orchestrator.workflows.datasets import DatasetSummary
from orchestrator.workflows.download import DownloadResult
from orchestrator.workflows.upload import UploadResult

_LISTED_MAX = 10
_CLASSES_MAX = 12


def uploaded(screen: Screen, results: Sequence[UploadResult]) -> None:
    """Check, split, what was set aside, what was sent; for each dataset."""
    for result in results:
        _uploaded(screen, result)
    if any(result.missed for result in results):
        screen.next("the same again, when nothing writes into the folder")
    elif any(result.checked_only for result in results):
        screen.next("the same without --check sends it")
    else:
        name = f" --dataset {results[0].name}" if len(results) > 1 else ""
        screen.next(f"tlvm run fixed-extractor{name}")


def listed(screen: Screen, datasets: Sequence[DatasetSummary]) -> None:
    if not datasets:
        screen.line("There is no dataset yet.")
        screen.next("tlvm upload DIR")
        return
    rows: list[tuple[str, ...]] = [("dataset", "version", "images", "classes", "split", "size")]
    rows += [
        (
            dataset.name,
            dataset.version[:8],
            f"{dataset.images:,}",
            str(len(dataset.classes)),
            _split(dataset.counts),
            size(dataset.image_bytes),
        )
        for dataset in datasets
    ]
    screen.lines(columns(rows))
    name = f" --dataset {datasets[0].name}" if len(datasets) > 1 else ""
    screen.next(f"tlvm run fixed-extractor{name}")


def downloaded(screen: Screen, result: DownloadResult) -> None:
    there = result.images - result.written
    screen.line(
        labelled(
            "fetch",
            f"{result.name} {result.version[:8]}: {count(result.written, 'image')} of {size(result.image_bytes)} in all, "
            f"{count(result.packs, 'pack')} in {duration(result.seconds)}"
            + (f"; {there:,} were there" if there else ""),
        )
    )
    screen.line(labelled("files", result.folder))


def _uploaded(screen: Screen, result: UploadResult) -> None:
    aside = len(result.unusable) + len(result.foreign)
    turned = f", {result.turned:,} turned by EXIF" if result.turned else ""
    screen.line(
        labelled(
            "check",
            f"{result.name}: {count(result.images, 'image')}, {size(result.image_bytes)}{turned}"
            + (f"; {aside} set aside, listed below" if aside else ""),
        )
    )
    how = (
        "given by folders"
        if result.split_source == "folders"
        else "made by content, stays put when photos are added"
    )
    screen.line(labelled("split", f"{_split(result.counts)}; {how}"))
    screen.lines(columns(_classes(result.counts), indent=" " * 8))
    for text in result.warnings:
        screen.line(labelled("warn", text), style="yellow")
    _aside(screen, "unusable", result.unusable)
    _aside(screen, "foreign", result.foreign)
    _aside(screen, "left out", result.excluded)
    _aside(screen, "missed", result.missed)
    if result.checked_only:
        screen.line(labelled("done", f"checked in {duration(result.seconds)}; nothing was sent"))
    elif result.unchanged:
        screen.line(
            labelled("done", f"{result.name} {result.version[:8]} is in the store already; nothing was sent")
        )
    else:
        packs = count(result.packs_sent, "pack")
        reused = f", {result.packs_reused} were there" if result.packs_reused else ""
        screen.line(
            labelled(
                "done",
                f"{result.name} {result.version[:8]} → {result.store}: {packs} sent ({size(result.bytes_sent)})"
                f"{reused}; {_changes(result)}; {duration(result.seconds)}",
            ),
            style="green",
        )


def _changes(result: UploadResult) -> str:
    parts = {
        "added": result.added,
        "changed": result.changed,
        "moved": result.moved,
        "removed": result.removed,
        "kept": result.kept,
    }
    return ", ".join(f"{number:,} {word}" for word, number in parts.items() if number) or "no image differs"


def _split(counts: Mapping[str, Mapping[str, int]]) -> str:
    return " · ".join(f"{split} {sum(classes.values()):,}" for split, classes in counts.items())


def _classes(counts: Mapping[str, Mapping[str, int]]) -> list[tuple[str, ...]]:
    names = sorted({name for classes in counts.values() for name in classes})
    rows: list[tuple[str, ...]] = [("class", *counts)]
    rows += [
        (name, *(f"{counts[split].get(name, 0):,}" for split in counts)) for name in names[:_CLASSES_MAX]
    ]
    if len(names) > _CLASSES_MAX:
        rows.append((f"... and {len(names) - _CLASSES_MAX} more",))
    return rows


def _aside(screen: Screen, label: str, items: Sequence[SetAside]) -> None:
    for item in items[:_LISTED_MAX]:
        screen.line(f"{label:<9}{item.path}: {item.reason}", style="yellow")
    if len(items) > _LISTED_MAX:
        screen.line(f"{label:<9}... and {len(items) - _LISTED_MAX} more (--json lists all)", style="yellow")
