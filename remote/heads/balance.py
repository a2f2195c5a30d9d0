"""Unequal classes: the bias of a classifier is moved so that rare ones are said more often, as far as that is worth it.

The bias has no penalty, so taking the logarithm of the class shares from it gives just what a fit with a balanced
softmax gives (Menon et al., arXiv 2007.07314). All of it serves the mean recall of the classes best and costs
accuracy wherever rare classes are hard to tell, so how much of it is taken away is chosen inside train: as little as
serves within one standard error as well as the best that costs no accuracy.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from remote.heads.logistic import LinearHead
from remote.measures.evaluation import Floats, Labels

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Balance:
    """One strength, and what the held-out images of train say of it."""

    strength: float  # 0: classes as frequent as in train; 1: all equally frequent
    accuracy: float
    balanced_accuracy: float
    accuracy_error: float  # the standard error of its difference to strength 0, on the same images


@dataclass(frozen=True)
class Judged:
    """All strengths, and of which held-out images each is right."""

    each: list[Balance]  # from 0 on
    right: NDArray[np.bool_]  # (strengths, images)
    labels: Labels  # of the images


@dataclass(frozen=True)
class ClassShares:
    """The class shares that probabilities suppose, and what held-out images of train said of others."""

    prior: list[float] | None  # None: those of train, as they were
    judged: list[Balance]  # none where there was nothing to balance
    chosen: Balance | None

    @property
    def text(self) -> str:
        if self.chosen is None:
            return ""
        before, last = self.judged[0], self.judged[-1]
        return (
            f"; unequal classes, {self.chosen.strength:.0%} of the way to equal shares: held out, mean recall "
            f"{before.balanced_accuracy:.3f} → {self.chosen.balanced_accuracy:.3f}, accuracy {before.accuracy:.3f} → "
            f"{self.chosen.accuracy:.3f} (all the way: {last.balanced_accuracy:.3f}, {last.accuracy:.3f})"
        )

    @property
    def told(self) -> dict[str, Any]:
        """For metrics.json."""
        strength = self.chosen.strength if self.chosen else 0.0
        return {"balance": {"strength": strength, "held_out": [asdict(one) for one in self.judged]}}


def judge(head: LinearHead, labels: Labels, counts: Sequence[int]) -> Judged:
    """Each strength.

    labels      of the held-out images, to which `head.held_out_logits` belong
    counts      images of each class in train, none of them 0
    """
    shifts = [_shift(head, counts, prior(counts, strength)) for strength in STRENGTHS]
    right = np.stack([(head.held_out_logits + shift).argmax(1) == labels for shift in shifts])
    return judged_by(right, labels)


def judged_by(right: NDArray[np.bool_], labels: Labels) -> Judged:
    """The figures of each strength. `right`: see `Judged`."""
    before = right[0].astype(np.float64)
    each = [
        Balance(
            strength,
            float(one.mean()),
            float(np.mean([one[labels == label].mean() for label in np.unique(labels)])),
            float(np.std(one - before) / math.sqrt(len(labels))),
        )
        for strength, one in zip(STRENGTHS, right, strict=True)
    ]
    return Judged(each, right, labels)


def choose(judged: Judged) -> Balance:
    """The weakest whose sum of accuracy and mean recall is within one standard error of the best.

    Only those that lose no accuracy that can be told from chance: one standard error of what changes on the same
    images. The weakest, because the best of several is so in part by luck: the mean recall of classes with few images
    is little more, and what looked free inside train cost a point of accuracy on images that had chosen nothing.
    """
    each = judged.each
    free = [
        number for number, one in enumerate(each) if one.accuracy >= each[0].accuracy - one.accuracy_error
    ]
    best = max(free, key=lambda number: each[number].accuracy + each[number].balanced_accuracy)
    return each[next(number for number in free if _within_one_error(judged, number, best))]


def prior(counts: Sequence[int], strength: float) -> list[float]:
    """The class shares that probabilities are to suppose: those of train at 0, all equal at 1."""
    weights = np.asarray(counts, dtype=np.float64) ** (1 - strength)
    return [float(share) for share in weights / weights.sum()]


def apply(head: LinearHead, labels: Labels, counts: Sequence[int], shares: Sequence[float]) -> LinearHead:
    """The same head, whose probabilities suppose these class shares. `labels`, `counts`: as for `judge`."""
    shift = _shift(head, counts, shares)
    logits = head.held_out_logits + shift
    accuracy = float((logits.argmax(1) == labels).mean())
    return dataclasses.replace(
        head,
        bias=head.bias + torch.from_numpy(shift).float(),
        held_out_logits=logits,
        accuracy=accuracy,
        accuracy_error=math.sqrt(accuracy * (1 - accuracy) / len(labels)),
    )


def _shift(head: LinearHead, counts: Sequence[int], shares: Sequence[float]) -> Floats:
    """What is added to the logits."""
    numbers = np.asarray(counts, dtype=np.float64)
    shift: Floats = head.temperature * (np.log(shares) - np.log(numbers / numbers.sum()))
    return shift


def _within_one_error(judged: Judged, number: int, best: int) -> bool:
    """Whether the sum of accuracy and mean recall is behind the best one's by no more than chance, on the same images."""
    changes = judged.right[best].astype(np.float64) - judged.right[number]
    classes = np.unique(judged.labels)
    behind, variance = 0.0, 0.0
    for label in classes:
        own = changes[judged.labels == label]
        weight = 1 / len(changes) + 1 / (len(classes) * len(own))  # of one image, in the sum
        behind += weight * own.sum()
        variance += weight**2 * np.square(own).sum()  # as if each change might have gone the other way
    return bool(behind <= math.sqrt(variance))
