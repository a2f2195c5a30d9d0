"""`tlvm run SCENARIO`: one scenario on one dataset version, on the machine, followed to its verified result here."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator import __version__, bundle, resources, weights
from orchestrator.errors import CloudError, ConfigError
from orchestrator.providers.base import Machine
from orchestrator.workflows import datasets, runs
from orchestrator.workflows.attempts import AttemptLine, attempt_lines
from orchestrator.workflows.beside import Beside, beside
from orchestrator.workflows.down import DownResult
from orchestrator.workflows.launch import Detached, collect, ship, start
from orchestrator.workflows.looks import looks
from orchestrator.workflows.recover import Recovery, follow_through
from orchestrator.workflows.run_documents import stored_run
from orchestrator.workflows.up import ensure
from orchestrator.workflows.workspace import Workspace
from remote.contract import scenarios
from remote.contract.document import ContractError
from remote.contract.run_spec import DatasetRef, RunSpec, WeightsRef, new_run_id
from remote.contract.run_status import RunStatus

if TYPE_CHECKING:
    from orchestrator.ssh import Connection

__all__ = ["Detached", "RunResult", "run"]

METRICS_BYTES_MAX = 64 * 1024 * 1024


@dataclass(frozen=True)
class RunResult:
    run_id: str
    scenario: str
    dataset: str
    dataset_version: str
    model: str
    weights: str
    machine: str
    state: str  # "STARTED" when detached, else SUCCEEDED
    detached: bool
    folder: Path | None = None  # of the verified result, here
    files: int = 0
    bytes: int = 0
    metrics: Mapping[str, Any] = field(default_factory=dict)  # metrics.json
    beside: Beside | None = None  # what fine-tuning reached, for a run from scratch
    look: int = 0  # at the images that its figure comes from: 1 is the first; 0: not counted
    seconds: float = 0  # from the call to the verified result; of `attach`: at work on machines
    cost: float = 0  # dollars, an estimate; of a machine that was made for this run alone, all of its life
    down: DownResult | None = None  # of that machine, which is gone
    ends: str = ""  # detached on such a machine: what will end it
    attempts: list[AttemptLine] = field(default_factory=list)  # a line for each machine that it was on


def run(
    workspace: Workspace,
    scenario: str,
    *,
    data: Path | None = None,
    parameters: Mapping[str, Any] | None = None,
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
    resolved = resolve(workspace, scenario, parameters or {})
    wish = Wish(scenario, resolved, dataset_of(workspace, data), initial(workspace, scenario))
    machine = bring_up(workspace)  # only now, since it may cost something
    recovery = Recovery(recover, environment=environment or {})
    with workspace.connect(machine) as connection:
        shipped = ship(workspace, machine, connection)
        spec = begin(workspace, wish, machine, connection, shipped, recovery, run_id=run_id)
        if detach:
            return started(spec)
        status = follow_through(workspace, spec, connection, on_event, recovery=recovery)
    found = collected(workspace, spec, status)
    return dataclasses.replace(found, seconds=time.monotonic() - began)


@dataclass(frozen=True)
class Wish:
    """What is to be run, with nothing left open but the machine."""

    scenario: str
    parameters: dict[str, Any]
    dataset: DatasetRef
    weights: WeightsRef


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


def collected(workspace: Workspace, spec: RunSpec, status: RunStatus) -> RunResult:
    """The verified result of a run that has ended, here; `collect` says what else may become of it."""
    ended: list[DownResult] = []
    pulled = collect(workspace, spec, status, ended=ended.append)
    metrics = _metrics(pulled.folder)
    stored = stored_run(workspace.store, spec.run_id)
    lines = attempt_lines(stored) if stored else []
    return dataclasses.replace(
        started(spec),
        machine=stored.machine if stored else spec.machine,
        state=status.state,
        detached=False,
        folder=pulled.folder,
        files=pulled.files,
        bytes=pulled.bytes,
        metrics=metrics,
        beside=beside(workspace.records, spec.scenario, metrics),
        look=_look(workspace, spec, metrics),
        seconds=sum(line.seconds for line in lines),
        cost=ended[0].cost if ended else sum(line.cost for line in lines),
        down=ended[0] if ended else None,
        attempts=lines,
    )


def resolve(workspace: Workspace, scenario: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Every parameter of a scenario: as given, else as the settings have it, else its default."""
    configured = workspace.settings.scenarios.get(scenario, {})
    explained = resources.folder("configs") / "scenarios" / f"{scenario}.toml"
    try:
        return dict(scenarios.resolve(scenario, {**configured, **given}))
    except ContractError as error:
        known = scenario in scenarios.SCENARIOS
        next = f"{explained} explains its parameters." if known else "For example: tlvm run fixed-extractor"
        raise ConfigError(str(error), next=next) from None


def dataset_of(workspace: Workspace, data: Path | None) -> DatasetRef:
    """The one that is meant; with `data`, that folder, which is uploaded first."""
    if data is None:
        name, version, _ = datasets.resolve(workspace, None)
        return DatasetRef(name, version)
    from orchestrator.workflows.upload import require_all, upload  # numpy and Pillow: not for other runs

    uploaded = upload(workspace, data, name=workspace.settings.dataset.name)
    require_all(uploaded)
    if len(uploaded) > 1:
        raise ConfigError(
            f"{data} holds several datasets",
            detail=", ".join(result.name for result in uploaded),
            next="They are uploaded; name the one to run on with --dataset.",
        )
    return DatasetRef(uploaded[0].name, uploaded[0].version)


def initial(workspace: Workspace, scenario: str) -> WeightsRef:
    """The weights it begins with; from scratch means from nothing."""
    settings = workspace.settings
    wanted = settings.run.weights
    if scenario == "from-scratch":
        if wanted not in ("imagenet", "none"):
            raise ConfigError(
                f"from-scratch computes all weights anew: it can't begin with {wanted}",
                next="--weights none, or fine-tune-all to begin with them.",
            )
        wanted = "none"
    if wanted.startswith("run:"):
        wanted = f"run:{runs.find(workspace, wanted.removeprefix('run:'))}"
    return weights.resolve(
        workspace.store,
        settings.run.model,
        wanted,
        progress=workspace.progress,
        cache_folder=settings.data_dir / "cache",
    )


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
        model=settings.run.model,
        weights=wish.weights,
        store=machine.store,
        bundle=shipped.hash,
        parameters=wish.parameters,
        seed=settings.run.seed,
        owner=settings.owner_label,
        project=settings.project,
        machine=machine.name,
        created=now.isoformat(timespec="seconds"),
        max_hours=settings.run.max_hours,
        tlvm_version=__version__,
        accelerators=min(1, machine.accelerator_count),
    )


def started(spec: RunSpec) -> RunResult:
    """Of a run that is left to itself."""
    return RunResult(
        run_id=spec.run_id,
        scenario=spec.scenario,
        dataset=spec.dataset.name,
        dataset_version=spec.dataset.version,
        model=spec.model,
        weights=spec.weights.source,
        machine=spec.machine,
        state="STARTED",
        detached=True,
    )


def _look(workspace: Workspace, spec: RunSpec, metrics: Mapping[str, Any]) -> int:
    try:
        seen = looks(workspace.store, spec.dataset.name, spec.dataset.version, str(metrics.get("reported")))
    except ContractError:
        return 0  # a machine may claim any split
    return seen.of(spec.run_id)


def _metrics(folder: Path) -> Mapping[str, Any]:
    path = folder / "metrics.json"
    try:
        if path.stat().st_size > METRICS_BYTES_MAX:
            raise ValueError("too large")
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CloudError(f"{path} can't be read", detail=str(error)) from None
    return found if isinstance(found, dict) else {}
