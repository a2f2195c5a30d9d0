"""`tlvm attach RUN`: come back to a run wherever it is: waiting, at work, ended, or on a machine that is there no more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from orchestrator.config import PROVIDERS
from orchestrator.errors import AuthError, ConfigError, NotFoundError
from orchestrator.providers.base import MachineState
from orchestrator.workflows.clock import Clock
from orchestrator.workflows.results.result import RunResult, collected
from orchestrator.workflows.runs.documents import StoredRun, read_runs, required_run
from orchestrator.workflows.runs.following import MachineLost, follow_events
from orchestrator.workflows.runs.index import run_index
from orchestrator.workflows.runs.launch import Detached
from orchestrator.workflows.runs.overview import called, find
from orchestrator.workflows.runs.recover import Recovery, bring_back, follow_through
from orchestrator.workflows.runs.remembered import RememberedRuns
from orchestrator.workflows.runs.stored_streams import follow_stored
from orchestrator.workflows.workspace import Workspace
from remote.contract.run_status import RunStatus

_LATEST = (
    20  # among so many of the newest runs, others' too, the one to name is looked for where none is active
)
Event = Callable[[dict[str, Any]], None]


def attach(
    workspace: Workspace,
    run: str | None = None,
    *,
    recover: bool | None = None,
    environment: Mapping[str, str] | None = None,
    on_event: Event | None = None,
    clock: Clock | None = None,
) -> RunResult:
    """Follow a run from its first word to its verified result here. A run that has ended is only brought here.

    A machine that was restarted is asked to go on, one that was stopped is started, and one that is gone is replaced
    where that was agreed on as the run began.

    run             an id, or the end of one; None: the only one that is active
    recover         another machine may be rented for it; None: as the run was begun
    environment     variables of the training, for another machine; those it was begun with are named in its spec
    NotFoundError   no such run; ConfigError: several are active
    Detached        on Ctrl-C while it goes on
    and what `run` raises
    """
    stored = required_run(workspace.store, find(workspace, run) if run else _active(workspace))
    place = where(workspace, stored)
    status = stored.status
    if stored.active or (stored.state == "SUCCEEDED" and not (status and status.published)):
        recovery = Recovery(recover, by_hand=True, environment=environment or {})
        status = _to_its_end(place, stored, recovery, on_event, clock)
    assert status is not None
    return collected(place, stored.spec, status)


def where(workspace: Workspace, run: StoredRun) -> Workspace:
    """The same, meaning the provider and the machine that the run is on now."""
    record = workspace.records.run(run.spec.run_id)
    said = run.attempts[-1].provider if run.attempts else record.provider if record else ""
    known = said in PROVIDERS  # what a document says may be anything
    return (workspace.on_provider(said) if known else workspace).of_machine(run.machine)


def _active(workspace: Workspace) -> str:
    remembered = RememberedRuns(workspace.records.cache, workspace.store.url)
    mine = (workspace.settings.owner_label, workspace.settings.project)
    latest = run_index(workspace.store).newest(_LATEST)
    found, _ = read_runs(workspace.store, latest, remembered)
    runs = [run for run in found if (run.spec.owner, run.spec.project) == mine]
    active = [run.spec.run_id for run in runs if run.active]
    if len(active) > 1:
        raise ConfigError(
            f"{len(active)} runs have not ended", detail="\n".join(active), next="Name one: tlvm attach RUN"
        )
    if not active:
        done = [run.spec.run_id for run in runs if run.state == "SUCCEEDED"]
        newest = f"tlvm attach {done[-1][-4:]} shows the newest result" if done else ""
        raise NotFoundError("No run is at work or waits", next=newest or "tlvm run SCENARIO starts one.")
    return active[0]


def _to_its_end(
    place: Workspace, stored: StoredRun, recovery: Recovery, on_event: Event | None, clock: Clock | None
) -> RunStatus:
    spec = replace(stored.spec, machine=stored.machine)
    machine = place.provider.get(stored.machine)
    if machine is not None and machine.state is MachineState.RUNNING and stored.active:
        if not place.records.key_file(machine.provider, machine.name).exists():
            return _through_the_store(place, stored, on_event, clock)
        place.progress.say("attach", f"{spec.run_id} on {machine.name}")
        try:
            return follow_through(place, spec, None, on_event, recovery=recovery, clock=clock)
        except AuthError as error:
            place.progress.warn(f"{error.what}: the run is followed through the store")
            return _through_the_store(place, stored, on_event, clock)
    brought = bring_back(place, spec.run_id, _why_lost(place, stored), recovery, clock=clock)
    if isinstance(brought, RunStatus):
        return brought
    with brought.connection as connection:
        return follow_through(
            place, spec, connection, on_event, machine=brought.machine, recovery=recovery, clock=clock
        )


def _why_lost(place: Workspace, stored: StoredRun) -> MachineLost:
    machine = place.provider.get(stored.machine)
    stands = "gone" if machine is None else machine.state.value
    run_id = stored.spec.run_id
    return MachineLost(
        f"The machine {stored.machine} is {stands}",
        how="gone" if machine is None else "stopped",
        detail=f"The run {run_id} had not ended when it was last heard of.",
        next=f"tlvm logs {called(place, run_id)} shows what reached the store.",
    )


def _through_the_store(
    place: Workspace, stored: StoredRun, on_event: Event | None, clock: Clock | None
) -> RunStatus:
    run_id = stored.spec.run_id
    place.progress.say(
        "attach",
        f"{run_id} through the store, some seconds late: this computer has no key for {stored.machine} "
        "(tlvm authorize lets it in)",
    )
    happenings = follow_events(follow_stored(place, run_id, "events", clock=clock))
    try:
        for event in happenings:
            if on_event:
                on_event(event)
    except KeyboardInterrupt:
        raise Detached(run_id, name=called(place, run_id), state=stored.state) from None
    status = required_run(place.store, run_id).status
    assert status is not None
    return status
