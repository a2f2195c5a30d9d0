"""Unequal classes: the bias of a classifier is moved so that rare ones are said more often, as far as that is free.

The bias has no penalty, so taking the logarithm of the class shares from it gives just what a fit with a balanced
softmax gives (Menon et al., arXiv 2007.07314). All of it serves the mean recall of the classes best and costs
accuracy wherever rare classes are hard to tell, so how much of it is taken away is chosen inside train.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from remote.heads.logistic import LinearHead
from remote.measures.evaluation import Floats, Labels

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Balance:
    """One strength, and what the held-out images of train say of it."""

    strength: float  # 0: classes as frequent as in train; 1: all equally frequent
    accuracy: float
    balanced_accuracy: float


def judge(head: LinearHead, labels: Labels, counts: Sequence[int]) -> list[Balance]:
    """Each strength.

    labels      of the held-out images, to which `head.held_out_logits` belong
    counts      images of each class in train, none of them 0
    """
    logits = head.held_out_logits
    said = {strength: (logits + strength * _shift(head, counts)).argmax(1) for strength in STRENGTHS}
    return [
        Balance(strength, float(np.mean(answer == labels)), _mean_recall(answer, labels))
        for strength, answer in said.items()
    ]


def choose(judged: Sequence[Balance], n: int) -> Balance:
    """The best mean recall of those whose accuracy is within one standard error of the first, which moves nothing.

    n       images that judged
    """
    accuracy = judged[0].accuracy
    error = math.sqrt(accuracy * (1 - accuracy) / n)
    free = [one for one in judged if one.accuracy >= accuracy - error]
    return max(free, key=lambda one: (one.balanced_accuracy, -one.strength))


def apply(head: LinearHead, labels: Labels, counts: Sequence[int], strength: float) -> LinearHead:
    """The same head, whose probabilities suppose the shares of `prior`. `labels`, `counts`: as for `judge`."""
    shift = strength * _shift(head, counts)
    logits = head.held_out_logits + shift
    accuracy = float((logits.argmax(1) == labels).mean())
    return dataclasses.replace(
        head,
        bias=head.bias + torch.from_numpy(shift).float(),
        held_out_logits=logits,
        accuracy=accuracy,
        accuracy_error=math.sqrt(accuracy * (1 - accuracy) / len(labels)),
    )


def prior(counts: Sequence[int], strength: float) -> list[float]:
    """The class shares that probabilities suppose then: those of train at 0, all equal at 1."""
    weights = np.asarray(counts, dtype=np.float64) ** (1 - strength)
    return [float(share) for share in weights / weights.sum()]


def _shift(head: LinearHead, counts: Sequence[int]) -> Floats:
    """Of the logits, at strength 1."""
    numbers = np.asarray(counts, dtype=np.float64)
    shift: Floats = -head.temperature * np.log(numbers / numbers.sum())
    return shift


def _mean_recall(said: Labels, labels: Labels) -> float:
    return float(np.mean([np.mean(said[labels == label] == label) for label in np.unique(labels)]))
