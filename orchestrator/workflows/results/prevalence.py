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
from orchestrator.workflows.results.measured import Measured
from orchestrator.workflows.results.weighted import Rate, rate, share_of, total
from remote.contract.metrics import Metrics


@dataclass(frozen=True)
class AdjustedClass:
    name: str
    share: float  # of all images, in that world
    recall: float | None  # None: no image of this class was measured
    recall_interval: list[float] | None  # 95 %, like the others
    precision: float | None  # None: nothing is ever taken for it
    precision_interval: list[float] | None


@dataclass(frozen=True)
class Adjusted:
    """What to expect at the shares that were given, when the probabilities are adjusted to them, too."""

    accuracy: float
    accuracy_interval: list[float]  # 95 %
    before: float  # the accuracy there, with the decisions as they were
    before_interval: list[float]
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


def adjusted(
    measured: Measured, model: Metrics, shares: Sequence[float], groups: Mapping[str, str] | None = None
) -> Adjusted:
    """The figures of these images at these shares. ConfigError where a class that is to be frequent was not measured.

    groups      of images that come in groups (patients, slides), by path; none: they stand alone
    """
    classes = measured.metrics.classes
    factors = [new / old if old else 0.0 for new, old in zip(shares, supposed(model), strict=True)]
    by_class = [_OfClass([], [], [] if groups else None) for _ in classes]
    for one in measured.said:
        own = by_class[classes.index(one.label)]
        own.before.append(classes.index(one.predicted))
        own.now.append(decision(one.probabilities, factors))
        if groups and own.groups is not None:
            own.groups.append(groups.get(one.path, f"alone {one.path}"))
    there = [index for index, own in enumerate(by_class) if own.now]
    if lacking := [classes[index] for index, share in enumerate(shares) if share and index not in there]:
        raise ConfigError(
            f"--prior: no image of {', '.join(lacking[:5])} was measured, so nothing is known of it",
            next="Give it the share 0, or measure on images that have it.",
        )
    weights = [shares[index] for index in there]
    now = total([by_class[index].rate(index) for index in there], weights)
    before = total([by_class[index].rate(index, before=True) for index in there], weights)
    return Adjusted(
        accuracy=now.value,
        accuracy_interval=[now.low, min(1.0, now.high)],
        before=before.value,
        before_interval=[before.low, min(1.0, before.high)],
        changed=sum(a != b for own in by_class for a, b in zip(own.now, own.before, strict=True)),
        images=len(measured.said),
        classes=[_adjusted(name, index, by_class, shares) for index, name in enumerate(classes)],
    )


@dataclass(frozen=True)
class _OfClass:
    """The images of one class, in the order of the manifest: what each is taken for."""

    before: list[int]
    now: list[int]
    groups: list[str] | None

    def rate(self, index: int, *, before: bool = False) -> Rate:
        """How often they are taken for this class."""
        return rate([said == index for said in (self.before if before else self.now)], self.groups)


def _adjusted(name: str, index: int, by_class: Sequence[_OfClass], shares: Sequence[float]) -> AdjustedClass:
    own = by_class[index].rate(index) if by_class[index].now else None
    others = [other for other, one in enumerate(by_class) if one.now and other != index]
    wrong = total([by_class[other].rate(index) for other in others], [shares[other] for other in others])
    right = total([own] if own else [], [shares[index]] if own else [])
    precision = share_of(right, wrong)
    return AdjustedClass(
        name=name,
        share=shares[index],
        recall=own.value if own else None,
        recall_interval=[own.low, own.high] if own else None,
        precision=precision.value if precision else None,
        precision_interval=[precision.low, precision.high] if precision else None,
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
