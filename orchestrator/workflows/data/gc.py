"""`tlvm datasets gc`: packs that no version names any more go."""

from __future__ import annotations

import time

from orchestrator.datasets.packs.collect import GRACE_HOURS, Collected, collect
from orchestrator.stores.base import Store
from orchestrator.workflows.runs.documents import stored_runs
from orchestrator.workflows.workspace import Workspace


def gc(workspace: Workspace, *, grace_hours: float = GRACE_HOURS, dry_run: bool = False) -> Collected:
    """Delete packs that no version names, `grace_hours` after they were first found so; pack anew what wastes room."""
    store = workspace.store
    return collect(
        store,
        now=time.time(),
        grace_hours=grace_hours,
        dry_run=dry_run,
        named_by_runs=lambda: _named_by_runs(store),
    )


def _named_by_runs(store: Store) -> set[tuple[str, str]] | None:
    """Dataset and version of every run; None when a run can't be read."""
    runs, problems = stored_runs(store)
    if problems:
        return None
    refs = [run.spec.dataset for run in runs]
    refs += [run.spec.evaluates.trained_on for run in runs if run.spec.evaluates]
    return {(ref.name, ref.version) for ref in refs}
