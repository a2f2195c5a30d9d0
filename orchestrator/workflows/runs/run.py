"""`tlvm run SCENARIO`: one scenario on one dataset version, on the machine, followed to its verified result here."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator import __version__, bundle
from orchestrator.providers.base import Machine
from orchestrator.workflows.machines.up import ensure
from orchestrator.workflows.results.result import RunResult, collected, started
from orchestrator.workflows.runs.launch import Detached, ship, start
from orchestrator.workflows.runs.recover import Recovery, follow_through
from orchestrator.workflows.runs.unchanged import answer, unchanged
from orchestrator.workflows.runs.wish import Repeat, Wish, wish_of
from orchestrator.workflows.workspace import Workspace
from remote.contract.run_spec import RunSpec, new_run_id

if TYPE_CHECKING:
    from orchestrator.ssh import Connection

__all__ = ["Detached", "Repeat", "RunResult", "begin", "carry_out", "run"]


def run(
    workspace: Workspace,
    scenario: str | None = None,
    *,
    data: Path | None = None,
    parameters: Mapping[str, Any] | None = None,
    repeat: Repeat | None = None,
    if_changed: bool = False,
    detach: bool = False,
    recover: bool | None = None,
    environment: Mapping[str, str] | None = None,
    on_event: Callable[[dict[str, Any]], None] | None = None,
    run_id: str | None = None,
    bring_up: Callable[[Workspace], Machine] = ensure,
) -> RunResult:
    """Train one scenario; model, weights, seed, machine and dataset are those of the settings.

    data            upload this folder first, and run on it
    parameters      of the scenario, over those of the settings
    repeat          do an earlier run again: what it had takes the place of the settings, and of the scenario
    if_changed      where an earlier run did the same, that one is the answer, and no machine is asked for
    detach          return as soon as it has started
    recover         rent another machine when its own is taken away; None: when that is a spot machine
    environment     variables of the training, secrets among them; only their names are written down
    on_event        told everything that happens in the run; text in it is hostile
    run_id          of the new run, where something is named by it already
    bring_up        gives the machine, ready
    Detached        on Ctrl-C once it has started
    RunFailed, Interrupted, ConnectionLost, and what its parts raise
    """
    began = time.monotonic()
    given = environment or {}
    wish = wish_of(workspace, scenario, parameters or {}, data=data, repeat=repeat, environment=given)
    recovery = Recovery(recover, environment=given)
    if if_changed and (earlier := unchanged(workspace, wish, given)):
        return answer(workspace, earlier, recovery, detach=detach, on_event=on_event)
    found = carry_out(
        workspace, wish, recovery, detach=detach, on_event=on_event, run_id=run_id, bring_up=bring_up
    )
    return found if detach else dataclasses.replace(found, seconds=time.monotonic() - began)


def carry_out(
    workspace: Workspace,
    wish: Wish,
    recovery: Recovery,
    *,
    detach: bool = False,
    on_event: Callable[[dict[str, Any]], None] | None = None,
    run_id: str | None = None,
    bring_up: Callable[[Workspace], Machine] = ensure,
) -> RunResult:
    """The same, of what has been worked out already."""
    machine = bring_up(workspace)  # only now, since it may cost something
    with workspace.connect(machine) as connection:
        shipped = ship(workspace, machine, connection)
        spec = begin(workspace, wish, machine, connection, shipped, recovery, run_id=run_id)
        if detach:
            return started(spec)
        status = follow_through(workspace, spec, connection, on_event, machine=machine, recovery=recovery)
    return collected(workspace, spec, status)


def begin(
    workspace: Workspace,
    wish: Wish,
    machine: Machine,
    connection: Connection,
    shipped: bundle.Bundle,
    recovery: Recovery,
    *,
    run_id: str | None = None,
) -> RunSpec:
    """Start it on that machine; there it begins, or waits in line."""
    spec = _spec(workspace, machine, wish, shipped, run_id)
    spec = dataclasses.replace(spec, environment=sorted(recovery.environment))
    spot = machine.settings.get("spot") == "True"
    rent = spot if recovery.rent is None else recovery.rent
    start(workspace, spec, connection, machine, recover=rent, environment=recovery.environment)
    workspace.progress.say("run", f"{spec.run_id} on {wish.dataset.name} {wish.dataset.version[:8]}")
    return spec


def _spec(
    workspace: Workspace,
    machine: Machine,
    wish: Wish,
    shipped: bundle.Bundle,
    run_id: str | None,
) -> RunSpec:
    settings, now = workspace.settings, datetime.now(UTC)
    return RunSpec(
        run_id=run_id or new_run_id(wish.scenario, now),
        scenario=wish.scenario,
        dataset=wish.dataset,
        model=wish.model,
        weights=wish.weights,
        store=machine.store,
        bundle=shipped.hash,
        parameters=wish.parameters,
        seed=wish.seed,
        owner=settings.owner_label,
        project=settings.project,
        machine=machine.name,
        created=now.isoformat(timespec="seconds"),
        max_hours=wish.max_hours,
        tlvm_version=__version__,
        accelerators=min(1, machine.accelerator_count),
        code=bundle.code(),
    )
