"""How sure a share is: 95 % intervals of an accuracy, for images that stand alone and for images that come in groups."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

Z = 1.959963984540054  # the normal distribution's 97.5 % point
_DIGITS = 6


def wilson(correct: float, n: float) -> list[float]:
    """Of `correct` out of `n` images (Wilson 1927): stays inside 0 to 1 and holds for few images too."""
    share, z2 = correct / n, Z * Z
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return [round(max(0.0, centre - half), _DIGITS), round(min(1.0, centre + half), _DIGITS)]


def grouped(correct: Sequence[bool], groups: Sequence[str]) -> list[float]:
    """Of images that come in groups (patients, slides): ten images of one patient are not ten witnesses.

    Wilson's interval for as many images as the groups are worth (Korn and Graubard 1998): the variance between groups
    over that of single images, and the t distribution's point for few groups. Never narrower than without groups.
    Where all are right, or all wrong, nothing tells how alike a group is: then a group counts as one image.
    """
    n, share = len(correct), sum(correct) / len(correct)
    excess: dict[str, float] = defaultdict(float)
    for right, group in zip(correct, groups, strict=True):
        excess[group] += right - share
    count = len(excess)
    if count < 2:
        return [0.0, 1.0]
    alone = share * (1 - share) / n
    between = sum(one * one for one in excess.values()) / n**2 * count / (count - 1)
    worth = n / max(1.0, between / alone) if alone else float(count)
    worth *= (Z / _t(count - 1)) ** 2
    return wilson(share * worth, worth)


def _t(freedom: int) -> float:
    """The 97.5 % point of Student's t (Abramowitz and Stegun 26.7.5; too small by a quarter for one degree)."""
    z, v = Z, freedom
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    )
