"""`tlvm status`: what exists, how long it lives, and what runs on it. The provider and the store are asked."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from orchestrator.errors import TlvmError
from orchestrator.providers.base import Machine, MachineState
from orchestrator.providers.rented import Rented
from orchestrator.workflows.machines.allowance import spent
from orchestrator.workflows.machines.left_over import LeftOver, left_over, things_of
from orchestrator.workflows.machines.placement import unanswered
from orchestrator.workflows.machines.refresh import Refreshed
from orchestrator.workflows.machines.refresh import refresh as refresh_records
from orchestrator.workflows.machines.seen import no_machine, seen
from orchestrator.workflows.runs.attempts import AttemptLine, attempt_lines, goes_on_with
from orchestrator.workflows.runs.documents import StoredRun, read_runs
from orchestrator.workflows.runs.ephemeral import complete
from orchestrator.workflows.runs.index import RunIndex, run_index
from orchestrator.workflows.runs.machine_runs import runs_of
from orchestrator.workflows.runs.remembered import RememberedRuns
from orchestrator.workflows.runs.unfinished import Heard, heard
from orchestrator.workflows.workspace import Workspace

_BOOTS_WITHIN = timedelta(minutes=5)  # so long a new machine need not answer
_ANSWERS_S = 2.0


@dataclass(frozen=True)
class RunLine:
    run_id: str
    scenario: str
    dataset: str
    model: str
    state: (
        str  # LOST when its machine is gone without a final one, INTERRUPTED when nothing of it runs any more
    )
    step: int
    message: str
    updated: str  # ISO 8601: the last word of the run itself
    published: bool  # its result is in the store
    doubt: str = ""  # what speaks against the store's last word: "its machine is gone"
    in_line: int = 0  # its place in the line of the machine: 1 is the next; 0 when it does not wait
    waits_for: str = ""  # the run before it
    attempts: list[AttemptLine] = field(default_factory=list)  # the oldest first
    cost: float = 0  # dollars, an estimate; of all attempts
    goes_on_with: str = ""  # the command that brings it back, when nothing of it runs


@dataclass(frozen=True)
class MachineLine:
    machine: Machine
    mine: bool
    cost: float  # dollars until now, an estimate
    runs: list[RunLine] = field(default_factory=list)
    orphan: str = ""  # why nobody may be looking after it: "its time is over"
    soft_end: datetime | None = None  # when its guard ends it; None: at work, not said, or there is none
    has_soft_clock: bool = False
    disk_per_month: float = 0  # dollars, an estimate: what it costs while it is stopped


@dataclass(frozen=True)
class StatusResult:
    provider: str
    store: str
    now: datetime
    machines: list[MachineLine]
    other_runs: list[RunLine]  # active ones, and those that lost their machine
    elsewhere: list[str]  # "docker: tlvm-ana-trees": machines that this computer asked other providers for
    # What may exist and is not seen, documents in the store that can't be read, and what could not be asked.
    problems: list[str]
    left_over: LeftOver | None = None  # what costs without a machine; None where nothing is rented
    prices: str = ""  # where the prices come from, and of which day
    refreshed: Refreshed | None = None  # what was not known here any more; None when nobody asked


def status(
    workspace: Workspace, *, machine: str | None = None, refresh: bool = False, now: datetime | None = None
) -> StatusResult:
    """Every machine with our label, others' too, and the runs of each, newest first. Nothing is rented, ever.

    machine         only the one of this name, and its runs
    refresh         first make the records of this computer again
    NotFoundError   there is none of that name

    First it goes on with what is owed for machines that were made for one run alone (`ephemeral`).
    """
    refreshed = refresh_records(workspace) if refresh else None
    complete(workspace)
    now = now or datetime.now(UTC)
    settings, provider, rented = workspace.settings, workspace.provider, workspace.rented
    with ThreadPoolExecutor(4, thread_name_prefix="status") as pool:
        listing, indexing = pool.submit(seen, provider), pool.submit(run_index, workspace.store)
        things = pool.submit(things_of, rented)
        there_now = listing.result()
        machines, unseen = there_now.machines, there_now.problems
        mine = [found for found in machines if found.owner == settings.owner_label]
        leaving = pool.submit(left_over, workspace, things.result(), with_store=not mine)
        looks = _look(mine, rented, now)
        runs, ids, problems = _stored(workspace, indexing, machines)
        left = leaving.result()
    runs.reverse()
    there = {found.name for found in machines}
    if machine is not None:
        machines = [found for found in machines if found.name == machine]
        if not machines:
            raise no_machine(machine, settings.provider, there)
        runs = [run for run in runs if run.machine == machine]
    known = heard(workspace, runs, machines, all_seen=there_now.all_of_them)
    shown = {run.spec.run_id: _run(workspace, run, known[run.spec.run_id], ids) for run in runs}
    lines = [
        _machine(
            found,
            looks.get(found.id, _Look()),
            [shown[run.spec.run_id] for run in runs_of(found, runs)],
            now,
            mine=found.owner == settings.owner_label,
            per_month=left.disks_of.get(found.name, 0.0) if left else 0.0,
        )
        for found in sorted(machines, key=lambda found: (found.owner != settings.owner_label, found.name))
    ]
    placed = {run.run_id for line in lines for run in line.runs}
    others = [
        shown[run.spec.run_id]
        for run in runs
        if run.spec.run_id not in placed and run.active and _ours(run, workspace)
    ]
    if not unseen:
        _forget_what_ended(workspace, there)
    elsewhere = [
        f"{record.provider}: {record.name}"
        for record in workspace.records.machines()
        if record.provider != settings.provider
    ]
    return StatusResult(
        settings.provider,
        settings.store_ref.url,
        now,
        lines,
        others,
        elsewhere,
        [
            *unseen,
            *([] if unseen else unanswered(workspace, there, datetime.now(UTC))),
            *problems,
            *(left.problems if left else []),
        ],
        left,
        rented.prices() if rented else "",
        refreshed,
    )


def _forget_what_ended(workspace: Workspace, there: set[str]) -> None:
    """A machine that reached its end by itself leaves a record and a key here; the provider says that it is gone."""
    provider = workspace.settings.provider
    for record in workspace.records.machines():
        ended = record.provider == provider and record.outcome == "accepted" and record.name not in there
        if ended and workspace.provider.get(record.name) is None:
            workspace.records.forget_machine(provider, record.name)


def _ours(run: StoredRun, workspace: Workspace) -> bool:
    mine = (workspace.settings.owner_label, workspace.settings.project)
    return (run.spec.owner, run.spec.project) == mine


def _stored(
    workspace: Workspace, indexing: Future[RunIndex], machines: Sequence[Machine]
) -> tuple[list[StoredRun], list[str], list[str]]:
    """Runs that are not over, and those of these machines; the ids of all; what can't be read.

    Where machines cost money, they are shown even when the store can't be read.
    """
    remembered = RememberedRuns(workspace.records.cache, workspace.store.url)
    try:
        index = indexing.result()
        runs, problems = read_runs(workspace.store, index.of_machines(workspace.store, machines), remembered)
    except TlvmError as error:
        if workspace.rented is None:
            raise
        return [], [], [f"Runs are not known: {error.what}"]
    return runs, index.ids, problems


@dataclass(frozen=True)
class _Look:
    """What was seen of a machine beside the provider's list."""

    orphan: str = ""
    soft_end: datetime | None = None
    has_soft_clock: bool = False


def _look(machines: Sequence[Machine], rented: Rented | None, now: datetime) -> Mapping[str, _Look]:
    """By the id of the machine. Nothing is looked at where nothing is rented."""
    if rented is None or not machines:
        return {}
    with ThreadPoolExecutor(min(16, 2 * len(machines)), thread_name_prefix="look") as pool:
        ends = {found.id: pool.submit(_soft_end, rented, found) for found in machines}
        orphans = {found.id: pool.submit(_orphan, found, now) for found in machines}
        return {
            found.id: _Look(orphans[found.id].result(), ends[found.id].result(), has_soft_clock=_idles(found))
            for found in machines
        }


def _orphan(machine: Machine, now: datetime) -> str:
    """Why this machine may be forgotten; "" when it is as it should be."""
    if machine.ends <= now:
        return "its time is over"
    if machine.state is not MachineState.RUNNING or now - machine.created < _BOOTS_WITHIN:
        return ""
    if machine.ssh is None:
        return "it has no address"
    if machine.ssh.proxy_command:
        return ""  # only a connection through the proxy would tell
    try:
        socket.create_connection((machine.ssh.host, machine.ssh.port), _ANSWERS_S).close()
    except OSError:
        return "it does not answer"
    return ""


def _soft_end(rented: Rented, machine: Machine) -> datetime | None:
    """None, too, when it can't be asked: this clock is told for comfort, the other one is what counts."""
    if machine.state is not MachineState.RUNNING or not _idles(machine):
        return None
    try:
        return rented.soft_end(machine.name)
    except TlvmError:
        return None


def _idles(machine: Machine) -> bool:
    """Whether its guard ends it when it is idle."""
    try:
        return float(machine.settings.get("idle_minutes", "0")) > 0
    except ValueError:
        return False


def _machine(
    machine: Machine, look: _Look, runs: list[RunLine], now: datetime, *, mine: bool, per_month: float
) -> MachineLine:
    return MachineLine(
        machine,
        mine,
        spent(machine, now, disk_per_month=per_month).dollars,
        runs,
        look.orphan,
        look.soft_end,
        look.has_soft_clock,
        per_month,
    )


def _run(workspace: Workspace, run: StoredRun, known: Heard, ids: Sequence[str]) -> RunLine:
    status = run.status
    lines = attempt_lines(run)
    return RunLine(
        run_id=run.spec.run_id,
        scenario=run.spec.scenario,
        dataset=run.spec.dataset.name,
        model=run.spec.model,
        state=known.state,
        step=status.step if status else 0,
        message=known.message,
        updated=known.updated,
        doubt=known.doubt,
        published=status.published if status else False,
        in_line=status.place if status and known.state == "QUEUED" else 0,
        waits_for=status.waits_for if status and known.state == "QUEUED" else "",
        attempts=lines,
        cost=sum(line.cost for line in lines),
        goes_on_with=goes_on_with(workspace, run, known.state, ids),
    )
