"""`tlvm runs rm`: runs that are no longer wanted go from the store."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from orchestrator.errors import ConfigError, ConflictError
from orchestrator.stores.base import Store
from orchestrator.workflows.machines.seen import seen
from orchestrator.workflows.runs.documents import short
from orchestrator.workflows.runs.notes import KEEP, RunNotes, write_notes
from orchestrator.workflows.runs.overview import RunRow, find, runs
from orchestrator.workflows.workspace import Workspace
from remote.contract import layout
from remote.contract.run_status import FINAL, LOST
from remote.contract.wording import count, listed

_NAMED_MAX = 10


@dataclass(frozen=True)
class RunsRemoved:
    run_ids: list[str]  # newest first
    files: int
    bytes: int
    removed: bool = True  # False: the user said no, or only asked what would go
    kept: list[str] = field(default_factory=list)  # of those that were meant by age or state: tagged `keep`
    # Runs that began with a model of these, or measured it.
    needed_by: list[str] = field(default_factory=list)
    # Folders of their results on this computer, left as they are.
    here: list[str] = field(default_factory=list)


def remove(
    workspace: Workspace,
    named: Sequence[str],
    *,
    older_than_days: float | None = None,
    failed: bool = False,
    dry_run: bool = False,
    force: bool = False,
    confirm: Callable[[str], bool] | None = None,
    now: datetime | None = None,
) -> RunsRemoved:
    """Remove runs from the store: their results, logs, checkpoints and notes. Folders on this computer stay.

    named           ids, or the ends of ids; with none of them, my runs that the two rules mean, except those tagged `keep`
    older_than_days ended, or was last heard of, so long ago
    failed          ended without a result: failed, cancelled, or lost with their machine
    force           also named runs of somebody else, or that may still go on
    confirm         asked once
    ConfigError     nothing says which runs
    ConflictError   a named run is at work, waits, may go on, is somebody else's, or has its only result on its machine
    """
    if named and (older_than_days is not None or failed):
        raise ConfigError("Runs are named, or meant by age and state; not both")
    if not named and older_than_days is None and not failed:
        raise ConfigError(
            "Which runs?",
            next="tlvm runs rm RUN..., or --older-than DAYS, or --failed; tlvm runs lists them.",
        )
    rows = runs(workspace).runs
    if named:
        ids = list(dict.fromkeys(find(workspace, run) for run in named))
        chosen, kept = _named(workspace, rows, ids, force=force), []
    else:
        since = (now or datetime.now(UTC)) - timedelta(days=older_than_days or 0)
        meant = [row for row in rows if _is_meant(workspace, row, since, failed=failed)]
        chosen = [row for row in meant if KEEP not in row.tags]
        kept = [row.run_id for row in meant if KEEP in row.tags]
    gone = _what_goes(workspace, rows, chosen, kept)
    if not chosen or dry_run or (confirm and not confirm(_question(gone))):
        return dataclasses.replace(gone, removed=False)
    there = seen(workspace.provider)
    machines = {machine.name for machine in there.machines}
    for row in chosen:
        _remove(workspace, row.run_id, still_known=row.machine in machines or not there.all_of_them)
    return gone


def _named(workspace: Workspace, rows: Sequence[RunRow], ids: Sequence[str], *, force: bool) -> list[RunRow]:
    chosen = [row for row in rows if row.run_id in ids]
    if force:
        return chosen
    for row in chosen:
        name = short(row.run_id, [one.run_id for one in rows])
        if row.owner != workspace.settings.owner_label:
            raise ConflictError(
                f"The run {row.run_id} belongs to {row.owner}", next="--force removes it all the same."
            )
        if row.state not in FINAL and row.state != LOST:
            raise ConflictError(
                f"The run {row.run_id} is {row.state.lower()}", next=f"tlvm cancel {name} ends it."
            )
        if row.state == "SUCCEEDED" and not row.published:
            raise ConflictError(
                f"The result of {row.run_id} is on its machine only",
                next=f"tlvm attach {name} brings it; --force removes what the store has of it.",
            )
    return chosen


def _is_meant(workspace: Workspace, row: RunRow, since: datetime, *, failed: bool) -> bool:
    """By age and state. What is at work, may go on, or is not whole in the store is never meant by a rule."""
    without_result = row.state in ("FAILED", "CANCELLED", LOST)
    over = without_result or (row.state == "SUCCEEDED" and row.published)
    last = row.finished or row.updated or row.created
    return (
        row.owner == workspace.settings.owner_label
        and over
        and (without_result or not failed)
        and datetime.fromisoformat(last).astimezone(UTC) <= since
    )


def _what_goes(
    workspace: Workspace, rows: Sequence[RunRow], chosen: Sequence[RunRow], kept: list[str]
) -> RunsRemoved:
    ids = {row.run_id for row in chosen}
    blobs = [blob for run_id in ids for prefix in _prefixes(run_id) for blob in workspace.store.blobs(prefix)]
    return RunsRemoved(
        run_ids=[row.run_id for row in chosen],
        files=len(blobs),
        bytes=sum(blob.size for blob in blobs),
        kept=kept,
        needed_by=[row.run_id for row in rows if row.run_id not in ids and row.needs in ids],
        here=[row.pulled_to for row in chosen if row.pulled_to],
    )


def _question(gone: RunsRemoved) -> str:
    names = listed(gone.run_ids, _NAMED_MAX, lambda run_id: short(run_id, gone.run_ids))
    needed = (
        f" {count(len(gone.needed_by), 'run')} began with their models, or measured them, and can't be repeated then."
        if gone.needed_by
        else ""
    )
    return f"{count(len(gone.run_ids), 'run')}: {names}.{needed} Remove them from the store?"


def _remove(workspace: Workspace, run_id: str, *, still_known: bool) -> None:
    """First what makes it a result, last what makes it a run: one that is cut off is found and removed by the next.

    still_known     by its machine, which `down` would keep for a result that nobody wants: so that is noted
    """
    store = workspace.store
    manifest, spec = layout.run_key(run_id, "MANIFEST.json"), layout.run_key(run_id, "spec.json")
    store.delete(manifest)
    for prefix in _prefixes(run_id):
        _empty(store, prefix, spec)
    notes = store.get(layout.notes_key(run_id))
    if still_known:
        write_notes(store, run_id, RunNotes(removed=True), notes.generation if notes else 0)
    else:
        store.delete(layout.notes_key(run_id))
    store.delete(spec)
    workspace.records.forget_run(run_id)


def _prefixes(run_id: str) -> tuple[str, str]:
    return layout.run_key(run_id), layout.checkpoints_prefix(run_id)


def _empty(store: Store, prefix: str, but: str) -> None:
    for blob in list(store.blobs(prefix)):
        if blob.key != but:
            store.delete(blob.key)
