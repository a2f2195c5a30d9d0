"""Figures and decisions for a world in which the classes are as frequent as the user says, not as in the images.

A model's probabilities hold for the class shares that it was trained with. Where others hold, each probability is
multiplied by how much more frequent its class is (Saerens et al. 2002), and images are weighed the same way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.config import nearest
from orchestrator.errors import ConfigError
from orchestrator.workflows.measured import Measured
from remote.contract.metrics import Metrics


@dataclass(frozen=True)
class AdjustedClass:
    name: str
    share: float  # of all images, in that world
    recall: float | None  # None: no image of this class was measured
    precision: float | None  # None: nothing is ever taken for it


@dataclass(frozen=True)
class Adjusted:
    """What to expect at the shares that were given, when the probabilities are adjusted to them, too."""

    accuracy: float
    before: float  # the accuracy there, with the decisions as they were
    changed: int  # decisions that are another
    images: int
    classes: list[AdjustedClass]


def prevalence(given: Mapping[str, float], classes: Sequence[str]) -> list[float]:
    """The share of each class. One that is not given gets what is left, in equal parts.

    ConfigError     an unknown class, a share that is none, shares above 1 in all
    """
    for name, share in given.items():
        if name not in classes:
            raise ConfigError(
                f"--prior {name[:80]}: the model has no such class", next=nearest(name, list(classes))
            )
        if not (math.isfinite(share) and 0 <= share <= 1):
            raise ConfigError(
                f"--prior {name}={share:g} is not a share", next="It takes a number from 0 to 1."
            )
    total, others = sum(given.values()), [name for name in classes if name not in given]
    if total > 1 + 1e-6 or (not others and abs(total - 1) > 0.01) or not total:
        raise ConfigError(
            f"--prior: the shares make {total:g}, not 1",
            next="Give each class, or leave some out: they share the rest.",
        )
    rest = max(0.0, 1 - total) / max(1, len(others))
    shares = [given.get(name, rest) for name in classes]
    return [share / sum(shares) for share in shares]


def adjusted(measured: Measured, model: Metrics, shares: Sequence[float]) -> Adjusted:
    """The figures of these images at these shares. ConfigError where a class that is to be frequent was not measured."""
    classes = measured.metrics.classes
    factors = [new / old if old else 0.0 for new, old in zip(shares, supposed(model), strict=True)]
    counts = [0] * len(classes)
    table = [[0] * len(classes) for _ in classes]  # what it is, what it is taken for
    right, changed = [0] * len(classes), 0
    for one in measured.said:
        is_ = classes.index(one.label)
        before = classes.index(one.predicted)
        now = decision(one.probabilities, factors)
        counts[is_] += 1
        table[is_][now] += 1
        right[is_] += before == is_
        changed += now != before
    if lacking := [name for name, n, share in zip(classes, counts, shares, strict=True) if share and not n]:
        raise ConfigError(
            f"--prior: no image of {', '.join(lacking[:5])} was measured, so nothing is known of it",
            next="Give it the share 0, or measure on images that have it.",
        )
    weight = [share / n if n else 0.0 for share, n in zip(shares, counts, strict=True)]
    size = range(len(classes))
    said = [sum(weight[is_] * table[is_][now] for is_ in size) for now in size]
    return Adjusted(
        accuracy=sum(weight[own] * table[own][own] for own in size),
        before=sum(weight[own] * right[own] for own in size),
        changed=changed,
        images=len(measured.said),
        classes=[
            AdjustedClass(
                name=classes[own],
                share=shares[own],
                recall=table[own][own] / counts[own] if counts[own] else None,
                precision=weight[own] * table[own][own] / said[own] if said[own] else None,
            )
            for own in size
        ],
    )


def supposed(metrics: Metrics) -> list[float]:
    """The class shares that the model's probabilities hold for."""
    if metrics.prior is not None and len(metrics.prior) == len(metrics.classes):
        return metrics.prior
    if len(metrics.train_images) != len(metrics.classes) or not sum(metrics.train_images):
        raise ConfigError(
            f"The run {metrics.run_id} does not say how many train images each class had: --prior can't be used"
        )
    return [count / sum(metrics.train_images) for count in metrics.train_images]


def decision(probabilities: Sequence[float], factors: Sequence[float]) -> int:
    """The class to say, by index."""
    scores = [share * factor for share, factor in zip(probabilities, factors, strict=True)]
    return max(range(len(scores)), key=lambda index: scores[index])


def moved(probabilities: Mapping[str, float], factors: Mapping[str, float]) -> dict[str, float]:
    """The probabilities, adjusted; they sum to 1 again."""
    scores = {name: share * factors.get(name, 1.0) for name, share in probabilities.items()}
    total = sum(scores.values())
    return {name: score / total for name, score in scores.items()} if total else dict(probabilities)
