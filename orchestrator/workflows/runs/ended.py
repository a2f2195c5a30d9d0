"""Runs whose machine somebody ends on purpose: noted where every computer sees it, before the act, for every provider.

From then on nobody brings such a run back without being asked to. Once it has begun again the note has no force.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from orchestrator.errors import ConflictError, TlvmError
from orchestrator.stores.base import Store
from orchestrator.workflows.runs.documents import StoredRun
from orchestrator.workflows.runs.notes import read_notes, write_notes
from orchestrator.workflows.workspace import Workspace
from remote.contract.document import ContractError

_TRIES = 5


def note_ended(workspace: Workspace, runs: Sequence[StoredRun]) -> None:
    """Before their machine is deleted or stopped. What can't be noted is said, and keeps no machine that costs money."""
    for run in runs:
        try:
            _note(workspace.store, run)
        except (TlvmError, ContractError) as error:
            workspace.progress.warn(f"That {run.spec.run_id} was ended on purpose can't be noted: {error}")


def was_ended(store: Store, run: StoredRun) -> bool:
    """Somebody ended the machine that it was on last."""
    try:
        notes, _ = read_notes(store, run.spec.run_id)
    except ContractError:
        return False
    return notes.ended == run.last_number


def _note(store: Store, run: StoredRun) -> None:
    for _ in range(_TRIES):
        notes, generation = read_notes(store, run.spec.run_id)
        try:
            noted = dataclasses.replace(notes, ended=run.last_number)
            return write_notes(store, run.spec.run_id, noted, generation)
        except ConflictError:  # somebody tags it at the same time
            continue
    raise ConflictError("somebody else writes there all the time")
