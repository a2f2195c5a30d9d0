"""`tlvm runs`: every run that the store knows, and which one is meant by the end of an id."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from orchestrator.config import nearest
from orchestrator.errors import ConfigError, NotFoundError
from orchestrator.stores.base import Store
from orchestrator.workflows.machines.seen import Seen, no_machine, seen
from orchestrator.workflows.results.metrics import accuracies
from orchestrator.workflows.runs.attempts import AttemptLine, attempt_lines, goes_on_with
from orchestrator.workflows.runs.documents import StoredRun, read_runs, run_ids, short
from orchestrator.workflows.runs.index import run_index
from orchestrator.workflows.runs.notes import RunNotes, notes_of_all
from orchestrator.workflows.runs.remembered import RememberedRuns
from orchestrator.workflows.runs.unfinished import Heard, heard
from orchestrator.workflows.workspace import Workspace
from remote.contract import layout
from remote.contract.document import ContractError
from remote.contract.run_spec import RunSpec
from remote.contract.run_status import FINAL

__all__ = ["RunRow", "RunsResult", "called", "find", "runs", "short"]


Sort = Literal["accuracy", "cost", "time", "size"]
SORTS: tuple[Sort, ...] = ("accuracy", "cost", "time", "size")


@dataclass(frozen=True)
class RunRow:
    run_id: str
    state: (
        str  # LOST when its machine is gone without a final one, INTERRUPTED when nothing of it runs any more
    )
    message: str
    scenario: str
    dataset: str
    dataset_version: str
    model: str
    weights: str  # for people: "ImageNet V1"
    machine: str
    owner: str
    project: str
    created: str  # ISO 8601, UTC
    started: str | None
    finished: str | None
    published: bool  # its result is in the store
    pulled_to: str | None  # where it lies on this computer
    updated: str = ""  # ISO 8601: the last word of the run itself
    doubt: str = ""  # what speaks against the store's last word: "its machine is gone"
    attempts: list[AttemptLine] = field(default_factory=list)  # the oldest first
    cost: float = 0  # dollars, an estimate; of all attempts
    goes_on_with: str = ""  # the command that brings it back, when nothing of it runs
    tags: list[str] = field(default_factory=list)
    note: str = ""
    needs: str = ""  # the run whose model it begins with, or measures
    accuracy: float | None = None  # as it reported it, and
    bytes: int | None = None  # of everything it has in the store: where it was sorted by that


@dataclass(frozen=True)
class RunsResult:
    store: str
    runs: list[RunRow]  # newest first, or as they were sorted: the most first
    problems: list[str]  # documents in the store that can't be read, and machines that are not seen
    older: int = 0  # more of them, which are over and were not asked for

    def shown(self, count: int) -> list[RunRow]:
        """So many, and every one that has not ended, however old."""
        return [*self.runs[:count], *(run for run in self.runs[count:] if run.state not in FINAL)]


def runs(
    workspace: Workspace,
    *,
    machine: str | None = None,
    tag: str | None = None,
    sort: Sort | None = None,
    newest: int | None = None,
) -> RunsResult:
    """The store is asked, the provider where a run has no final status, and its machine where that run is silent.

    machine         only the runs of machines of this name
    tag             only the runs that have it
    sort            the most of it first, and runs that have none of it last; None: the newest first
    newest          so many, and every one that is not over; the others are counted, where that is all that is asked
    NotFoundError   there is neither a run nor a machine of that name, or no run with that tag
    """
    remembered = RememberedRuns(workspace.records.cache, workspace.store.url)
    all_of_them = newest is None or any(wish is not None for wish in (machine, tag, sort))
    index = run_index(workspace.store)
    wanted = index.ids if all_of_them else index.newest(newest or 0)
    found, problems = read_runs(workspace.store, wanted, remembered)
    found.reverse()
    if machine is not None:
        known = {run.machine for run in found}
        found = [run for run in found if run.machine == machine]
        if not found and workspace.provider.get(machine) is None:
            raise no_machine(machine, workspace.settings.provider, known)
    notes = notes_of_all(workspace.store)
    if tag is not None:
        found = [run for run in found if tag in notes.get(run.spec.run_id, RunNotes()).tags]
        if not found:
            known = {tag for note in notes.values() for tag in note.tags}
            next = nearest(tag, sorted(known)) if known else f"tlvm runs tag RUN {tag} gives it to one."
            raise NotFoundError(f"No run has the tag {tag!r}", next=next)
    there = seen(workspace.provider) if any(run.active for run in found) else Seen([])
    words = heard(workspace, found, there.machines, all_seen=there.all_of_them)
    rows = [_row(workspace, run, words[run.spec.run_id], index.ids, notes) for run in found]
    older = len(index.ids) - len(wanted)
    return RunsResult(
        workspace.store.url, _sorted(workspace.store, rows, sort), [*there.problems, *problems], older
    )


def find(workspace: Workspace, run: str) -> str:
    """The id of the run that is meant: the whole id, or an end of it that no other run has.

    NotFoundError   with the nearest id
    ConfigError     several end so; the list
    """
    try:
        run_id = layout.checked_run_id(run)
    except ContractError:
        pass
    else:
        if workspace.store.get(layout.run_key(run_id, "spec.json")):
            return run_id
    known = run_ids(workspace.store)
    meant = [run_id for run_id in known if run and run_id.endswith(run)]
    if len(meant) > 1:
        raise ConfigError(
            f"Several runs end with {run[:80]!r}", detail="\n".join(meant), next="Give more of the id."
        )
    if not meant:
        hint = nearest(run, known[-5:]) if known else "tlvm run SCENARIO starts one."
        raise NotFoundError(f"There is no run {run[:80]!r} in {workspace.store.url}", next=hint)
    return meant[0]


def called(workspace: Workspace, run_id: str) -> str:
    """The same against the runs that this computer started: nothing is asked for it."""
    return short(run_id, (record.run_id for record in workspace.records.runs()))


def _row(
    workspace: Workspace, run: StoredRun, known: Heard, ids: Sequence[str], notes: Mapping[str, RunNotes]
) -> RunRow:
    spec, status, lines = run.spec, run.status, attempt_lines(run)
    said = notes.get(spec.run_id, RunNotes())
    record = workspace.records.run(spec.run_id)
    return RunRow(
        run_id=spec.run_id,
        state=known.state,
        message=known.message,
        scenario=spec.scenario,
        dataset=spec.dataset.name,
        dataset_version=spec.dataset.version,
        model=spec.model,
        weights=spec.weights.source,
        machine=run.machine,
        owner=spec.owner,
        project=spec.project,
        created=spec.created,
        started=status.started if status else None,
        finished=status.finished if status else None,
        published=status.published if status else False,
        pulled_to=record.pulled_to if record else None,
        updated=known.updated,
        doubt=known.doubt,
        attempts=lines,
        cost=sum(line.cost for line in lines),
        goes_on_with=goes_on_with(workspace, run, known.state, ids),
        tags=said.tags,
        note=said.note,
        needs=needs(spec),
    )


def needs(spec: RunSpec) -> str:
    """The run whose model this one begins with, or measures; "" when there is none."""
    if spec.evaluates:
        return spec.evaluates.run_id
    key = spec.weights.key
    return key.removeprefix(layout.RUNS).partition("/")[0] if key.startswith(layout.RUNS) else ""


def _sorted(store: Store, rows: list[RunRow], sort: Sort | None) -> list[RunRow]:
    if sort is None:
        return rows
    if sort == "accuracy":
        right = accuracies(store, [row.run_id for row in rows if row.published])
        rows = [dataclasses.replace(row, accuracy=right.get(row.run_id)) for row in rows]
    elif sort == "size":
        taken = _sizes(store)
        rows = [dataclasses.replace(row, bytes=taken[row.run_id]) for row in rows]

    def amount(row: RunRow) -> float:
        found = {"accuracy": row.accuracy, "size": row.bytes, "cost": row.cost, "time": _seconds(row)}[sort]
        return -1.0 if found is None else found

    return sorted(rows, key=amount, reverse=True)


def _seconds(row: RunRow) -> float | None:
    if not row.started or not row.finished:
        return None
    return (datetime.fromisoformat(row.finished) - datetime.fromisoformat(row.started)).total_seconds()


def _sizes(store: Store) -> Counter[str]:
    """Bytes by run id: its files and its checkpoints. One listing, whatever the number of runs."""
    found: Counter[str] = Counter()
    for prefix in (layout.RUNS, layout.CHECKPOINTS):
        for blob in store.blobs(prefix):
            found[blob.key.removeprefix(prefix).partition("/")[0]] += blob.size
    return found
