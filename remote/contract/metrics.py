"""metrics.json: what a run found out, with the uncertainty of each figure and what chose what."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from remote.contract.wording import count

SCHEMA = 1
MISTAKES_MAX = 24
DOUBTFUL_MAX = 200
IMBALANCED = 3.0  # images of the largest class for one of the smallest, beyond which classes are weighted


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
class Doubt:
    """An image of which the model says something else than its label."""

    path: str  # as in the manifest, percent-encoded
    label: str
    predicted: str
    probability: float  # of what it predicts
    label_probability: float


@dataclass(frozen=True)
class Evaluation:
    """What the model makes of the images of one split."""

    split: str  # "test", "val", "train, held out"; "train, out of fold": by the classifier that training began with
    chose: str  # what these images decided: "nothing", "when training stopped", "the penalty"
    n: int
    correct: int
    accuracy: float  # top-1
    accuracy_interval: list[float]  # 95 %, Wilson; by groups where there are some
    guessing: float  # the accuracy of always saying the largest class
    balanced_accuracy: float  # mean recall of the classes that are there
    macro_f1: float
    log_loss: float  # after calibration, like the probabilities everywhere
    log_loss_uncalibrated: float
    calibration_error: float  # 15 bins of equal size
    calibration_error_uncalibrated: float
    classes: list[ClassFigures]
    # [what it is, what the model says, images]: classes by index, only what occurs.
    confusion: list[list[int]]
    groups: int | None = None  # patients, slides ... of these images; None where images stand alone
    mistakes: list[Doubt] = field(default_factory=list)  # the surest ones first, at most MISTAKES_MAX
    doubtful: list[Doubt] = field(default_factory=list)  # labels to look at, the most doubtful first
    doubtful_labels: int = 0  # of which `doubtful` lists the first DOUBTFUL_MAX


@dataclass(frozen=True)
class Frozen:
    """The proof that what was frozen did not move."""

    parameters: int  # numbers that were not trained
    tensors: int  # parameters and buffers compared
    equal: int  # ... and found equal to the bit after training


@dataclass(frozen=True)
class Depth:
    """How well a classifier on some of the network's stages does, on held-out images of train."""

    name: str
    stages: list[str]  # modules of the network; empty: what the network's own head is given
    features: int  # numbers for each image
    n: int  # held-out images
    accuracy: float
    accuracy_error: float  # its standard error
    log_loss: float


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
    excluded: int  # train images left out because val or test has the same; in an evaluation, images the model has seen
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
    train_images: list[int] = field(default_factory=list)  # of each class, those left out of training aside
    prior: list[float] | None = None  # class shares that the probabilities suppose; None: those of train
    evaluates: str = ""  # the run whose model this is, where it was not trained in this one
    trained_s: float = 0.0  # seconds that the training of that run took
    by_depth: list[Depth] = field(default_factory=list)  # of a frozen network, from its input on
    temperature_from: str = ""  # the split of the evaluation whose logits it was fitted on
    schema: int = field(default=SCHEMA)

    @property
    def imbalance(self) -> float:
        """Train images of the largest class for one of the smallest."""
        return max(self.train_images) / max(1, min(self.train_images)) if self.train_images else 1.0

    @property
    def cut_short(self) -> str:
        """How far the training came where its max_hours did not last: "after 2 of 30 epochs"; "" where they did."""
        if self.training.get("ended_by") != "max_hours":
            return ""
        epochs, recipe = self.training.get("epochs"), self.training.get("recipe")
        last = epochs[-1] if isinstance(epochs, list) and epochs else None
        came = last.get("epoch") if isinstance(last, dict) else None
        of = recipe.get("epochs") if isinstance(recipe, dict) else None
        if not isinstance(came, int) or not isinstance(of, int):
            return "before its last epoch"
        return f"after {came} of {count(of, 'epoch')}"

    @property
    def result(self) -> Evaluation:
        """The evaluation that is reported."""
        return next(evaluation for evaluation in self.evaluations if evaluation.split == self.reported)
