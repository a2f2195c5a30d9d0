"""What is known of runs that have not ended: the store's last word, held against the machine they are on.

A supervisor that was killed, or a machine that is gone, leaves "RUNNING" in the store for ever. So whoever shows runs
asks the provider for their machines, and those machines for their runs.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from orchestrator import bundle
from orchestrator.errors import AuthError, ConnectionLost, TlvmError, TransientError
from orchestrator.providers.base import Machine, MachineState
from orchestrator.workflows.runs import machine_runs
from orchestrator.workflows.runs.documents import StoredRun
from orchestrator.workflows.workspace import Workspace
from remote.contract import document
from remote.contract.document import ContractError
from remote.contract.run_status import FINAL, LOST, PUBLISHES_SILENTLY, RunStatus

IS_GONE = "its machine is gone"
FROZEN = "its supervisor seems frozen"
_FROZEN_S = 180.0  # a supervisor writes its status twice a minute at least
_ASKED_AT_ONCE = 16
_STATUS_BYTES_MAX = 16 * 1024 * 1024


@dataclass(frozen=True)
class Heard:
    """The state of a run as far as anybody knows."""

    state: str  # the store's, or the machine's newer one; LOST, INTERRUPTED: nothing of it runs
    message: str
    updated: str  # ISO 8601: the last word of the run itself; its announcement when there was none
    doubt: str = ""  # what speaks against the store's last word: "its machine is gone"


@dataclass(frozen=True)
class Said:
    """What a machine says of one run."""

    works: bool  # something of it runs
    status: RunStatus
    quiet_s: float | None  # since its status was written, by the clock of the machine; None: not told


@dataclass(frozen=True)
class _Told:
    """What a machine says of its runs."""

    names: set[str]  # of those it has
    statuses: Mapping[str, Said] = field(default_factory=dict)


def heard(
    workspace: Workspace, runs: Sequence[StoredRun], machines: Sequence[Machine], *, all_seen: bool = True
) -> dict[str, Heard]:
    """Of each run, by its id. Machines are asked for runs of this owner only, side by side.

    all_seen    False: there may be more machines than these, and none is gone because it is not among them
    """
    found = {run.spec.run_id: _last_word(run) for run in runs}
    on: dict[str, list[StoredRun]] = {}
    for run in (run for run in runs if run.active):
        machine = _machine(run, machines)
        if machine is None:
            found[run.spec.run_id] = _without_machine(workspace, run, all_seen=all_seen)
        elif machine.state in (MachineState.STOPPED, MachineState.STOPPING):
            found[run.spec.run_id] = _doubted(run, "INTERRUPTED", f"its machine is {machine.state.value}")
        elif machine.owner == workspace.settings.owner_label and _may_tell(workspace, machine, run):
            on.setdefault(machine.name, []).append(run)
    asked = [machine for machine in machines if machine.name in on]
    if asked:
        with ThreadPoolExecutor(min(_ASKED_AT_ONCE, len(asked)), thread_name_prefix="ask") as pool:
            bundles = [on[machine.name][0].spec.bundle for machine in asked]
            answers = pool.map(lambda machine, hash: _ask(workspace, machine, hash), asked, bundles)
            for machine, told in zip(asked, answers, strict=True):
                found |= {run.spec.run_id: _by_machine(run, told) for run in on[machine.name]}
    return found


def _may_tell(workspace: Workspace, machine: Machine, run: StoredRun) -> bool:
    """A run that spoke a moment ago is believed where asking would only be refused."""
    return machine_runs.is_silent(run) or workspace.records.key_file(machine.provider, machine.name).exists()


def _last_word(run: StoredRun) -> Heard:
    status = run.status
    if status is None:
        return Heard(run.state, "", run.spec.created)
    return Heard(status.state, status.message, status.updated)


def _machine(run: StoredRun, machines: Sequence[Machine]) -> Machine | None:
    return next((machine for machine in machines if machine_runs.runs_of(machine, [run])), None)


def _elsewhere(workspace: Workspace, run: StoredRun) -> str:
    """The provider that the run's machine was asked of, when it is not the one in force; else ""."""
    record = workspace.records.run(run.spec.run_id)
    return record.provider if record and record.provider != workspace.settings.provider else ""


def _without_machine(workspace: Workspace, run: StoredRun, *, all_seen: bool) -> Heard:
    if other := _elsewhere(workspace, run):
        return _doubted(run, run.state, f"its machine is on the provider {other}, which was not asked")
    if not all_seen:
        return _doubted(run, run.state, "its machine is not seen, and not every place can be asked")
    why = _why_it_ended(workspace, run)
    return _doubted(run, LOST, f"{IS_GONE}, {why}" if why else IS_GONE)


def _why_it_ended(workspace: Workspace, run: StoredRun) -> str:
    """As the provider remembers; "" when this computer did not rent the machine, or nobody can say."""
    why_it_ended = getattr(workspace.provider, "why_it_ended", None)
    lives = workspace.records.lives(workspace.settings.provider, run.machine)
    earlier = [life for life in lives if machine_runs.time_of(life.began) <= machine_runs.time_of(run.asked)]
    if why_it_ended is None or not earlier:
        return ""
    try:
        return str(why_it_ended(earlier[-1].place, earlier[-1].id))
    except TlvmError:
        return ""


def _doubted(run: StoredRun, state: str, doubt: str) -> Heard:
    return dataclasses.replace(_last_word(run), state=state, doubt=doubt)


def _by_machine(run: StoredRun, told: _Told | None) -> Heard:
    run_id = run.spec.run_id
    if (told is None or run_id not in told.statuses) and not machine_runs.is_silent(run):
        return _last_word(run)  # another terminal may be about to start it
    if told is None:
        return _doubted(run, run.state, "its machine can't be asked")
    if run_id not in told.names:
        never = "never started: " if run.status is None else ""
        return _doubted(run, LOST, f"{never}its machine does not know it")
    if run_id not in told.statuses:
        return _doubted(run, run.state, "its machine does not say how it is")
    said = told.statuses[run_id]
    status = said.status
    found = Heard(status.state, status.message, status.updated)
    if status.state in FINAL:
        return found
    if said.works:
        frozen = (said.quiet_s or 0) > _FROZEN_S and status.message != PUBLISHES_SILENTLY
        return dataclasses.replace(found, doubt=FROZEN) if frozen else found
    return dataclasses.replace(found, state="INTERRUPTED", doubt="nothing of it runs on its machine")


def _ask(workspace: Workspace, machine: Machine, bundle_hash: str) -> _Told | None:
    """None when it can't be reached. A machine whose bundle does not answer still tells the names of its runs."""
    if machine.state is not MachineState.RUNNING:
        return None
    try:
        with workspace.connect(machine) as connection:
            names = machine_runs.names_of_runs(connection)
            output = connection.run(bundle.command(bundle_hash, "status"))
    except (AuthError, ConnectionLost, TransientError) as error:
        workspace.progress.warn(f"{machine.name} can't be asked for its runs, the store is: {error.what}")
        return None
    return _Told(names, statuses(output.stdout) if output.exit_code == 0 else {})


def statuses(text: bytes) -> dict[str, Said]:
    """What `status` says on a machine, by run id; what can't be read is left out: a machine may say anything."""
    if len(text) > _STATUS_BYTES_MAX:
        return {}
    try:
        said: Any = json.loads(text)
        rows = said["runs"]
        found = {}
        for row in rows if isinstance(rows, list) else []:
            status = document.decode(RunStatus, json.dumps(row["status"]), what="status")
            found[status.run_id] = Said(bool(row["active"]), status, _seconds(row.get("quiet_s")))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ContractError):
        return {}
    return found


def _seconds(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 <= value < 1e9 else None
