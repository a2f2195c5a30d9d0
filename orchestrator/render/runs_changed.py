"""Runs that were tagged or removed, on the screen."""

from __future__ import annotations

from orchestrator.render.console import Screen
from orchestrator.render.progress import labelled
from orchestrator.render.text import size
from orchestrator.workflows.runs.documents import short
from orchestrator.workflows.runs.notes import KEEP
from orchestrator.workflows.runs.remove import RunsRemoved
from orchestrator.workflows.runs.tag import TagResult
from remote.contract.wording import count

_LISTED_MAX = 10


def tagged(screen: Screen, result: TagResult) -> None:
    tags = " ".join(f"#{tag}" for tag in result.tags) or "no tags"
    screen.line(labelled("tagged", f"{result.run_id}: {tags}"))
    if result.note:
        screen.line(labelled("note", result.note))
    screen.next(
        f"tlvm runs --tag {result.tags[0]}" if result.tags else f"tlvm runs tag {result.run_id[-4:]} TAG"
    )


def removed(screen: Screen, result: RunsRemoved) -> None:
    for run_id in result.kept:
        screen.line(labelled("kept", f"{run_id}, which is tagged {KEEP}"))
    if not result.run_ids:
        screen.line("There is no such run to remove.")
        screen.next("tlvm runs")
        return
    for run_id in result.run_ids[:_LISTED_MAX]:
        screen.line(labelled("removed" if result.removed else "run", run_id))
    if len(result.run_ids) > _LISTED_MAX:
        screen.line(f"... and {len(result.run_ids) - _LISTED_MAX} more (--json lists all)")
    what = f"{count(len(result.run_ids), 'run')}, {count(result.files, 'file')}, {size(result.bytes)}"
    if not result.removed:
        screen.line(f"Nothing was removed: {what} {'is' if len(result.run_ids) == 1 else 'are'} still there.")
        screen.next("the same without --dry-run")
        return
    screen.line(labelled("freed", f"{size(result.bytes)}: {what.rpartition(', ')[0]}"), style="green")
    if result.needed_by:
        names = ", ".join(short(run_id, result.needed_by) for run_id in result.needed_by[:_LISTED_MAX])
        screen.line(labelled("warn", f"these can't be repeated now: {names}"), style="yellow")
    for folder in result.here[:_LISTED_MAX]:
        screen.line(labelled("stays", folder))
    screen.next("tlvm runs")
