"""What an upload found and did, and what the store holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from orchestrator.datasets.checks.leaks import Kind, Leak
from orchestrator.datasets.folder.names import SetAside
from orchestrator.render.console import Screen
from orchestrator.render.progress import labelled
from orchestrator.render.text import columns, duration, size
from orchestrator.workflows.data.datasets import DatasetSummary
from orchestrator.workflows.data.download import DownloadResult
from orchestrator.workflows.data.upload import UploadResult
from remote.contract.wording import count, listed_in_lines

_LISTED_MAX = 10
_CLASSES_MAX = 12
_LEAKS: Mapping[Kind, str] = {
    "equal": "equal images",
    "near": "near copies",
    "perhaps": "what may be near copies",
    "group": "images of one group",
}


def uploaded(screen: Screen, results: Sequence[UploadResult]) -> None:
    """Check, split, what was set aside, what was sent; for each dataset."""
    for result in results:
        _uploaded(screen, result)
    if any(result.missed for result in results):
        screen.next("the same again, when all files can be read and nothing writes into the folder")
    elif any(result.checked_only for result in results):
        screen.next("the same without --check-only sends it")
    else:
        screen.next(f"tlvm run fixed-extractor --dataset {results[0].name}")  # the store may hold others


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
            sides(dataset.counts),
            size(dataset.image_bytes),
        )
        for dataset in datasets
        if not dataset.problem
    ]
    if len(rows) > 1:
        screen.lines(columns(rows))
    damaged = [dataset for dataset in datasets if dataset.problem]
    for dataset in damaged:
        screen.line(labelled("damaged", f"{dataset.name}: {dataset.problem}"), style="yellow")
    if damaged:
        screen.next(
            f"tlvm upload DIR --replace --dataset {damaged[0].name} repairs it, from the folder with its images"
        )
        return
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
    screen.next(f"tlvm upload DIR --dataset {result.name} sends what you change there")


def _uploaded(screen: Screen, result: UploadResult) -> None:
    others = len(result.unusable) + len(result.foreign)
    turned = f", {result.turned:,} turned by EXIF" if result.turned else ""
    screen.line(
        labelled(
            "check",
            f"{result.name}: {count(result.images, 'image')}, {size(result.image_bytes)}{turned}"
            + (f"; {others} set aside, listed below" if others else ""),
        )
    )
    screen.line(labelled("split", f"{sides(result.counts)}; {_split_by(result)}"))
    screen.lines(columns(classes(result.counts), indent=" " * 8))
    pixels = ", ".join(f"{step} {number:,}" for step, number in result.longer_sides.items())
    screen.line(labelled("sizes", f"longer side {pixels}"))
    if result.intensity_window:
        screen.line(labelled("window", window(result.intensity_window)))
    if result.leaks:
        _leaks(screen, result.leaks)
    for text in result.warnings:
        screen.line(labelled("warn", text), style="yellow")
    if result.spoiled:
        _spoiled(screen, result.spoiled)
    spoiled = set(result.spoiled)
    aside(screen, "unusable", [item for item in result.unusable if item not in spoiled])
    aside(screen, "foreign", result.foreign)
    aside(screen, "left out", result.excluded)
    aside(screen, "missed", result.missed)
    if result.checked_only:
        screen.line(labelled("done", f"checked in {duration(result.seconds)}; nothing was sent"))
    elif result.unchanged:
        screen.line(
            labelled(
                "done",
                f"{result.name} {result.version[:8]} is in the store already{_verified(result)}; nothing was sent",
            )
        )
    else:
        packs = count(result.packs_sent, "pack")
        reused = f", {result.packs_reused} there already" if result.packs_reused else ""
        screen.line(
            labelled(
                "done",
                f"{result.name} {result.version[:8]} → {result.store}: {packs} sent ({size(result.bytes_sent)})"
                f"{reused}{_verified(result)}; {_changes(result)}; {duration(result.seconds)}",
            ),
            style="green",
        )


def _split_by(result: UploadResult) -> str:
    if result.split_source != "folders":
        return "made by content, stays put when photos are added"
    who = ["folders" if source == "folder" else source for source in result.label_sources]
    return f"given by {' and '.join(who)}"


def _spoiled(screen: Screen, spoiled: Sequence[SetAside]) -> None:
    number = len(spoiled)
    told = f"can't be used any more, and {'is' if number == 1 else 'are'} not in this one"
    screen.line(labelled("lost", f"{count(number, 'image')} of the version before {told}"), style="yellow")
    for line in listed_in_lines(
        spoiled, _LISTED_MAX, lambda item: f"{item.path}: {item.reason}"
    ).splitlines():
        screen.line(f"        {line}", style="yellow")


def _verified(result: UploadResult) -> str:
    return f", {count(result.packs_verified, 'pack')} verified" if result.packs_verified else ""


def _leaks(screen: Screen, leaks: Sequence[Leak]) -> None:
    kinds = Counter(leak.kind for leak in leaks)
    left_out = len({leak.path for leak in leaks if leak.left_out})
    parts = [f"{count(kinds[kind], 'pair')} of {word}" for kind, word in _LEAKS.items() if kinds[kind]]
    outcome = f"; {count(left_out, 'image')} left out of training, listed below" if left_out else ""
    screen.line(labelled("leaks", f"{', '.join(parts)} on two sides of the split{outcome}"), style="yellow")
    for leak in [leak for leak in leaks if not leak.left_out][:_LISTED_MAX]:
        error = "" if leak.error is None else f" (error {leak.error:.3f})"
        screen.line(f"        {leak.path} {leak.told} {leak.other}{error}", style="yellow")


def _changes(result: UploadResult) -> str:
    parts = {
        "added": result.added,
        "changed": result.changed,
        "moved": result.moved,
        "removed": result.removed,
        "of another class": result.relabelled,
        "of another split": result.resplit,
        "kept": result.kept,
    }
    return ", ".join(f"{number:,} {word}" for word, number in parts.items() if number) or "no image differs"


def sides(counts: Mapping[str, Mapping[str, int]]) -> str:
    return " · ".join(f"{split} {sum(classes.values()):,}" for split, classes in counts.items())


def classes(counts: Mapping[str, Mapping[str, int]]) -> list[tuple[str, ...]]:
    names = sorted({name for classes in counts.values() for name in classes})
    rows: list[tuple[str, ...]] = [("class", *counts)]
    rows += [
        (name, *(f"{counts[split].get(name, 0):,}" for split in counts)) for name in names[:_CLASSES_MAX]
    ]
    if len(names) > _CLASSES_MAX:
        rows.append((f"... and {len(names) - _CLASSES_MAX} more",))
    return rows


def window(values: Sequence[float]) -> str:
    return (
        f"{values[0]:g} becomes black and {values[1]:g} white in images of more than 8 bits, the same in all"
    )


def aside(screen: Screen, label: str, items: Sequence[SetAside]) -> None:
    for item in items[:_LISTED_MAX]:
        screen.line(f"{label:<9}{item.path}: {item.reason}", style="yellow")
    if len(items) > _LISTED_MAX:
        screen.line(f"{label:<9}... and {len(items) - _LISTED_MAX} more (--json lists all)", style="yellow")
