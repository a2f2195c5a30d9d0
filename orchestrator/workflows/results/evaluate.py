"""`tlvm evaluate RUN --on DATASET[@VERSION]`: a finished model measured on other images, or at another prevalence."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from orchestrator import __version__, bundle, weights
from orchestrator.config import nearest
from orchestrator.errors import ConfigError, DataError
from orchestrator.providers.base import Machine
from orchestrator.stores.base import Store
from orchestrator.workflows.data import datasets
from orchestrator.workflows.machines.up import ensure
from orchestrator.workflows.results.looks import looks
from orchestrator.workflows.results.measured import Measured, measured
from orchestrator.workflows.results.prevalence import Adjusted, adjusted, prevalence
from orchestrator.workflows.runs.documents import result_manifest
from orchestrator.workflows.runs.launch import collect, follow_to_the_end, ship, start
from orchestrator.workflows.workspace import Workspace
from remote.contract import scenarios
from remote.contract.dataset_manifest import DatasetManifest
from remote.contract.metrics import Metrics
from remote.contract.run_spec import DatasetRef, EvaluatedRun, RunSpec, WeightsRef, new_run_id

Part = Literal["train", "val", "test", "all"]
_CARD = "model/model.json"


@dataclass(frozen=True)
class EvaluateResult:
    run_id: str  # whose model it is
    measured_by: str  # the run that measured it: itself, or one that `evaluate` started
    scenario: str
    model: str
    dataset: str
    dataset_version: str
    split: str
    left_out: int  # images that the model was trained on
    look: int  # at these images: 1 is the first; 0: not counted
    looks: int  # so far
    folder: Path  # of the figures, here
    metrics: Mapping[str, Any]  # metrics.json
    adjusted: Adjusted | None  # to another prevalence


def evaluate(
    workspace: Workspace,
    run: str,
    *,
    on: str | None = None,
    split: str | None = None,
    prior: Mapping[str, float] | None = None,
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> EvaluateResult:
    """Measure the model of a run. Where the run itself has measured it on these images, nothing is computed again.

    on              "DATASET" or "DATASET@VERSION"; default: the newest version of the dataset it was trained on
    split           which images of it; default: those its own figure comes from, and all of another dataset
    prior           class shares in the world where it will be used; figures and decisions are adjusted to them
    on_event        told everything that happens on the machine; text in it is hostile
    ConfigError     a split or class that does not exist
    DataError       a dataset with other classes, or without an image that the model has not seen
    and what `run` raises
    """
    asked = measured(workspace, run)
    model = measured(workspace, asked.metrics.evaluates) if asked.metrics.evaluates else asked
    shares = prevalence(prior, model.metrics.classes) if prior else None
    name, _, version = (on or model.metrics.dataset).partition("@")
    name, version, manifest = datasets.resolve(workspace, name, version or None)
    part = _part(model.metrics, name, split)
    if unknown := sorted(set(manifest.classes) - set(model.metrics.classes)):
        raise DataError(
            f"The model of {model.run_id} does not know every class of {name}",
            detail=f"Unknown to it: {', '.join(unknown[:10])}; it knows {', '.join(model.metrics.classes[:10])}.",
            next="Take a dataset with the same names of classes.",
        )
    of_itself = (model.metrics.dataset, model.metrics.dataset_version, model.metrics.reported)
    if of_itself == (name, version, part):
        found = model
    else:
        found = _on_a_machine(workspace, model, DatasetRef(name, version), part, on_event)
    seen = looks(workspace.store, name, version, part)
    return EvaluateResult(
        run_id=model.run_id,
        measured_by=found.run_id,
        scenario=model.metrics.scenario,
        model=model.metrics.model,
        dataset=name,
        dataset_version=version,
        split=part,
        left_out=found.metrics.excluded if found is not model else 0,
        look=seen.of(found.run_id),
        looks=len(seen),
        folder=found.folder,
        metrics=dataclasses.asdict(found.metrics),
        adjusted=adjusted(found, model.metrics, shares, _groups(manifest)) if shares else None,
    )


def _groups(manifest: DatasetManifest) -> dict[str, str]:
    """By path, of the images that have one."""
    return {image.path: image.group for image in manifest.images if image.group is not None}


def _part(metrics: Metrics, name: str, split: str | None) -> Part:
    wanted = split or (metrics.reported if name == metrics.dataset else "all")
    parts: tuple[Part, ...] = get_args(Part)
    for part in parts:
        if part == wanted:
            return part
    raise ConfigError(f"--split {wanted[:80]!r}: there is none", next=nearest(wanted, [*parts]))


def _on_a_machine(
    workspace: Workspace,
    model: Measured,
    dataset: DatasetRef,
    part: Part,
    on_event: Callable[[dict[str, Any]], None] | None,
) -> Measured:
    initial = weights.resolve(
        workspace.store,
        model.metrics.model,
        f"run:{model.run_id}",
        progress=workspace.progress,
        cache_folder=workspace.settings.data_dir / "cache",
    )
    card = _card_sha256(workspace.store, model.run_id)
    machine = ensure(workspace)
    with workspace.connect(machine) as connection:
        shipped = ship(workspace, machine, connection)
        spec = _spec(workspace, machine, model, dataset, part, initial, card, shipped)
        start(workspace, spec, connection, machine)
        workspace.progress.say("evaluate", f"{model.run_id} on {dataset.name} {dataset.version[:8]}")
        status = follow_to_the_end(workspace, spec, connection, on_event)
    return measured(workspace, collect(workspace, spec, status).run_id)


def _card_sha256(store: Store, run_id: str) -> str:
    manifest = result_manifest(store, run_id)
    found = [file.sha256 for file in manifest.files if file.path == _CARD] if manifest else []
    if not found:
        raise DataError(f"The run {run_id} has no model", next="tlvm runs shows the state of each.")
    return found[0]


def _spec(
    workspace: Workspace,
    machine: Machine,
    model: Measured,
    dataset: DatasetRef,
    part: Part,
    initial: WeightsRef,
    card_sha256: str,
    shipped: bundle.Bundle,
) -> RunSpec:
    settings, metrics, now = workspace.settings, model.metrics, datetime.now(UTC)
    steered = [one.chose for one in metrics.evaluations if one.split == "val"]
    return RunSpec(
        run_id=new_run_id("evaluate", now),
        scenario=metrics.scenario,
        dataset=dataset,
        model=metrics.model,
        weights=initial,
        store=machine.store,
        bundle=shipped.hash,
        parameters=dict(scenarios.resolve(metrics.scenario, {})),
        seed=metrics.seed,
        owner=settings.owner_label,
        project=settings.project,
        machine=machine.name,
        created=now.isoformat(timespec="seconds"),
        max_hours=settings.run.max_hours,
        tlvm_version=__version__,
        job="evaluate",
        evaluates=EvaluatedRun(
            run_id=model.run_id,
            card_sha256=card_sha256,
            trained_on=DatasetRef(metrics.dataset, metrics.dataset_version),
            split=part,
            val_chose=steered[0] if steered else "nothing",
            trained_parameters=metrics.trained_parameters,
            frozen_parameters=metrics.frozen.parameters,
            trained_s=sum(metrics.seconds.values()),
            prior=metrics.prior,
            val_trained=metrics.training.get("fitted_on") == ["train", "val"],
        ),
        accelerators=min(1, machine.accelerator_count),
    )
