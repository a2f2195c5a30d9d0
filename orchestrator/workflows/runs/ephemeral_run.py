"""`tlvm run ... --ephemeral`: up, run, verify in the store, down, pull, as one transaction on a machine of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol, TypeVar

from orchestrator.errors import ConflictError, Interruption, TlvmError
from orchestrator.providers.base import Machine
from orchestrator.workflows.clock import Clock
from orchestrator.workflows.machines.down import down
from orchestrator.workflows.machines.up import up
from orchestrator.workflows.runs import ephemeral
from orchestrator.workflows.runs.documents import stored_run
from orchestrator.workflows.runs.launch import Detached
from orchestrator.workflows.runs.line import LineResult
from orchestrator.workflows.runs.named_by_run import machine_of
from orchestrator.workflows.runs.run import RunResult
from orchestrator.workflows.workspace import Workspace
from remote.contract import scenarios
from remote.contract.document import ContractError
from remote.contract.run_spec import new_run_id

Result_co = TypeVar("Result_co", RunResult, LineResult, covariant=True)
Ended = TypeVar("Ended", RunResult, LineResult)


class CarryOut(Protocol[Result_co]):
    """`run` of a scenario, or of a line of them, on the machine that the workspace means."""

    def __call__(
        self, workspace: Workspace, *, run_id: str, bring_up: Callable[[Workspace], Machine]
    ) -> Result_co: ...


def run_ephemeral(
    workspace: Workspace,
    scenario: str,
    carry_out: CarryOut[Ended],
    *,
    clock: Clock | None = None,
) -> Ended:
    """Carry out a run on a machine that is made for it and goes with it. How it ends, `launch.collect` sees to.

    ConflictError   the result is not in the store
    PartialError    the machine is gone, the result is in the store, and could not be brought here
    Detached        the run goes on; `attach` completes the transaction
    and what `up` and `run` raise; then the machine is gone, unless the error says otherwise
    """
    run_id = new_run_id(scenario if scenario in scenarios.SCENARIOS else "run", datetime.now(UTC))
    name, other = machine_of(run_id), workspace.settings.machine.name
    if other:
        workspace.progress.say("machine", f"{name}, named by its run; {other} of the settings is left alone")
    place = workspace.of_machine(name)
    with place.records.seeing_to(place.settings.provider, name) as alone:
        if not alone:
            raise _taken(name, "Another terminal sees to it.")
        try:
            result = carry_out(place, run_id=run_id, bring_up=lambda at: _bring_up(at, name, run_id, clock))
        except Detached as error:
            if _is_asked_for(place, name):
                error.add(_what_ends_it(place, name, run_id))
            raise
        except BaseException as error:
            _undo(place, name, error, clock)
            raise
        if result.detached and _is_asked_for(place, name):
            return dataclasses.replace(result, ends=_what_ends_it(place, name, run_id))
        return result


def _bring_up(workspace: Workspace, name: str, run_id: str, clock: Clock | None) -> Machine:
    if workspace.provider.get(name) is not None:
        raise _taken(name, "It was not made for this run.")
    ephemeral.intend(workspace, name, run_id)
    machine = up(workspace, clock=clock).machine
    assert machine is not None
    return machine


def _is_asked_for(workspace: Workspace, name: str) -> bool:
    """Not where an earlier run is the answer."""
    return workspace.records.ephemeral(workspace.settings.provider, name) is not None


def _taken(name: str, why: str) -> ConflictError:
    return ConflictError(
        f"The machine {name} is there already",
        detail=why,
        next="--ephemeral makes one of its own: run the same command again.",
    )


def _what_ends_it(workspace: Workspace, name: str, run_id: str) -> str:
    back = f"tlvm attach {run_id[-4:]} comes back, and ends the machine after the run."
    return f"{back} {ephemeral.ends(workspace, name)}".strip()


def _undo(workspace: Workspace, name: str, error: BaseException, clock: Clock | None) -> None:
    """Something else came than the end of the run. A machine on which nothing runs goes at once; the rest stays owed."""
    if not _is_asked_for(workspace, name):
        return  # or all is done
    records = workspace.records
    try:
        if announced := [run.run_id for run in records.runs() if run.machine == name]:
            if any(run.active for run_id in announced if (run := stored_run(workspace.store, run_id))):
                workspace.progress.warn(_what_ends_it(workspace, name, announced[0]))
            return  # else whoever collected the result has said what became of the machine
        workspace.progress.say("undo", f"nothing runs on {name}: it is ended")
        workspace.provider.delete(name)  # at once: nobody need be asked for runs
        down(workspace, clock=clock)
    except (TlvmError, ContractError) as failure:
        workspace.progress.warn(f"{failure}\n{ephemeral.ends(workspace, name)} tlvm status goes on with it.")
        return
    ephemeral.settle(workspace, name)
    if isinstance(error, Interruption):
        error.what, error.next = f"The machine {name} is gone again", "Nothing of it goes on."
