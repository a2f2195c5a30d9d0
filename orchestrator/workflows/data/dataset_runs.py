"""Which runs name a version of a dataset: without it they can't be repeated, compared or measured again."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from orchestrator.errors import ConflictError
from orchestrator.workflows.runs.documents import StoredRun, stored_runs
from orchestrator.workflows.runs.overview import short
from orchestrator.workflows.runs.unfinished import heard
from orchestrator.workflows.workspace import Workspace
from remote.contract.run_status import LOST
from remote.contract.wording import count, listed

_LISTED_MAX = 10


@dataclass(frozen=True)
class NamedBy:
    finished: list[str]  # run ids, oldest first
    unfinished: dict[str, str]  # state by run id: "running"


def named_by(workspace: Workspace, name: str, versions: Collection[str]) -> NamedBy:
    """Runs on one of these versions, or that measure a model which was trained on one."""
    runs, problems = stored_runs(workspace.store)
    for problem in problems:
        workspace.progress.warn(f"Whether this run names the dataset is not known: {problem}")
    found = [run for run in runs if any((name, version) in _names(run) for version in versions)]
    active = [run for run in found if run.active]
    words = heard(workspace, active, workspace.provider.machines()) if active else {}
    unfinished = {run_id: word.state.lower() for run_id, word in words.items() if word.state != LOST}
    ids = [run.spec.run_id for run in found]
    return NamedBy([run_id for run_id in ids if run_id not in unfinished], unfinished)


def refuse_unfinished(what: str, named: NamedBy) -> None:
    """ConflictError naming the runs that would lose their images under way."""
    if number := len(named.unfinished):
        first = short(next(iter(named.unfinished)), [*named.unfinished, *named.finished])
        raise ConflictError(
            f"{what} is kept: {count(number, 'run')} on it {'is' if number == 1 else 'are'} not finished",
            detail="\n".join(f"{run_id}: {state}" for run_id, state in named.unfinished.items()),
            next=f"Wait (tlvm logs -f {first}); or --force removes it, and those runs may fail.",
        )


def consequence(named: NamedBy) -> str:
    """ "2 runs name it and can't be repeated then: k3qz, 9w2d"; "" when none does."""
    ids = [*named.unfinished, *named.finished]
    if not ids:
        return ""
    named_by = listed(ids, _LISTED_MAX, lambda run_id: short(run_id, ids))
    verb = "names" if len(ids) == 1 else "name"
    return f"{count(len(ids), 'run')} {verb} it and can't be repeated then: {named_by}"


def _names(run: StoredRun) -> set[tuple[str, str]]:
    refs = [run.spec.dataset, *([run.spec.evaluates.trained_on] if run.spec.evaluates else [])]
    return {(ref.name, ref.version) for ref in refs}
