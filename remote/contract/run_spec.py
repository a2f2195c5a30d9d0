"""What a run is to do: written once by the laptop, read by the machine, never changed."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from . import layout
from .document import LATER, ContractError

SCHEMA = 1
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"  # none that is mistaken for another


@dataclass(frozen=True)
class DatasetRef:
    name: str
    version: str  # sha256 of the manifest

    def __post_init__(self) -> None:
        layout.dataset_name(self.name)
        layout.sha256(self.version)


@dataclass(frozen=True)
class WeightsRef:
    """Pre-trained weights: a file in the store, pinned by its hash; or none (`source` "none")."""

    source: str  # for people: "ImageNet V1", "run fixed-...-k3qz", "file my.pth", "none"
    sha256: str = ""
    key: str = ""  # in the store, below weights/ or runs/

    def __post_init__(self) -> None:
        if self.source != "none":
            layout.sha256(self.sha256)
            layout.inside(self.key)


@dataclass(frozen=True)
class StoreRef:
    """The store as the machine sees it."""

    url: str  # "gs://bucket" or an absolute path
    endpoint: str | None = None
    credentials_file: str | None = None


@dataclass(frozen=True)
class EvaluatedRun:
    """The finished run whose model a job `evaluate` measures, and what its figures need to be known with it."""

    run_id: str
    card_sha256: str  # of its model/model.json; the weights are those of the spec
    trained_on: DatasetRef
    split: Literal["train", "val", "test", "all"]  # of the spec's dataset, which images
    val_chose: str  # what the val images of `trained_on` decided in its training: "nothing" ...
    trained_parameters: int
    frozen_parameters: int
    trained_s: float
    prior: list[float] | None = (
        None  # class shares that its probabilities suppose; None: those of its train images
    )
    val_trained: bool = False  # the model was fitted on these val images too

    def __post_init__(self) -> None:
        layout.checked_run_id(self.run_id)
        layout.sha256(self.card_sha256)


@dataclass(frozen=True)
class RunSpec:
    run_id: str
    scenario: str
    dataset: DatasetRef
    model: str  # "resnet18", a name of torchvision
    weights: WeightsRef
    store: StoreRef
    bundle: str  # sha256
    parameters: dict[str, Any]  # of the scenario, resolved: nothing is left to a default
    seed: int
    owner: str
    project: str
    machine: str
    created: str  # ISO 8601, UTC
    max_hours: float
    tlvm_version: str
    job: Literal["train", "evaluate"] = "train"
    evaluates: EvaluatedRun | None = None  # where the job is `evaluate`
    accelerators: int = 0
    # Names of variables of its own; never a value.
    environment: list[str] = field(default_factory=list, metadata=LATER)
    # The sha256 of what of ours is in the bundle, whatever its wheels; "": a spec of before this was told.
    code: str = field(default="", metadata=LATER)
    schema: int = field(default=SCHEMA)

    def __post_init__(self) -> None:
        layout.checked_run_id(self.run_id)
        layout.sha256(self.bundle)
        if not self.max_hours > 0:
            raise ContractError(f"max_hours is {self.max_hours}, not above 0")


def new_run_id(scenario: str, now: datetime) -> str:
    """fixed-extractor-20260807-142530-k3qz: scenario, UTC time, four random letters or digits."""
    tail = "".join(secrets.choice(_ALPHABET) for _ in range(4))
    return layout.checked_run_id(f"{scenario}-{now:%Y%m%d-%H%M%S}-{tail}")
