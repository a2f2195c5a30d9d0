"""`tlvm run X --rehearse`: the same spec with two images a class on this computer, before anything is rented.

All of the way is gone, with the real code, data and weights: fetch, train, evaluate, publish, verify, pull. Machine,
store and result are thrown away; nothing but the images' packs and the weights is read of the store of the project.
"""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from orchestrator.config import ProviderName
from orchestrator.datasets.publishing.versions import load_manifest
from orchestrator.errors import CloudError, Interruption, RunFailed, TlvmError
from orchestrator.stores.base import Store
from orchestrator.workflows.runs.recover import Recovery
from orchestrator.workflows.runs.run import carry_out
from orchestrator.workflows.runs.wish import Wish
from orchestrator.workflows.throwaway import MAX_HOURS, throwaway
from orchestrator.workflows.workspace import Workspace
from remote.contract.dataset_manifest import DatasetManifest, Split, values
from remote.contract.run_spec import DatasetRef, WeightsRef

IMAGES_EACH = 2  # of a class and split
_SPLITS = get_args(Split)
_AT_MOST = {"epochs": 2, "folds": 2, "holdout": 0.34}  # enough to go through every step
_INSTEAD = {"compile": "off"}  # takes a GPU and minutes


@dataclass(frozen=True)
class RehearsedRun:
    scenario: str
    model: str
    weights: str  # for people: "ImageNet V1"
    changed: dict[str, str] = field(default_factory=dict)  # parameter -> what became of it: "15 → 2"
    seconds: float = 0


@dataclass(frozen=True)
class RehearsalResult:
    provider: str  # on which it was done
    dataset: str
    dataset_version: str
    images: int  # that were used
    packs: int  # that were fetched for them
    runs: list[RehearsedRun]
    seconds: float
    next: str  # the command that does it in earnest


def rehearse(
    workspace: Workspace,
    wishes: Sequence[Wish],
    *,
    next: str,
    environment: Mapping[str, str] | None = None,
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> RehearsalResult:
    """Do what is wished for, of one dataset, one after the other on a machine that is thrown away.

    next            the command that does it in earnest
    environment     as of `run`
    RunFailed       one of them failed, as it would have on a machine that costs money
    Interruption    on Ctrl-C; nothing of it goes on
    and what the parts of `run` raise
    """
    from orchestrator.datasets.few import put_few  # numpy: not for other runs

    began, recovery = time.monotonic(), Recovery(environment=environment or {})
    dataset = wishes[0].dataset
    manifest = load_manifest(workspace.store, dataset.name, dataset.version)
    provider = _provider(workspace)
    image = workspace.settings.machine.image if workspace.settings.provider == provider else ""
    done = []
    try:
        with throwaway(workspace, "rehearsal", provider=provider, image=image) as own:
            version, images, packs = put_few(workspace.store, manifest, own.store, each=_each(manifest))
            own.progress.say("rehearse", f"{images} of {len(manifest.images):,} images of {dataset.name}")
            for wish in wishes:
                _copy_weights(workspace.store, wish.weights, own.store)
                small, changed = _smaller(wish, DatasetRef(dataset.name, version))
                started = time.monotonic()
                _carry_out(own, small, recovery, on_event)
                seconds = time.monotonic() - started
                done.append(RehearsedRun(wish.scenario, wish.model, wish.weights.source, changed, seconds))
    except KeyboardInterrupt:
        raise Interruption("The rehearsal has ended its machine", next="Nothing of it goes on.") from None
    took = time.monotonic() - began
    return RehearsalResult(provider, dataset.name, dataset.version, images, packs, done, took, next)


def _each(manifest: DatasetManifest) -> dict[Split, int]:
    """Where val or test is missing, a part of train steers, and would leave one image of a class to choose a penalty by."""
    there = {split for (split,) in values(manifest.images, "split")}
    train = IMAGES_EACH if there.issuperset(_SPLITS) else IMAGES_EACH + 1
    return {split: train if split == "train" else IMAGES_EACH for split in _SPLITS}


def _provider(workspace: Workspace) -> ProviderName:
    """This computer where the run would be on it, too; else a container, or this computer where there is no Docker."""
    if workspace.settings.provider == "local":
        return "local"
    try:
        workspace.on_provider("docker").provider.machines()
    except TlvmError as error:
        workspace.progress.warn(f"{error.what}: the rehearsal is done on this computer itself, not in Docker")
        return "local"
    return "docker"


def _smaller(wish: Wish, dataset: DatasetRef) -> tuple[Wish, dict[str, str]]:
    """The same but for what makes no sense with so few images; and what that is."""
    wanted = wish.parameters
    capped = {name: most for name, most in _AT_MOST.items() if name in wanted and wanted[name] > most}
    instead = {name: value for name, value in _INSTEAD.items() if wanted.get(name) == "on"}
    new = {**capped, **instead}
    changed = {name: f"{wanted[name]} → {value}" for name, value in new.items()}
    small = dataclasses.replace(
        wish, dataset=dataset, parameters={**wanted, **new}, max_hours=min(wish.max_hours, MAX_HOURS)
    )
    return small, changed


def _copy_weights(source: Store, weights: WeightsRef, target: Store) -> None:
    if weights.source == "none" or target.get(weights.key) is not None:
        return
    with tempfile.TemporaryDirectory(prefix="tlvm-") as folder:
        path = Path(folder) / "weights"
        source.download(weights.key, path)
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != weights.sha256:
            raise CloudError(
                f"{weights.key} in {source.url} is damaged: its sha256 is {found[:12]}, not {weights.sha256[:12]}",
                next="tlvm weights push FILE, or --weights imagenet, puts it there again.",
            )
        target.upload(path, weights.key)


def _carry_out(
    own: Workspace, wish: Wish, recovery: Recovery, on_event: Callable[[dict[str, Any]], None] | None
) -> None:
    try:
        carry_out(own, wish, recovery, on_event=on_event)
    except RunFailed as error:
        raise RunFailed(
            f"The rehearsal of {wish.scenario} failed; nothing was rented",
            detail=error.detail,
            next="Mend what it says, then rehearse again.",
        ) from None
