"""What `tlvm run` gives back: a run that goes on by itself, or its verified result."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.errors import CloudError
from orchestrator.workflows.machines.down import DownResult
from orchestrator.workflows.results.fine_tuned import Beside, beside
from orchestrator.workflows.results.looks import looks
from orchestrator.workflows.runs.attempts import AttemptLine, attempt_lines
from orchestrator.workflows.runs.documents import stored_run
from orchestrator.workflows.runs.launch import collect
from orchestrator.workflows.workspace import Workspace
from remote.contract.document import ContractError
from remote.contract.run_spec import RunSpec
from remote.contract.run_status import RunStatus

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
    attempts: list[AttemptLine] = field(default_factory=list)  # the oldest first
    unchanged: bool = False  # an earlier run, which is the answer: data, spec and code are the same


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
