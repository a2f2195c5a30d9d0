"""How sure figures are that weigh each class by a share that is given, not by how many images of it there are.

Each class is a sample of its own. Its rates have Wilson's intervals (by groups where images come in groups), and those of
sums are put together from them by squaring and adding, each side for itself (Zou and Donner 2008).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from remote.contract.intervals import grouped, wilson

_HALVINGS = 50


@dataclass(frozen=True)
class Rate:
    """A share of the images of one class, or a sum of such shares, with its 95 % interval."""

    value: float
    low: float
    high: float


def rate(flags: Sequence[bool], groups: Sequence[str] | None = None) -> Rate:
    """How often it is so, in images of one class. `groups`: of each image; None where they stand alone."""
    low, high = grouped(flags, groups) if groups else wilson(sum(flags), len(flags))
    return Rate(sum(flags) / len(flags), low, high)


def total(rates: Sequence[Rate], weights: Sequence[float]) -> Rate:
    """The sum of rates of different classes, each times its weight."""
    pairs = list(zip(rates, weights, strict=True))
    value = sum(weight * one.value for one, weight in pairs)
    below = math.hypot(*(weight * (one.value - one.low) for one, weight in pairs))
    above = math.hypot(*(weight * (one.high - one.value) for one, weight in pairs))
    return Rate(value, max(0.0, value - below), value + above)


def share_of(own: Rate, others: Rate) -> Rate | None:
    """own / (own + others), such as a precision; None where both are 0.

    A share is too low where even the highest `others` beside the lowest `own` make more of it: the line between is found
    by halving, for the difference (1 - share) own - share others falls as the share grows.
    """
    if own.value + others.value == 0:
        return None

    def excess(share: float, up: bool) -> float:
        kept, left = 1 - share, share
        middle = kept * own.value - left * others.value
        if up:
            return middle + math.hypot(kept * (own.high - own.value), left * (others.value - others.low))
        return middle - math.hypot(kept * (own.value - own.low), left * (others.high - others.value))

    def border(up: bool) -> float:
        low, high = 0.0, 1.0
        for _ in range(_HALVINGS):
            share = (low + high) / 2
            low, high = (share, high) if excess(share, up) > 0 else (low, share)
        return (low + high) / 2

    value = own.value / (own.value + others.value)
    return Rate(value, min(value, border(False)), max(value, border(True)))
