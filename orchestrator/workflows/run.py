"""`tlvm run SCENARIO`: one scenario on one dataset version, on the machine, followed to its verified result here."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator import __version__, bundle, resources, weights
from orchestrator.errors import (
    CloudError,
    ConfigError,
    ConflictError,
    Interrupted,
    RunFailed,
)
from orchestrator.providers.base import Machine
from orchestrator.records import RunRecord
from orchestrator.workflows import datasets, runs
from orchestrator.workflows.following import follow, follow_events
from orchestrator.workflows.pull import PullResult, pull
from orchestrator.workflows.run_documents import stored_run
from orchestrator.workflows.up import ensure
from orchestrator.workflows.upload import require_all, upload
from orchestrator.workflows.workspace import Workspace
from remote.contract import document, layout, scenarios
from remote.contract.document import ContractError
from remote.contract.run_spec import DatasetRef, RunSpec, WeightsRef, new_run_id
from remote.contract.run_status import RunStatus

if TYPE_CHECKING:
    from orchestrator.ssh import Connection

METRICS_BYTES_MAX = 64 * 1024 * 1024


class Detached(KeyboardInterrupt):
    """Ctrl-C while a run was followed: it goes on, on its machine."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.what = f"The run {run_id} goes on"
        self.next = f"tlvm logs -f {run_id} comes back to it; tlvm pull {run_id} fetches its result."
        super().__init__(self.what)


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
    seconds: float = 0  # from the call to the verified result
    cost: float = 0  # dollars, an estimate


def run(
    workspace: Workspace,
    scenario: str,
    *,
    data: Path | None = None,
    parameters: Mapping[str, Any] | None = None,
    detach: bool = False,
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> RunResult:
    """Train one scenario; model, weights, seed, machine and dataset are those of the settings.

    data            upload this folder first, and run on it
    parameters      of the scenario, over those of the settings
    detach          return as soon as it has started
    on_event        told everything that happens in the run; text in it is hostile
    Detached        on Ctrl-C once it has started
    RunFailed, Interrupted, ConnectionLost, and what its parts raise
    """
    began = time.monotonic()
    resolved = _parameters(workspace, scenario, parameters or {})
    dataset = _dataset(workspace, data)
    initial = _weights(workspace, scenario)  # before there is a machine that may cost something
    machine = ensure(workspace)
    with workspace.connect(machine) as connection:
        shipped = _ship(workspace, machine, connection)
        spec = _spec(workspace, machine, scenario, dataset, initial, resolved, shipped)
        _start(workspace, spec, connection)
        workspace.progress.say("run", f"{spec.run_id} on {dataset.name} {dataset.version[:8]}")
        result = _started(spec)
        if detach:
            return result
        status = _follow(workspace, spec, connection, on_event)
    pulled = _collect(workspace, spec, status)
    seconds = time.monotonic() - began
    return dataclasses.replace(
        result,
        state=status.state,
        detached=False,
        folder=pulled.folder,
        files=pulled.files,
        bytes=pulled.bytes,
        metrics=_metrics(pulled.folder),
        seconds=seconds,
        cost=seconds / 3600 * machine.price_per_hour,
    )


def _parameters(workspace: Workspace, scenario: str, given: Mapping[str, Any]) -> dict[str, Any]:
    configured = workspace.settings.scenarios.get(scenario, {})
    explained = resources.folder("configs") / "scenarios" / f"{scenario}.toml"
    try:
        return dict(scenarios.resolve(scenario, {**configured, **given}))
    except ContractError as error:
        known = scenario in scenarios.SCENARIOS
        next = f"{explained} explains its parameters." if known else "For example: tlvm run fixed-extractor"
        raise ConfigError(str(error), next=next) from None


def _dataset(workspace: Workspace, data: Path | None) -> DatasetRef:
    if data is None:
        name, version, _ = datasets.resolve(workspace, None)
        return DatasetRef(name, version)
    uploaded = upload(workspace, data, name=workspace.settings.dataset.name)
    require_all(uploaded)
    if len(uploaded) > 1:
        raise ConfigError(
            f"{data} holds several datasets",
            detail=", ".join(result.name for result in uploaded),
            next="They are uploaded; name the one to run on with --dataset.",
        )
    return DatasetRef(uploaded[0].name, uploaded[0].version)


def _weights(workspace: Workspace, scenario: str) -> WeightsRef:
    """From scratch means from nothing, unless somebody asks for something else by name."""
    settings = workspace.settings
    wanted = settings.run.weights
    if scenario == "from-scratch" and wanted == "imagenet":
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


def _ship(workspace: Workspace, machine: Machine, connection: Connection) -> bundle.Bundle:
    about = bundle.ask(connection)
    built = bundle.build(
        about,
        provider=machine.provider,
        bucket=machine.store.url.startswith("gs://"),
        cache=workspace.settings.data_dir / "cache",
        progress=workspace.progress,
    )
    bundle.keep(workspace.store, built)
    if bundle.install(connection, built, about):
        workspace.progress.say("bundle", f"{built.hash[:8]} is on {machine.name}")
    return built


def _spec(
    workspace: Workspace,
    machine: Machine,
    scenario: str,
    dataset: DatasetRef,
    initial: WeightsRef,
    parameters: dict[str, Any],
    shipped: bundle.Bundle,
) -> RunSpec:
    settings, now = workspace.settings, datetime.now(UTC)
    return RunSpec(
        run_id=new_run_id(scenario, now),
        scenario=scenario,
        dataset=dataset,
        model=settings.run.model,
        weights=initial,
        store=machine.store,
        bundle=shipped.hash,
        parameters=parameters,
        seed=settings.run.seed,
        owner=settings.owner_label,
        project=settings.project,
        machine=machine.name,
        created=now.isoformat(timespec="seconds"),
        max_hours=settings.run.max_hours,
        tlvm_version=__version__,
        accelerators=min(1, machine.accelerator_count),
    )


def _start(workspace: Workspace, spec: RunSpec, connection: Connection) -> None:
    """Intent first, here and in the store; what did not start is taken back."""
    record = RunRecord(spec.run_id, spec.machine, workspace.settings.provider, asked=spec.created)
    workspace.records.save_run(record)
    text = document.encode(spec)
    key = layout.run_key(spec.run_id, "spec.json")
    with tempfile.TemporaryDirectory(prefix="tlvm-") as folder:
        path = Path(folder) / "spec.json"
        path.write_text(text, encoding="utf-8")
        workspace.store.upload(path, key, if_generation=0)
    output = connection.run(bundle.command(spec.bundle, "start", "-"), input=text.encode())
    if output.exit_code != 0:
        workspace.store.delete(key)
        why = output.stderr[-2000:].decode(errors="replace").strip()
        if output.exit_code == ConflictError.exit_code:
            raise ConflictError(f"The run {spec.run_id} can't be started", detail=why)
        raise CloudError(
            f"The run {spec.run_id} can't be started on {spec.machine}",
            detail=why,
            next="tlvm ssh shows the machine; tlvm down and tlvm up make it anew.",
        )


def _started(spec: RunSpec) -> RunResult:
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


def _follow(
    workspace: Workspace,
    spec: RunSpec,
    connection: Connection,
    on_event: Callable[[dict[str, Any]], None] | None,
) -> RunStatus:
    """The final status, from the store."""
    happenings = follow_events(follow(workspace, spec, "events", connection=connection))
    try:
        while True:
            event = next(happenings)
            if on_event:
                on_event(event)
    except StopIteration as end:
        return _final_status(workspace, spec, str(end.value))
    except KeyboardInterrupt:
        detached = Detached(spec.run_id)
        workspace.progress.say("detach", f"{detached.what}. {detached.next}")
        raise detached from None


def _final_status(workspace: Workspace, spec: RunSpec, state: str) -> RunStatus:
    if state == "INTERRUPTED":
        raise Interrupted(
            f"The run {spec.run_id} was interrupted on {spec.machine}",
            detail="Its machine is being taken away, or its supervisor was killed.",
            next=f"tlvm logs {spec.run_id} shows how far it came.",
        )
    stored = stored_run(workspace.store, spec.run_id)
    if stored is None or stored.status is None or stored.status.state != state:
        raise CloudError(
            f"The run {spec.run_id} ended as {state}, but its status did not reach the store",
            next=f"tlvm logs -f {spec.run_id} shows what the machine says.",
        )
    return stored.status


def _collect(workspace: Workspace, spec: RunSpec, status: RunStatus) -> PullResult:
    if status.state != "SUCCEEDED":
        raise RunFailed(
            f"The run {spec.run_id} {'was cancelled' if status.state == 'CANCELLED' else 'failed'}",
            detail="\n".join([status.message, *status.log_tail]),
            next=f"tlvm logs {spec.run_id} shows the whole log.",
        )
    if not status.published:
        raise CloudError(
            f"The run {spec.run_id} succeeded, but its result is on {spec.machine} only",
            detail=status.message,
            next="Mend the store before the machine ends.",
        )
    return pull(workspace, spec.run_id)


def _metrics(folder: Path) -> Mapping[str, Any]:
    path = folder / "metrics.json"
    try:
        if path.stat().st_size > METRICS_BYTES_MAX:
            raise ValueError("too large")
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CloudError(f"{path} can't be read", detail=str(error)) from None
    return found if isinstance(found, dict) else {}
