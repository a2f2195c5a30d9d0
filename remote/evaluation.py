"""Figures with their uncertainty: what a model makes of images that did not train it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .contract.metrics import ClassFigures, Evaluation

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

_Z = 1.959963984540054  # the normal distribution's 97.5 % point
_BINS = 15
_DIGITS = 6  # of the figures in metrics.json


def evaluate(
    split: str, logits: Floats, labels: Labels, classes: Sequence[str], *, temperature: float, chose: str
) -> Evaluation:
    """Everything that metrics.json says of one split.

    logits      (n, classes), before the temperature; n is at least 1
    chose       what these images decided
    """
    said = logits.argmax(1)
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(confusion, (labels, said), 1)
    by_class = [_class_figures(name, index, confusion) for index, name in enumerate(classes)]
    recalls = [figures.recall for figures in by_class if figures.recall is not None]
    scores = [figures.f1 or 0.0 for figures in by_class if figures.recall is not None]
    correct, n = int((said == labels).sum()), len(labels)
    raw, calibrated = probabilities(logits), probabilities(logits, temperature)
    return Evaluation(
        split=split,
        chose=chose,
        n=n,
        correct=correct,
        accuracy=_rounded(correct / n),
        accuracy_interval=wilson(correct, n),
        guessing=_rounded(confusion.sum(1).max() / n),
        balanced_accuracy=_rounded(sum(recalls) / len(recalls)),
        macro_f1=_rounded(sum(scores) / len(scores)),
        log_loss=_rounded(log_loss(logits, labels, temperature)),
        log_loss_uncalibrated=_rounded(log_loss(logits, labels)),
        calibration_error=_rounded(calibration_error(calibrated, labels)),
        calibration_error_uncalibrated=_rounded(calibration_error(raw, labels)),
        classes=by_class,
        confusion=confusion.tolist(),
    )


def wilson(correct: int, n: int) -> list[float]:
    """The 95 % interval of a share (Wilson 1927): stays inside 0 to 1 and holds for few images too."""
    share, z2 = correct / n, _Z * _Z
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return [_rounded(max(0.0, centre - half)), _rounded(min(1.0, centre + half))]


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


def calibration_error(probability: Floats, labels: Labels) -> float:
    """How far confidence is from accuracy, on average: images sorted by confidence, in 15 bins of equal size."""
    confidence = probability.max(1)
    right = (probability.argmax(1) == labels).astype(np.float64)
    order = np.argsort(confidence, kind="stable")
    bins = [part for part in np.array_split(order, _BINS) if len(part)]
    return float(sum(abs(confidence[part].sum() - right[part].sum()) for part in bins) / len(labels))


def fit_temperature(logits: Floats, labels: Labels) -> float:
    """The number that logits are divided by so that their log-loss is least (Guo et al., arXiv 1706.04599).

    The log-loss is convex in 1 / temperature, so its slope is halved down; between 1/20 and 20.
    """
    of_label = logits[np.arange(len(labels)), labels]

    def slope(inverse: float) -> float:
        return float(((probabilities(logits, 1 / inverse) * logits).sum(1) - of_label).mean())

    low, high = 1 / 20, 20.0
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return round(1 / math.sqrt(low * high), 6)


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
