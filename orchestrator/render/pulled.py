"""What was pulled: one result, or all that were not here."""

from __future__ import annotations

from orchestrator.render.console import Screen
from orchestrator.render.progress import labelled
from orchestrator.render.text import size
from orchestrator.workflows.results.pull import PullAllResult, PullResult
from orchestrator.workflows.runs.overview import short
from remote.contract.wording import count


def one(screen: Screen, result: PullResult) -> None:
    _line(screen, result)
    if result.state == "SUCCEEDED":
        screen.next(f"tlvm predict {short(result.run_id)} IMAGES")
    else:
        screen.next(f"tlvm logs {short(result.run_id)} (the run ended as {result.state.lower()})")


def several(screen: Screen, result: PullAllResult) -> None:
    for problem in result.problems:
        screen.progress.warn(problem)
    for found in result.pulled:
        _line(screen, found)
    for run_id, why in result.failed.items():
        screen.line(labelled("not here", f"{run_id}: {why}"), style="yellow")
    if not result.pulled and not result.failed:
        screen.line("Every finished run of this project is here.")
    if result.failed:
        screen.next("tlvm pull --all goes on with those that are not here")
    else:
        screen.next("tlvm runs")


def _line(screen: Screen, result: PullResult) -> None:
    fetched = f"{count(result.fetched, 'file')} fetched" if result.fetched else "all were there already"
    screen.line(
        labelled(
            "pulled",
            f"{result.run_id}: {count(result.files, 'file')}, {size(result.bytes)}, every one verified; {fetched}"
            f" → {result.folder}",
        ),
        style="green" if result.state == "SUCCEEDED" else "",
    )
