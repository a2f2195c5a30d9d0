"""Two models on the same images: is one better, or is it luck? Only images that one gets right and the other wrong tell.

McNemar's exact test. Where images come in groups, its generalisation: the signs of whole groups are flipped.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from remote.contract.intervals import Z

_POWER = 0.8416212335729143  # the normal distribution's 80 % point
_ALL_FLIPS = 12  # groups up to which every combination of signs is tried
_FLIPS = 20_000
_LUCK = (
    0.0,
    0.0,
    0.56,
    0.85,
    1.03,
    1.16,
    1.27,
    1.35,
    1.42,
    1.49,
    1.54,
)  # the highest of k normal numbers, mean


@dataclass(frozen=True)
class Pair:
    """The second model against the first one, on the same images."""

    images: int
    gained: int  # right now, wrong before
    lost: int
    difference: float  # of the accuracies
    interval: list[float]  # 95 %, of the difference
    p: float  # of a difference at least as large where both are equally good

    @property
    def error(self) -> float:
        """The standard error of the difference."""
        return (self.interval[1] - self.interval[0]) / (2 * Z)


def pair(first: Sequence[bool], second: Sequence[bool], groups: Sequence[str] | None = None) -> Pair:
    """Compare which images each gets right, in the same order.

    groups  of each image; None where images stand alone
    """
    gained = sum(b and not a for a, b in zip(first, second, strict=True))
    lost = sum(a and not b for a, b in zip(first, second, strict=True))
    n = len(first)
    if groups is None:
        interval, p = _interval(gained, lost, n), mcnemar(gained, lost)
    else:
        net: dict[str, int] = defaultdict(int)
        sizes: dict[str, int] = defaultdict(int)
        for a, b, group in zip(first, second, groups, strict=True):
            net[group] += int(b) - int(a)
            sizes[group] += 1
        interval, p = _group_interval(net, sizes), _flipped([one for one in net.values() if one])
    return Pair(n, gained, lost, (gained - lost) / n, [max(-1.0, interval[0]), min(1.0, interval[1])], p)


def mcnemar(gained: int, lost: int) -> float:
    """Exact, two-sided: as if each image that tells them apart were the toss of a fair coin."""
    tosses, fewer = gained + lost, min(gained, lost)
    tail = sum(math.comb(tosses, k) for k in range(fewer + 1))
    return min(1.0, float(2 * tail / 2**tosses))


def holm(ps: Sequence[float]) -> list[float]:
    """The same p-values, made larger because there are several (Holm 1979)."""
    order = sorted(range(len(ps)), key=lambda index: ps[index])
    result, highest = [0.0] * len(ps), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[index]))
        result[index] = highest
    return result


def images_needed(found: Pair) -> int | None:
    """How many images would tell the two apart, if the difference is what it seems: in 4 of 5 tries, at the 5 % level."""
    apart, difference = (found.gained + found.lost) / found.images, abs(found.difference)
    if not difference:
        return None
    root = Z * math.sqrt(apart) + _POWER * math.sqrt(max(0.0, apart - difference**2))
    return math.ceil((root / difference) ** 2)


def luck(pairs: Sequence[Pair], looks: int) -> float:
    """By how much the best of so many equally good models seems better than it is, on average, on these images."""
    if not pairs:
        return 0.0
    alone = sum(one.error for one in pairs) / len(pairs) / math.sqrt(2)
    return alone * _LUCK[min(looks, len(_LUCK) - 1)]


def _interval(gained: int, lost: int, n: int) -> list[float]:
    """Agresti and Min (2005): half an image is added to each of the four cells, so that few images don't seem sure."""
    b, c, total = gained + 0.5, lost + 0.5, n + 2
    half = Z * math.sqrt(b + c - (b - c) ** 2 / total) / total
    return [(b - c) / total - half, (b - c) / total + half]


def _group_interval(net: dict[str, int], sizes: dict[str, int]) -> list[float]:
    n, count = sum(sizes.values()), len(net)
    difference = sum(net.values()) / n
    if count < 2:
        return [-1.0, 1.0]
    between = sum((net[group] - sizes[group] * difference) ** 2 for group in net) * count / (count - 1)
    half = Z * math.sqrt(max(between, 1.0)) / n
    return [difference - half, difference + half]


def _flipped(net: Sequence[int]) -> float:
    """The share of all ways to exchange the two models, group by group, with a difference at least as large."""
    observed = abs(sum(net))
    if len(net) <= _ALL_FLIPS:
        ways = [
            abs(sum(sign * one for sign, one in zip(signs, net, strict=True)))
            for signs in product((1, -1), repeat=len(net))
        ]
        return sum(way >= observed for way in ways) / len(ways)
    toss = random.Random(0)
    hits = sum(abs(sum(one * toss.choice((1, -1)) for one in net)) >= observed for _ in range(_FLIPS))
    return (hits + 1) / (_FLIPS + 1)
