"""A line of runs, as one table: what each scenario reached, for how much."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.render.console import Screen
from orchestrator.render.progress import labelled
from orchestrator.render.text import about, columns, duration
from orchestrator.workflows.runs.documents import short
from orchestrator.workflows.runs.line import LineResult, LineRun
from remote.contract import document
from remote.contract.document import ContractError
from remote.contract.metrics import Metrics
from remote.contract.wording import count


def result(screen: Screen, line: LineResult) -> None:
    ids = [run.run_id for run in line.runs]
    names = [short(run_id, ids) for run_id in ids]
    if line.detached:
        _left(screen, line, names)
        return
    for text, run in zip(
        columns([row(run, name) for run, name in zip(line.runs, names, strict=True)]), line.runs, strict=True
    ):
        screen.line(text, style="red" if run.error else "")
    for run in line.runs:
        if run.answered_by and run.result:
            screen.line(labelled("unchanged", f"{run.scenario}: {run.answered_by} did the same"))
    good = [name for run, name in zip(line.runs, names, strict=True) if run.result]
    new = [run.result for run in line.runs if run.result and not run.result.unchanged]
    cost = about(sum(result.cost for result in new)) if line.machine else "nothing was rented"
    screen.line(
        f"{len(good)} of {count(len(line.runs), 'run')} verified and pulled, {cost}",
        style="green" if len(good) == len(line.runs) else "red",
    )
    failed = next((name for run, name in zip(line.runs, names, strict=True) if run.error), "")
    if len(good) > 1:
        screen.next(
            f"tlvm compare {' '.join(good)}" + (f"     what went wrong: tlvm logs {failed}" if failed else "")
        )
    elif failed:
        screen.next(f"tlvm logs {failed}")
    else:
        screen.next(f"tlvm predict {good[0]} IMAGES")


def _left(screen: Screen, line: LineResult, names: Sequence[str]) -> None:
    """Runs that go on by themselves; some of them may be earlier ones, or have ended."""
    place = 0
    for run in line.runs:
        if run.result is None:
            screen.line(
                labelled("failed", f"{run.run_id}: {run.error.what if run.error else ''}"), style="red"
            )
        elif run.result.unchanged:
            how = f"on {run.result.machine} is at the same already" if run.result.detached else "did the same"
            screen.line(labelled("unchanged", f"{run.run_id} {how}"))
        else:
            how = f"place {place} in line" if place else "starts"
            screen.line(labelled("started", f"{run.run_id} on {line.machine}: {how}"))
            place += 1
    if line.ends:
        screen.line(line.ends)
    first = next(
        name for run, name in zip(line.runs, names, strict=True) if run.result and run.result.detached
    )
    screen.next(f"tlvm attach {first} comes back to the first; tlvm status shows the line")


def row(run: LineRun, name: str) -> tuple[str, ...]:
    """Scenario, accuracy or what went wrong, interval, time, cost, and the run; one that an earlier run answers took neither."""
    if run.result is None:
        return (run.scenario, run.error.what if run.error else "", "", "", "", name)
    figure, interval = _figure(run.result.metrics)
    if run.result.unchanged:
        return (run.scenario, figure, interval, "unchanged", "", name)
    return (run.scenario, figure, interval, duration(run.result.seconds), about(run.result.cost), name)


def _figure(metrics: Mapping[str, Any]) -> tuple[str, str]:
    """The accuracy of the images that the figure comes from, and where it lies; what a machine wrote may be anything."""
    try:
        read = document.decode(Metrics, json.dumps(metrics), what="metrics.json")
        (found,) = [one for one in read.evaluations if one.split == read.reported]
        low, high = found.accuracy_interval
        return f"{found.accuracy:.3f}", f"({low:.3f} – {high:.3f}, {found.n} of {found.split})"
    except (ContractError, ValueError, TypeError, RecursionError):
        return "its figures can't be read", ""
