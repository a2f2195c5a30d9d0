"""metrics.json: what a run found out, with the uncertainty of each figure and what chose what."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SCHEMA = 1


@dataclass(frozen=True)
class ClassFigures:
    """One class in an evaluation. None where there is nothing to divide by."""

    name: str
    n: int  # images that are of this class
    correct: int
    recall: float | None
    recall_interval: list[float] | None  # 95 %, Wilson
    precision: float | None
    f1: float | None


@dataclass(frozen=True)
class Evaluation:
    """What the model makes of the images of one split."""

    split: str  # "test", "val", or "train, out of fold"
    chose: str  # what these images decided: "nothing", "when training stopped", "the penalty"
    n: int
    correct: int
    accuracy: float  # top-1
    accuracy_interval: list[float]  # 95 %, Wilson
    guessing: float  # the accuracy of always saying the largest class
    balanced_accuracy: float  # mean recall of the classes that are there
    macro_f1: float
    log_loss: float  # after calibration, like the probabilities everywhere
    log_loss_uncalibrated: float
    calibration_error: float  # 15 bins of equal size
    calibration_error_uncalibrated: float
    classes: list[ClassFigures]
    confusion: list[list[int]]  # rows: what it is; columns: what the model says; in the order of the classes


@dataclass(frozen=True)
class Frozen:
    """The proof that what was frozen did not move."""

    parameters: int  # numbers that were not trained
    tensors: int  # parameters and buffers compared
    equal: int  # ... and found equal to the bit after training


@dataclass(frozen=True)
class Counters:
    """The work that was done: for a frozen network, each image once."""

    images: int  # of the dataset version, those left out not counted
    decoded: int
    forwarded: int  # through the backbone


@dataclass(frozen=True)
class Metrics:
    run_id: str
    scenario: str
    model: str
    dataset: str
    dataset_version: str
    weights: str  # for people: "ImageNet V1"
    weights_sha256: str  # "" for none
    seed: int
    classes: list[str]
    images: dict[str, int]  # by split
    excluded: int  # train images left out because val or test has the same
    reported: str  # the split whose evaluation is the result
    evaluations: list[Evaluation]
    temperature: float  # by which logits are divided
    trained_parameters: int
    frozen: Frozen
    counters: Counters
    images_per_s: float  # of extraction or training, decoding included
    seconds: dict[str, float]  # by step, in the order of the steps
    device: str
    versions: dict[str, str]  # of Python, torch, torchvision, Pillow, numpy
    training: dict[str, Any]  # how the new layers were trained; depends on the scenario
    schema: int = field(default=SCHEMA)

    @property
    def result(self) -> Evaluation:
        """The evaluation that is reported."""
        return next(evaluation for evaluation in self.evaluations if evaluation.split == self.reported)
