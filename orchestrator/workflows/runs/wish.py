"""What is to be run, worked out before any machine is asked for: from the settings, or from the spec of an earlier run."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from orchestrator import bundle, resources, weights
from orchestrator.config import RunSettings
from orchestrator.datasets.folder.names import printable
from orchestrator.datasets.publishing.versions import load_manifest
from orchestrator.errors import CloudError, ConfigError, NotFoundError
from orchestrator.workflows.data import datasets
from orchestrator.workflows.runs import overview
from orchestrator.workflows.runs.documents import required_run
from orchestrator.workflows.workspace import Workspace
from remote.contract import layout, scenarios
from remote.contract.document import ContractError
from remote.contract.models import MODELS
from remote.contract.run_spec import DatasetRef, RunSpec, WeightsRef
from remote.contract.wording import count

if TYPE_CHECKING:
    from orchestrator.workflows.data.upload_result import UploadResult

T = TypeVar("T")


@dataclass(frozen=True)
class Wish:
    """What is to be run, with nothing left open but the machine."""

    scenario: str
    parameters: dict[str, Any]  # resolved
    dataset: DatasetRef
    weights: WeightsRef
    model: str
    seed: int
    max_hours: float


@dataclass(frozen=True)
class Repeat:
    """An earlier run, to be done again.

    run       its id, or the end of one
    instead   of "dataset", "model", "weights", "seed", "max_hours", those that the settings say, not the run
    """

    run: str
    instead: frozenset[str] = frozenset()


def wish_of(
    workspace: Workspace,
    scenario: str | None,
    parameters: Mapping[str, Any],
    *,
    data: Path | None = None,
    repeat: Repeat | None = None,
    environment: Collection[str] = (),
) -> Wish:
    """Everything is looked up, and a folder is uploaded; no machine is asked.

    scenario        may be left out where a run is repeated
    parameters      over those of the settings, or of the run that is repeated
    data            upload this folder first, and run on it
    environment     names of the variables that the run will have
    ConfigError, NotFoundError   what can't be run, or can't be repeated: says what is missing
    """
    if repeat:
        return _repeated(workspace, repeat, scenario, parameters, data, environment)
    if scenario is None:
        raise ConfigError("Which scenario?", next="For example: tlvm run fixed-extractor")
    settings = workspace.settings.run
    resolved = resolve(workspace, scenario, parameters)
    dataset, begins_with = data_and_weights(
        workspace, data, lambda: initial(workspace, scenario, settings.model, settings.weights)
    )
    return Wish(
        scenario=scenario,
        parameters=resolved,
        dataset=dataset,
        weights=begins_with,
        model=settings.model,
        seed=settings.seed,
        max_hours=settings.max_hours,
    )


def scenario_of(workspace: Workspace, repeat: Repeat) -> str:
    """As the id of the run that is repeated says it."""
    return overview.find(workspace, repeat.run).rsplit("-", 3)[0]


def resolve(workspace: Workspace, scenario: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Every parameter of a scenario: as given, else as the settings have it, else its default."""
    return _resolved(scenario, {**workspace.settings.scenarios.get(scenario, {}), **given})


def data_and_weights(
    workspace: Workspace, data: Path | None, weights: Callable[[], T]
) -> tuple[DatasetRef, T]:
    """The dataset that is meant, and the weights. What is only looked up comes first: a folder may take hours to upload."""
    if data is None:
        return dataset_of(workspace, None), weights()
    if not data.is_dir():
        raise NotFoundError(f"There is no folder {printable(str(data))}", next="Check the path.")
    if workspace.settings.provider == "local":
        bundle.require_modules_here()
    found = weights()
    return dataset_of(workspace, data), found


def dataset_of(workspace: Workspace, data: Path | None) -> DatasetRef:
    """The one that is meant; with `data`, that folder, which is uploaded first."""
    if data is None:
        name, version, _ = datasets.resolve(workspace, None)
        return DatasetRef(name, version)
    from orchestrator.workflows.data.upload import require_all, upload  # numpy and Pillow: not for other runs

    uploaded = upload(workspace, data, name=workspace.settings.dataset.name)
    require_all(uploaded)
    if len(uploaded) > 1:
        raise ConfigError(
            f"{data} holds several datasets",
            detail=", ".join(result.name for result in uploaded),
            next="They are uploaded; name the one to run on with --dataset.",
        )
    _warn_of(workspace, data, uploaded[0])
    return DatasetRef(uploaded[0].name, uploaded[0].version)


def _warn_of(workspace: Workspace, data: Path, uploaded: UploadResult) -> None:
    """What whoever trains on these images should know of them."""
    for text in uploaded.warnings:
        workspace.progress.warn(text)
    for what, paths in (("can't be used", uploaded.unusable), ("left out of training", uploaded.excluded)):
        if paths:
            workspace.progress.warn(
                f"{count(len(paths), 'image')} {what}: tlvm upload {shlex.quote(printable(str(data)))} --check-only lists them"
            )


def initial(workspace: Workspace, scenario: str, model: str, wanted: str) -> WeightsRef:
    """The weights it begins with; from scratch means from nothing."""
    if scenario == "from-scratch":
        if wanted not in ("imagenet", "none"):
            raise ConfigError(
                f"from-scratch computes all weights anew: it can't begin with {wanted}",
                next="--weights none, or fine-tune-all to begin with them.",
            )
        wanted = "none"
    if wanted.startswith("run:"):
        wanted = f"run:{overview.find(workspace, wanted.removeprefix('run:'))}"
    return weights.resolve(
        workspace.store,
        model,
        wanted,
        progress=workspace.progress,
        cache_folder=workspace.settings.data_dir / "cache",
    )


def _resolved(scenario: str, given: Mapping[str, Any]) -> dict[str, Any]:
    explained = resources.folder("configs") / "scenarios" / f"{scenario}.toml"
    try:
        return dict(scenarios.resolve(scenario, given))
    except ContractError as error:
        known = scenario in scenarios.SCENARIOS
        next = f"{explained} explains its parameters." if known else "For example: tlvm run fixed-extractor"
        raise ConfigError(str(error), next=next) from None


def _repeated(
    workspace: Workspace,
    repeat: Repeat,
    scenario: str | None,
    parameters: Mapping[str, Any],
    data: Path | None,
    environment: Collection[str],
) -> Wish:
    spec = _spec(workspace, repeat)
    if scenario not in (None, spec.scenario):
        raise ConfigError(
            f"{spec.run_id} is a run of {spec.scenario}, not of {scenario}",
            next=f"Leave {scenario} out to repeat the run, or leave --spec out to do something else.",
        )
    run = _settings_of(spec, workspace.settings.run, repeat.instead)
    if missing := sorted(set(spec.environment) - set(environment)):
        workspace.progress.warn(
            f"{spec.run_id} had variables that this one will not have: {', '.join(missing)} (--env NAME)"
        )
    resolved = _resolved(spec.scenario, {**spec.parameters, **parameters})

    def weights() -> WeightsRef:
        if "weights" in repeat.instead:
            return initial(workspace, spec.scenario, run.model, run.weights)
        return _weights(workspace, spec, run.model)

    if "dataset" in repeat.instead or data is not None:
        dataset, begins_with = data_and_weights(workspace, data, weights)
    else:
        dataset, begins_with = _dataset(workspace, spec), weights()
    workspace.progress.say("repeat", f"{spec.run_id} of {spec.created[:10]}")
    return Wish(spec.scenario, resolved, dataset, begins_with, run.model, run.seed, run.max_hours)


def _spec(workspace: Workspace, repeat: Repeat) -> RunSpec:
    run_id = overview.find(workspace, repeat.run)
    found = required_run(workspace.store, run_id)
    if found.spec.evaluates:
        raise ConfigError(
            f"{run_id} measured the model of {found.spec.evaluates.run_id}, and trained nothing",
            next=f"tlvm evaluate {found.spec.evaluates.run_id[-4:]} measures it again.",
        )
    return found.spec


def _settings_of(spec: RunSpec, settings: RunSettings, instead: Collection[str]) -> RunSettings:
    """What a document of the store says is held to the same ranges as what people say."""
    had = {name: getattr(spec, name) for name in ("model", "seed", "max_hours") if name not in instead}
    try:
        return RunSettings.model_validate(settings.model_dump() | had)
    except ValueError as error:
        raise CloudError(
            f"The spec of {spec.run_id} can't be repeated",
            detail=str(error),
            next="Give what is wrong in it anew: --model, --seed or --max-hours.",
        ) from None


def _dataset(workspace: Workspace, spec: RunSpec) -> DatasetRef:
    name, version = spec.dataset.name, spec.dataset.version
    try:
        load_manifest(workspace.store, name, version)
    except NotFoundError:
        raise NotFoundError(
            f"The version {version[:12]} of {name}, on which {spec.run_id} ran, is not in {workspace.store.url}",
            next=f"--dataset {name} takes its newest version; --data DIR uploads the images again.",
        ) from None
    return spec.dataset


def _weights(workspace: Workspace, spec: RunSpec, model: str) -> WeightsRef:
    """As the run had them, where they are still in the store; for another model, only ImageNet's have a counterpart."""
    had = spec.weights
    if had.source == "none":
        return WeightsRef("none")
    if model != spec.model:
        if not _is_imagenet(spec):
            raise ConfigError(
                f"{spec.run_id} began with weights of a {spec.model} ({had.source}), which do not fit a {model}",
                next="Add --weights: imagenet, a file, run:ID, or none.",
            )
        return initial(workspace, spec.scenario, model, "imagenet")
    if not had.key.startswith((layout.WEIGHTS, layout.RUNS)) or workspace.store.get(had.key) is None:
        raise NotFoundError(
            f"The weights with which {spec.run_id} began ({had.source}) are not in {workspace.store.url}",
            detail=f"No {had.key} there, sha256 {had.sha256[:12]}.",
            next="--weights imagenet fetches them again."
            if _is_imagenet(spec)
            else "tlvm weights push FILE brings a file back; or begin with others: --weights imagenet, a file or run:ID.",
        )
    return had


def _is_imagenet(spec: RunSpec) -> bool:
    known = MODELS.get(spec.model)
    return known is not None and known.source == spec.weights.source
