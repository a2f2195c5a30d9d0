"""A machine that comes for one run and goes with it: when the run is over, `down`, and then the result is brought here.

What is owed stands on disk before it is done, so whoever comes after a crash (`attach`, `status`, `down`) completes it:

    record of the machine   from before it is asked for, until it is gone and the results of its runs are here
    lock beside it          held by the process that sees to it; while it lives, nobody else does

Only a result that is missing from the store keeps the machine, within its end of life. The record is of this computer;
without one, the machine's name tells (`named_by_run`), and `attach` completes from anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from orchestrator.errors import NotFoundError, PartialError, TlvmError
from orchestrator.records import EphemeralRecord, RunRecord
from orchestrator.workflows.clock import Clock
from orchestrator.workflows.machines.down import AtWork, DownResult, down
from orchestrator.workflows.results.pull import pull
from orchestrator.workflows.runs.documents import StoredRun, stored_run
from orchestrator.workflows.runs.machine_runs import is_silent
from orchestrator.workflows.runs.named_by_run import run_of
from orchestrator.workflows.runs.overview import called
from orchestrator.workflows.workspace import Workspace
from remote.contract.document import ContractError


@dataclass(frozen=True)
class Ended:
    """What became of the machine once its run was over."""

    down: DownResult | None = None  # None: it is still there
    kept: TlvmError | None = None  # why; None when another run of its line goes on


def is_ephemeral(workspace: Workspace, machine: str) -> bool:
    if run_of(machine):
        return True
    return workspace.records.ephemeral(workspace.settings.provider, machine) is not None


def end(workspace: Workspace, machine: str, over: Sequence[str], *, clock: Clock | None = None) -> Ended:
    """Verify, delete, confirm, and bring files here beside that. Twice is once.

    over    the runs that have ended: their results must be in the store, whatever the machine says
    """
    try:
        result = down(workspace.of_machine(machine), also=over, clock=clock)
    except AtWork:
        return Ended()
    except TlvmError as error:
        again = f"tlvm attach {called(workspace, over[-1])}" if over else "tlvm status"
        error.detail = "\n".join(part for part in (error.detail, ends(workspace, machine)) if part)
        error.next = f"{again} tries again. {error.next}".strip()
        return Ended(kept=error)
    return Ended(down=result)


def became(machine: str, ended: Ended) -> str:
    """A sentence on what became of it, for the last words of a run that has no result."""
    if ended.down is not None and ended.down.deleted:
        cost = f"; its life cost about ${ended.down.cost:.2f}" if ended.down.cost >= 0.01 else ""
        return f"Its machine {machine} is gone, confirmed twice{cost}."
    if ended.down is not None:
        return f"Its machine {machine} is gone."
    if ended.kept is not None:
        return f"Its machine {machine} is still there. {ended.kept}"
    return f"Its machine {machine} is still there, for the other runs of its line."


def settle(workspace: Workspace, machine: str) -> None:
    """Nothing is owed any more once every run of the machine is here; it is gone already."""
    if all(run.pulled_to for run in _runs(workspace, machine)):
        workspace.records.forget_ephemeral(workspace.settings.provider, machine)


def ends(workspace: Workspace, machine: str) -> str:
    """A sentence on what ends the machine if nobody comes back; "" when it is gone or can't be asked."""
    try:
        found = workspace.provider.get(machine)
    except TlvmError:
        return f"The machine {machine} ends by itself at the end of its life; tlvm status shows when."
    if found is None:
        return ""
    price = f", at ${found.price_per_hour:.2f} an hour" if found.price_per_hour else ""
    idle, action = found.settings.get("idle_minutes", ""), found.settings.get("idle_action", "")
    idles = f", and after {idle.removesuffix('.0')} min without a run ({action})" if idle.strip("0.") else ""
    return (
        f"The machine {machine} ends by itself at {found.ends.astimezone():%Y-%m-%d %H:%M}{price}, "
        f"whatever happens here{idles}."
    )


def not_here(run_id: str, name: str, why: str) -> PartialError:
    """The result is safe in the store and the machine is gone; only the way here failed."""
    return PartialError(
        f"The run {run_id} succeeded and its machine is gone, but its result is not here",
        detail=why,
        next=f"It is whole in the store: tlvm pull {name} fetches it.",
    )


def down_and_complete(
    workspace: Workspace, *, force: bool = False, confirm: Callable[[str], bool] | None = None
) -> DownResult:
    """`tlvm down`: the machine that is meant, and beside it those that processes left which were killed."""
    result = down(workspace, force=force, confirm=confirm)
    complete(workspace)
    return result


def complete(workspace: Workspace, *, clock: Clock | None = None) -> list[DownResult]:
    """Go on with what processes left that were killed, or whose run was left to itself and is over now.

    Returns the machines that were ended; what can't be done now is a warning, and tried again the next time.
    """
    ended = []
    for record in workspace.records.ephemerals():
        with workspace.records.seeing_to(record.provider, record.machine) as alone:
            if not alone:
                continue
            try:
                result = _complete(workspace.on_provider(record.provider), record, clock)
            except TlvmError as error:
                workspace.progress.warn(f"{record.machine}, of {record.run_id}: {error}")
                continue
            if result is not None and result.deleted:
                ended.append(result)
    return ended


def _complete(workspace: Workspace, record: EphemeralRecord, clock: Clock | None) -> DownResult | None:
    """None while some run has not ended: its end is what the machine waits for."""
    known = [run for run in map(partial(_stored, workspace), _runs(workspace, record.machine)) if run]
    # Others were announced in vain.
    begun = [run for run in known if run.status is not None or not is_silent(run)]
    if any(run.active for run in begun):
        return None
    workspace.progress.say("complete", f"{record.machine}, which was made for {record.run_id} alone")
    ended = end(workspace, record.machine, [run.spec.run_id for run in begun], clock=clock)
    if ended.kept is not None:
        raise ended.kept
    if ended.down is not None:
        for run in _runs(workspace, record.machine):
            _bring(workspace, run)
        settle(workspace, record.machine)
    return ended.down


def _stored(workspace: Workspace, run: RunRecord) -> StoredRun | None:
    try:
        return stored_run(workspace.store, run.run_id)
    except ContractError:
        return None  # the machine is asked for it, and its result is looked for


def _bring(workspace: Workspace, run: RunRecord) -> None:
    """What the store has of a run that is over. One that never started, or was deleted, has nothing."""
    if run.pulled_to:
        return
    try:
        pull(workspace, run.run_id)
    except NotFoundError:
        workspace.records.forget_run(run.run_id)


def _runs(workspace: Workspace, machine: str) -> list[RunRecord]:
    provider = workspace.settings.provider
    return [run for run in workspace.records.runs() if (run.provider, run.machine) == (provider, machine)]


def intend(workspace: Workspace, machine: str, run_id: str) -> None:
    """On disk before the machine is asked for."""
    asked = datetime.now(UTC).isoformat(timespec="seconds")
    workspace.records.save_ephemeral(EphemeralRecord(machine, workspace.settings.provider, run_id, asked))
