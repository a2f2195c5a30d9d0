"""Figures with their uncertainty: what a model makes of images that did not train it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from remote.contract.dataset_manifest import Image
from remote.contract.intervals import grouped, wilson
from remote.contract.metrics import DOUBTFUL_MAX, MISTAKES_MAX, ClassFigures, Doubt, Evaluation

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

_BINS = 15
_DIGITS = 6  # of the figures in metrics.json


def evaluate(
    split: str,
    logits: Floats,
    labels: Labels,
    classes: Sequence[str],
    *,
    temperature: float,
    chose: str,
    images: Sequence[Image] = (),
    prior: Sequence[float] | None = None,
) -> Evaluation:
    """Everything that metrics.json says of one split.

    logits      (n, classes), before the temperature; n is at least 1
    chose       what these images decided
    images      the same n, for their names and groups
    prior       the class shares that the probabilities suppose; log-loss and calibration are for images of these
                shares. None: for images as they are
    """
    said = logits.argmax(1)
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(confusion, (labels, said), 1)
    by_class = [_class_figures(name, index, confusion) for index, name in enumerate(classes)]
    recalls = [figures.recall for figures in by_class if figures.recall is not None]
    scores = [figures.f1 or 0.0 for figures in by_class if figures.recall is not None]
    correct, n = int((said == labels).sum()), len(labels)
    raw, calibrated = probabilities(logits), probabilities(logits, temperature)
    weights = share_weights(labels, prior)
    groups = _groups(images)
    doubtful = _doubtful(calibrated, labels)
    return Evaluation(
        split=split,
        chose=chose,
        n=n,
        correct=correct,
        accuracy=_rounded(correct / n),
        accuracy_interval=grouped((said == labels).tolist(), groups) if groups else wilson(correct, n),
        guessing=_rounded(confusion.sum(1).max() / n),
        balanced_accuracy=_rounded(sum(recalls) / len(recalls)),
        macro_f1=_rounded(sum(scores) / len(scores)),
        log_loss=_rounded((log_losses(logits, labels, temperature) * weights).mean()),
        log_loss_uncalibrated=_rounded((log_losses(logits, labels) * weights).mean()),
        calibration_error=_rounded(calibration_error(calibrated, labels, weights)),
        calibration_error_uncalibrated=_rounded(calibration_error(raw, labels, weights)),
        classes=by_class,
        confusion=[
            [int(is_), int(other), int(confusion[is_, other])] for is_, other in np.argwhere(confusion)
        ],
        groups=len(set(groups)) if groups else None,
        mistakes=_named(_mistakes(calibrated, labels)[:MISTAKES_MAX], calibrated, labels, classes, images),
        doubtful=_named(doubtful[:DOUBTFUL_MAX], calibrated, labels, classes, images),
        doubtful_labels=len(doubtful),
    )


def probabilities(logits: Floats, temperature: float = 1.0) -> Floats:
    """Softmax of logits / temperature, (n, classes)."""
    scaled = logits / temperature
    shares: Floats = np.exp(scaled - scaled.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    return shares


def log_losses(logits: Floats, labels: Labels, temperature: float = 1.0) -> Floats:
    """-log of the probability of what it is, for each image."""
    scaled = logits / temperature
    scaled = scaled - scaled.max(1, keepdims=True)
    losses: Floats = np.log(np.exp(scaled).sum(1)) - scaled[np.arange(len(labels)), labels]
    return losses


def log_loss(logits: Floats, labels: Labels, temperature: float = 1.0) -> float:
    return float(log_losses(logits, labels, temperature).mean())


def calibration_error(probability: Floats, labels: Labels, weights: Floats | None = None) -> float:
    """How far confidence is from accuracy, on average: images sorted by confidence, in 15 bins of equal size.

    weights     of the images; None: all the same
    """
    weights = np.ones(len(labels)) if weights is None else weights
    excess = (probability.max(1) - (probability.argmax(1) == labels)) * weights
    order = np.argsort(probability.max(1), kind="stable")
    bins = np.array_split(order, _BINS)
    return float(sum(abs(excess[part].sum()) for part in bins) / weights.sum())


def fit_temperature(logits: Floats, labels: Labels, weights: Floats | None = None) -> float:
    """The number that logits are divided by so that their log-loss is least (Guo et al., arXiv 1706.04599).

    As if each of the n images had one more vote for every class (Platt 1999, section 2.2): where all of a few images are
    right, log-loss alone would ask for endless certainty.
    The log-loss is convex in 1 / temperature, so its slope is halved down; between 1/20 and 20.
    weights     of the images; None: all the same
    """
    count, classes = logits.shape
    of_target = (count * logits[np.arange(count), labels] + logits.sum(1)) / (count + classes)

    def slope(inverse: float) -> float:
        excess = (probabilities(logits, 1 / inverse) * logits).sum(1) - of_target
        return float(np.average(excess, weights=weights))

    low, high = 1 / 20, 20.0
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return round(1 / math.sqrt(low * high), 6)


def share_weights(labels: Labels, prior: Sequence[float] | None) -> Floats:
    """Of each image, 1 on average, so that the classes which are there have the shares of `prior` to each other."""
    if prior is None:
        return np.ones(len(labels))
    counts = np.bincount(labels, minlength=len(prior))
    weights: Floats = (np.asarray(prior) / np.maximum(counts, 1))[labels]
    weights /= weights.mean()
    return weights


def _groups(images: Sequence[Image]) -> list[str] | None:
    """The group of each image, an image without one being a group of its own; None where no image has one."""
    if all(image.group is None for image in images):
        return None
    return [f"alone {image.path}" if image.group is None else image.group for image in images]


def _mistakes(probability: Floats, labels: Labels) -> list[int]:
    """The images that the model takes for something else, by row, the surest first."""
    wrong = np.flatnonzero(probability.argmax(1) != labels)
    order = np.argsort(-probability[wrong].max(1), kind="stable")
    return [int(row) for row in wrong[order]]


def _doubtful(probability: Floats, labels: Labels) -> list[int]:
    """The images whose label is doubtful, by row, the most doubtful first.

    The model is surer that the image is of another class than it is, on average, of images with that class's label
    (confident learning, arXiv 1911.00068). Right only for images that the model was not trained on.
    """
    rows = np.arange(len(labels))
    own = probability[rows, labels]
    sums = np.bincount(labels, weights=own, minlength=probability.shape[1])
    counts = np.bincount(labels, minlength=probability.shape[1])
    usual = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    sure = np.where(probability >= usual, probability, 0.0)
    found = np.flatnonzero((sure.max(1) > 0) & (sure.argmax(1) != labels) & (probability.argmax(1) != labels))
    order = np.argsort(own[found] - probability[found].max(1), kind="stable")
    return [int(row) for row in found[order]]


def _named(
    rows: Sequence[int],
    probability: Floats,
    labels: Labels,
    classes: Sequence[str],
    images: Sequence[Image],
) -> list[Doubt]:
    if not images:
        return []
    return [
        Doubt(
            path=images[row].path,
            label=classes[labels[row]],
            predicted=classes[int(probability[row].argmax())],
            probability=_rounded(probability[row].max()),
            label_probability=_rounded(probability[row, labels[row]]),
        )
        for row in rows
    ]


def _class_figures(name: str, index: int, confusion: NDArray[np.int64]) -> ClassFigures:
    n, said, correct = (
        int(x) for x in (confusion[index].sum(), confusion[:, index].sum(), confusion[index, index])
    )
    return ClassFigures(
        name=name,
        n=n,
        correct=correct,
        recall=_rounded(correct / n) if n else None,
        recall_interval=wilson(correct, n) if n else None,
        precision=_rounded(correct / said) if said else None,
        f1=_rounded(2 * correct / (n + said)) if n + said else None,
    )


def _rounded(value: float) -> float:
    return round(float(value), _DIGITS)
