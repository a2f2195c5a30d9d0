"""A line of runs, as one table: what each scenario reached, for how much."""

from __future__ import annotations

import json
from collections.abc import Mapping
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
        for number, run in enumerate(line.runs):
            how = "starts" if number == 0 else f"place {number} in line"
            screen.line(labelled("started", f"{run.run_id} on {line.machine}: {how}"))
        if line.ends:
            screen.line(line.ends)
        screen.next(f"tlvm attach {names[0]} comes back to the first; tlvm status shows the line")
        return
    for text, run in zip(
        columns([row(run, name) for run, name in zip(line.runs, names, strict=True)]), line.runs, strict=True
    ):
        screen.line(text, style="red" if run.error else "")
    good = [name for run, name in zip(line.runs, names, strict=True) if run.result]
    cost = sum(run.result.cost for run in line.runs if run.result)
    screen.line(
        f"{len(good)} of {count(len(line.runs), 'run')} verified and pulled, {about(cost)}",
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


def row(run: LineRun, name: str) -> tuple[str, ...]:
    """Scenario, accuracy or what went wrong, interval, time, cost, and the run."""
    if run.result is None:
        return (run.scenario, run.error.what if run.error else "", "", "", "", name)
    figure, interval = _figure(run.result.metrics)
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
