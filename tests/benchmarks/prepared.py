"""A run as a machine has it before the training starts: the real upload, the real fetch, everything in one folder."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.config import Settings
from orchestrator.progress import Silent
from orchestrator.weights import resolve
from orchestrator.workflows.data.upload import upload
from orchestrator.workflows.workspace import Workspace
from remote import store as remote_store
from remote.contract import document
from remote.contract.layout import MachineHome, RunFolder
from remote.contract.run_spec import DatasetRef, RunSpec, new_run_id
from remote.job import fetch, supervisor


@dataclass(frozen=True)
class Prepared:
    home: Path  # HOME of the process that trains
    folder: RunFolder


def prepare(
    folder: Path, photos: Path, model: str, weights: str, *, scenario: str, parameters: dict[str, Any]
) -> Prepared:
    """Upload `photos` to a store below `folder`, and fetch what the run needs into a machine's home beside it."""
    workspace = Workspace(Settings(folder=folder, data_dir=folder / "data"), Silent())
    (uploaded,) = upload(workspace, photos)
    run_id = new_run_id(scenario, datetime.now(UTC))
    spec = RunSpec(
        run_id=run_id,
        scenario=scenario,
        dataset=DatasetRef(uploaded.name, uploaded.version),
        model=model,
        weights=resolve(workspace.store, model, weights, progress=Silent(), cache_folder=folder / "cache"),
        store=workspace.settings.store_ref,
        bundle="0" * 64,
        parameters=parameters,
        seed=0,
        owner="bench",
        project="bench",
        machine="bench",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        max_hours=4,
        tlvm_version="0",
    )
    home = MachineHome(folder / "home" / ".tlvm")
    folder_of_run = supervisor.prepare(home, spec)
    fetch.fetch(spec, home, remote_store.open_store(spec.store), lambda done, total: None)
    return Prepared(folder / "home", folder_of_run)


def again(spec: RunSpec, folder: Path) -> Path:
    """The same run under a new id, as a file."""
    fresh = dataclasses.replace(spec, run_id=new_run_id(spec.scenario, datetime.now(UTC)))
    return _written(folder, fresh)


def _written(folder: Path, spec: RunSpec) -> Path:
    path = folder / f"{spec.run_id}.json"
    document.write(path, spec)
    return path
