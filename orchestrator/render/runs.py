"""Runs: their list and their results."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.datasets.folder.names import printable
from orchestrator.render import figures
from orchestrator.render.console import Screen
from orchestrator.render.progress import labelled
from orchestrator.render.text import (
    about,
    clock,
    columns,
    duration,
    folded,
    last_word,
    moment,
    more_than,
    size,
)
from orchestrator.workflows.results.fine_tuned import COMPARED
from orchestrator.workflows.results.looks import ordinal
from orchestrator.workflows.results.predict import PredictResult
from orchestrator.workflows.runs.attempts import AttemptLine, counted, ended_as
from orchestrator.workflows.runs.cancel import CancelResult
from orchestrator.workflows.runs.overview import RunRow, RunsResult, short
from orchestrator.workflows.runs.run import RunResult
from remote.contract import document
from remote.contract.document import ContractError
from remote.contract.metrics import Metrics
from remote.contract.wording import count

_STYLES = {"FAILED": "red", "LOST": "red", "INTERRUPTED": "yellow", "SUCCEEDED": "green", "RUNNING": "cyan"}
SHOWN_MAX = 30
_MODEL_WIDTH = 28


def result(screen: Screen, run: RunResult) -> None:
    """The measured result of a run, or that it goes on by itself."""
    if run.detached:
        if run.unchanged:
            screen.line(
                labelled(
                    "unchanged", f"{run.run_id} on {run.machine} is at the same already; nothing was rented"
                )
            )
        else:
            screen.line(labelled("started", f"{run.run_id} on {run.machine}; it goes on by itself"))
        name = short(run.run_id)
        if run.ends:
            screen.line(run.ends)
        screen.next(f"tlvm attach {name} comes back to it")
        return
    screen.line(
        f"{run.scenario}: {run.model}, {run.weights}, on {run.dataset} {run.dataset_version[:8]}",
        style="bold",
    )
    for number, line in enumerate(figure_lines(run.metrics, run.look)):
        screen.line(f"   {line}", style="bold" if number == 0 else "")
    if line := beside_line(run):
        screen.line(f"   {line}")
    if len(run.attempts) > 1:
        for line in attempt_rows(run.attempts):
            screen.line(f"   {line}")
    screen.line(
        f"unchanged since {run.run_id}: nothing was rented, "
        f"{count(run.files, 'file')} verified → {run.folder}"
        if run.unchanged
        else f"done in {duration(run.seconds)}, {about(run.cost)}, "
        f"{count(run.files, 'file')} verified and pulled → {run.folder}",
        style="green",
    )
    if run.down and run.down.deleted:
        screen.line(f"{run.down.machine} is gone, confirmed twice; its life is in the price", style="green")
    screen.next(f"tlvm predict {short(run.run_id)} IMAGES")


def attempt_rows(attempts: Sequence[AttemptLine]) -> list[str]:
    """A line for each of them."""
    return columns(
        [
            (
                f"attempt {one.number}",
                f"{one.place}{' spot' if one.spot else ''}",
                clock(began) if (began := moment(one.began)) else "",
                duration(one.seconds) if one.seconds >= 1 else "",
                about(one.cost, one.price_per_hour),
                ended_as(one),
            )
            for one in attempts
        ]
    )


def measured(screen: Screen, run: RunResult) -> None:
    """What was trained, and its figures."""
    screen.line(
        f"{run.scenario}: {run.model}, {run.weights}, on {run.dataset} {run.dataset_version[:8]}",
        style="bold",
    )
    for number, line in enumerate(figure_lines(run.metrics, run.look)):
        screen.line(f"   {line}", style="bold" if number == 0 else "")


def predicted(screen: Screen, result: PredictResult) -> None:
    """CSV: path, class, probability, and the probability of each class; nothing in it can steer a terminal."""
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    shown = {name: name if name.isprintable() else printable(name) for name in result.classes}
    rows.writerow(["path", "class", "probability", *(f"p_{shown[name]}" for name in result.classes)])
    for one in result.predictions:
        chances = [f"{one.probabilities[name]:.6f}" for name in result.classes]
        rows.writerow([one.path, shown[one.class_name], f"{one.probability:.6f}", *chances])
    screen.raw(table.getvalue())
    for path, why in list(result.failed.items())[:SHOWN_MAX]:
        screen.progress.warn(f"{path}: {why}")
    if result.failed:
        images = count(len(result.failed), "image")
        screen.progress.warn(f"{images} could not be read; the others are classified")


def listed(screen: Screen, result: RunsResult) -> None:
    for problem in result.problems:
        screen.progress.warn(problem)
    if not result.runs:
        screen.line(f"There is no run in {result.store} yet.")
        screen.next("tlvm run fixed-extractor")
        return
    shown = result.shown(SHOWN_MAX)
    for lines, run in zip(
        folded([_row(run, whole=screen.width is None) for run in shown], screen.width), shown, strict=True
    ):
        screen.lines(lines, style=_STYLES.get(run.state, ""))
    if more := result.older + len(result.runs) - len(shown):
        screen.line(f"... and {more} more that have ended (--json lists all)")
    lost = [run for run in result.runs if run.goes_on_with]
    newest = result.runs[0]
    name = short(newest.run_id, [run.run_id for run in result.runs])
    if lost:
        screen.next(lost[0].goes_on_with)
    elif newest.state == "SUCCEEDED" and newest.pulled_to:
        screen.next(f"tlvm predict {name} IMAGES")
    elif newest.state == "SUCCEEDED":
        screen.next(f"tlvm pull {name}")
    else:
        screen.next(f"tlvm logs {name}")


def cancelled(screen: Screen, result: CancelResult) -> None:
    if result.was_over:
        screen.line(f"{result.run_id} had ended already: {result.state.lower()}")
    elif not result.asked_machine:
        screen.line(f"{result.run_id} is cancelled; its machine {result.machine} was not there to be asked")
    elif result.state == "CANCELLED":
        screen.line(
            f"{result.run_id} is cancelled; it was {result.was.lower()} on {result.machine}", style="green"
        )
    else:
        screen.line(f"{result.run_id} came to its end first: {result.state.lower()}")
    name = short(result.run_id)
    screen.next(f"tlvm pull {name}" if result.state == "SUCCEEDED" else f"tlvm logs {name}")


def _row(run: RunRow, *, whole: bool) -> tuple[str, ...]:
    created = moment(run.created)
    started, finished = moment(run.started or ""), moment(run.finished or "")
    seconds = (finished - started).total_seconds() if started and finished else None
    took = "" if seconds is None else duration(seconds) if seconds >= 1 else "under 1 s"
    where = "here" if run.pulled_to else "in the store" if run.published else ""
    return (
        run.run_id,
        run.state.lower(),
        _cut(f"{run.model}, {run.weights}", whole=whole),
        f"on {run.dataset} {run.dataset_version[:8]}",
        clock(created) if created else "",
        took,
        where,
        counted(run.attempts),
        about(run.cost) if run.cost else "",
        "" if run.accuracy is None else f"accuracy {run.accuracy:.3f}",
        "" if run.bytes is None else size(run.bytes),
        " ".join(f"#{tag}" for tag in run.tags),
        last_word(run.doubt, run.updated) or more_than(run.state, run.message) or _cut(run.note, whole=whole),
    )


def _cut(text: str, *, whole: bool) -> str:
    """The name of a file of weights may be long for a terminal."""
    return text if whole or len(text) <= _MODEL_WIDTH else f"{text[: _MODEL_WIDTH - 1]}…"


def beside_line(run: RunResult) -> str:
    """For a network trained from nothing: what the same one reached that was tuned, or how to find out."""
    if run.scenario != "from-scratch":
        return ""
    if run.beside is None:
        return f"not compared yet with tuning old weights on the same images: tlvm run {COMPARED}"
    low, high = run.beside.accuracy_interval
    other = short(run.beside.run_id)
    return (
        f"{COMPARED} reached {run.beside.accuracy:.3f} there (95 %: {low:.3f} – {high:.3f}; "
        f"{other}): tlvm compare {short(run.run_id)} {other}"
    )


def figure_lines(metrics: Mapping[str, Any], look: int, looks: int = 0) -> list[str]:
    """Of metrics.json, which is what the machine wrote: anything may stand in it.

    look    which one at these images it was; 0: none
    looks   that there were so far, where others may have come after it
    """
    try:
        read = document.decode(Metrics, json.dumps(metrics), what="metrics.json")
        return list(figures.lines(read, _look(look, looks)))
    except (ContractError, StopIteration, RuntimeError, IndexError, ArithmeticError, ValueError) as error:
        return [f"its figures can't be read: {error}"]


def _look(look: int, looks: int) -> str:
    """ "third look"; "first of 3 looks" where others came after it."""
    if not look:
        return ""
    return f"{ordinal(look)} of {looks:,} looks" if looks > look else f"{ordinal(look)} look"
