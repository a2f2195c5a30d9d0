"""`tlvm run --if-changed`: the earlier run that did the same, as the answer; no machine is asked for.

The same is: dataset version, scenario, parameters, model, weights, seed, names of its variables, and our code on the
machine. Not the machine: what a GPU computes may differ from a CPU in the last digits. Nor its hours, unless they were
over before the last epoch, and now there are more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Any

from orchestrator import bundle
from orchestrator.workflows.results.metrics import cut_short
from orchestrator.workflows.results.result import RunResult, started
from orchestrator.workflows.runs.attach import attach
from orchestrator.workflows.runs.documents import StoredRun, result_problem, stored_runs
from orchestrator.workflows.runs.recover import Recovery
from orchestrator.workflows.runs.remembered import RememberedRuns
from orchestrator.workflows.runs.unfinished import heard
from orchestrator.workflows.runs.wish import Wish
from orchestrator.workflows.workspace import Workspace
from remote.contract.run_spec import RunSpec
from remote.contract.run_status import LOST


def unchanged(workspace: Workspace, wish: Wish, environment: Collection[str] = ()) -> StoredRun | None:
    """The newest run of this owner that did the same and is whole in the store; else one that is at it, or waits; else None."""
    (found,) = unchanged_each(workspace, [wish], environment)
    return found


def unchanged_each(
    workspace: Workspace, wishes: Sequence[Wish], environment: Collection[str] = ()
) -> list[StoredRun | None]:
    """The same of several, for which the store is read once."""
    remembered = RememberedRuns(workspace.records.cache, workspace.store.url)
    code, owner = bundle.code(), workspace.settings.owner_label
    stored, _ = stored_runs(workspace.store, remembered)
    mine = [run for run in reversed(stored) if run.spec.owner == owner]
    return [
        _earlier(workspace, wish, [run for run in mine if _is_same(run.spec, wish, environment, code)])
        for wish in wishes
    ]


def answer(
    workspace: Workspace,
    run: StoredRun,
    recovery: Recovery,
    *,
    detach: bool = False,
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> RunResult:
    """Its verified result, brought here. One that has not ended is followed to its end first, unless detached."""
    run_id = run.spec.run_id
    if run.active and detach:
        begun = started(run.spec)
        return dataclasses.replace(begun, machine=run.machine, state=run.state, unchanged=True)
    if run.active:
        workspace.progress.say("unchanged", f"{run_id} is at the same already: it is followed")
    given = recovery.environment or None
    found = attach(workspace, run_id, recover=recovery.rent, environment=given, on_event=on_event)
    return dataclasses.replace(found, unchanged=True)


def _earlier(workspace: Workspace, wish: Wish, same: Sequence[StoredRun]) -> StoredRun | None:
    for run in same:
        if run.state == "SUCCEEDED":
            problem = result_problem(workspace.store, run.spec.run_id) or _lacked_hours(workspace, run, wish)
            if not problem:
                return run
            workspace.progress.warn(f"{run.spec.run_id} did the same, and can't be the answer: {problem}")
    active = [run for run in same if run.active]
    words = heard(workspace, active, workspace.provider.machines()) if active else {}
    for run in active:
        if words[run.spec.run_id].state != LOST:
            return run
        workspace.progress.warn(
            f"{run.spec.run_id} did the same, and is lost: {words[run.spec.run_id].doubt}"
        )
    return None


def _lacked_hours(workspace: Workspace, run: StoredRun, wish: Wish) -> str:
    if wish.max_hours <= run.spec.max_hours:
        return ""
    came = cut_short(workspace.store, run.spec.run_id)
    return (
        f"its {run.spec.max_hours:g} hours were over {came}, and this one has {wish.max_hours:g}"
        if came
        else ""
    )


def _is_same(spec: RunSpec, wish: Wish, environment: Collection[str], code: str) -> bool:
    """A spec of before code was told is the same as none."""
    return (
        spec.job == "train"
        and spec.code == code
        and (spec.dataset, spec.scenario, spec.model, spec.seed)
        == (wish.dataset, wish.scenario, wish.model, wish.seed)
        and spec.parameters == wish.parameters
        and spec.weights.sha256 == wish.weights.sha256
        and sorted(spec.environment) == sorted(environment)
    )
