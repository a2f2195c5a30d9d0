"""What `gc` found, what it deleted, and what it left alone."""

from __future__ import annotations

from orchestrator.render.console import Screen
from orchestrator.render.text import about, clock, columns, duration
from orchestrator.workflows.machines.gc import GcResult, Item
from remote.contract.wording import count

_STYLES = {"deleted": "green", "kept": "red", "would go": "yellow", "theirs": "dim"}


def collected(screen: Screen, result: GcResult) -> None:
    rows = [_row(result, item) for item in result.items]
    for line, row in zip(columns(rows), rows, strict=True):
        screen.line(line, style=_STYLES.get(row[0], ""))
    wanted = [item for item in result.items if item.fate in ("expired", "asked for")]
    deleted = [item for item in wanted if item.deleted]
    listed = [item for item in result.items if item.fate == "listed" and item.owner]
    saved = sum(item.per_month for item in deleted)
    if not result.items:
        screen.line(f"Nothing of tlvm is on the provider {result.provider}.")
    elif not wanted:
        screen.line("Nothing has expired; nothing was deleted.")
    elif result.dry_run:
        screen.line(f"{count(len(wanted), 'thing')} would be deleted; nothing was.")
    else:
        saves = f", which saves {about(saved)} a month (estimate)" if saved else ""
        screen.line(f"{count(len(deleted), 'thing')} of {len(wanted)} deleted{saves}.")
    if result.dry_run and wanted:
        screen.next("the same without --dry-run")
    elif len(deleted) < len(wanted):
        screen.next("tlvm gc again; what was kept may cost money")
    elif listed:
        screen.next(f"tlvm gc {listed[0].name} deletes that one, tlvm gc --mine everything of yours")
    else:
        screen.next("tlvm status")


def _row(result: GcResult, item: Item) -> tuple[str, ...]:
    if item.fate == "not touched":
        word = "theirs"
    elif item.fate == "listed":
        word = "yours" if item.owner else "shared"
    elif item.deleted:
        word = "deleted"
    else:
        word = "would go" if result.dry_run else "kept"
    words = [item.state] if item.state else []
    words += [f"{item.size_gb} GB"] if item.size_gb else []
    words += [_until(result, item)] if item.expires else []
    words += [f"of {item.owner}"] if word == "theirs" else []
    words += [f"{about(item.per_hour)} an hour"] if item.per_hour else []
    words += [f"{about(item.per_month)} a month"] if item.per_month and not item.per_hour else []
    words += [item.why] if item.why else []
    return word, item.kind, item.name, item.place, ", ".join(words) or "free"


def _until(result: GcResult, item: Item) -> str:
    assert item.expires is not None
    ago = (result.now - item.expires).total_seconds()
    return f"expired {duration(ago)} ago" if ago >= 0 else f"until {clock(item.expires, result.now)}"
