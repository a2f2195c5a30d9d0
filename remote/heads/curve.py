"""How well the network's stages tell the new classes apart: a classifier on each depth, judged inside train.

The curve by depth says where in the network the new data stop looking like the old. It costs no further pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from remote.contract.metrics import Depth
from remote.features.feature_cache import Floats32
from remote.heads import logistic
from remote.measures.evaluation import Floats, Labels, log_losses
from remote.networks import depths


@dataclass(frozen=True)
class Choice:
    """What a classifier can be given: one block of features or several, side by side."""

    name: str  # for people: "layer2", "maxpool … layer3"
    stages: tuple[str, ...]  # the modules; empty: the features of the whole network
    blocks: tuple[str, ...]

    def of(self, blocks: Mapping[str, Floats32], rows: Sequence[int]) -> Floats32:
        """The numbers of these rows, (rows, width)."""
        return np.concatenate([blocks[name][list(rows)] for name in self.blocks], axis=1)


@dataclass(frozen=True)
class Judged:
    """A choice, and what the held-out images of train say of it."""

    choice: Choice
    depth: Depth
    losses: Floats  # of each held-out image, in nats


def singles(ends: Sequence[str], *, deviations: bool) -> list[Choice]:
    """Every stage alone, from the input on, and the features of the whole network."""
    each = [Choice(name, (name,), depths.blocks_of([name], deviations=deviations)) for name in ends]
    return [*each, Choice(depths.LAST, (), (depths.LAST,))]


def combinations(ends: Sequence[str], *, deviations: bool) -> list[Choice]:
    """The first two stages together, the first three, and so on."""
    return [
        Choice(
            f"{ends[0]} … {ends[count - 1]}",
            tuple(ends[:count]),
            depths.blocks_of(ends[:count], deviations=deviations),
        )
        for count in range(2, len(ends) + 1)
    ]


def judge(
    choices: Sequence[Choice],
    blocks: Mapping[str, Floats32],
    rows: Sequence[int],
    labels: Labels,
    fold_of: NDArray[np.int64],
    penalties: Sequence[float],
    *,
    classes: int,
    on_choice: Callable[[int], None] = lambda done: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Judged]:
    """Each choice, cross-validated on the same folds of train.

    rows        of the blocks: the train images that judge; `labels` and `fold_of` are theirs
    """
    result = []
    for number, choice in enumerate(choices, 1):
        values = choice.of(blocks, rows)
        head = logistic.fit(
            values, labels, fold_of, penalties, classes=classes, should_stop=should_stop, roughly=True
        )
        best = min(head.candidates, key=lambda candidate: candidate.log_loss)
        depth = Depth(
            name=choice.name,
            stages=list(choice.stages),
            features=values.shape[1],
            n=int(head.held_out.sum()),
            accuracy=round(head.accuracy, 6),
            accuracy_error=round(head.accuracy_error, 6),
            log_loss=round(best.log_loss, 6),
        )
        result.append(Judged(choice, depth, log_losses(head.held_out_logits, labels[head.held_out])))
        on_choice(number)
    return result


def simplest(judged: Sequence[Judged]) -> Judged:
    """The one with the fewest features of those whose log-loss is within one standard error of the best.

    The log-loss, because with few images it tells more than right or wrong does. The error is that of the difference
    on the same images.
    """
    best = min(judged, key=lambda one: (float(one.losses.mean()), one.depth.features))
    good = [one for one in judged if _within_one_error(one.losses - best.losses)]
    return min(good, key=lambda one: one.depth.features)


def picture(curve: Sequence[Depth], chosen: str, *, title: str) -> str:
    """The curve as an SVG: accuracy with its 95 % bars from the first stage to the last."""
    return "\n".join(_svg(curve, chosen, title)) + "\n"


def _within_one_error(behind: Floats) -> bool:
    return bool(behind.mean() <= behind.std() / math.sqrt(len(behind)))


_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 720, 420, 64, 56, 96  # pixels


def _svg(curve: Sequence[Depth], chosen: str, title: str) -> Iterator[str]:
    lowest = min(d.accuracy - 2 * d.accuracy_error for d in curve)
    low = min(
        0.9, max(0.0, math.floor(10 * lowest) / 10)
    )  # a curve at 1 from the start needs room below, too
    step = (_WIDTH - _LEFT - 24) / max(1, len(curve))

    def x(index: int) -> float:
        return round(_LEFT + step * (index + 0.5), 1)

    def y(accuracy: float) -> float:
        share = (min(1.0, max(low, accuracy)) - low) / (1 - low)
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM), 1)

    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="13">'
    yield f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>'
    yield f'<text x="{_LEFT}" y="28" font-size="15" fill="#222">{escape(title)}</text>'
    for tick in np.linspace(low, 1, 6):
        yield f'<line x1="{_LEFT}" x2="{_WIDTH - 24}" y1="{y(tick)}" y2="{y(tick)}" stroke="#ddd"/>'
        yield f'<text x="{_LEFT - 8}" y="{y(tick) + 4}" text-anchor="end" fill="#555">{tick:.2f}</text>'
    points = " ".join(f"{x(index)},{y(depth.accuracy)}" for index, depth in enumerate(curve))
    yield f'<polyline points="{points}" fill="none" stroke="#4477aa" stroke-width="2"/>'
    for index, depth in enumerate(curve):
        reach = 1.96 * depth.accuracy_error
        colour = "#cc3311" if depth.name == chosen else "#4477aa"
        top, bottom = y(depth.accuracy + reach), y(depth.accuracy - reach)
        yield f'<line x1="{x(index)}" x2="{x(index)}" y1="{top}" y2="{bottom}" stroke="{colour}"/>'
        yield f'<circle cx="{x(index)}" cy="{y(depth.accuracy)}" r="5" fill="{colour}"/>'
        yield f'<text x="{x(index)}" y="{top - 8}" text-anchor="middle" fill="#222">{depth.accuracy:.3f}</text>'
        place = f'x="{x(index)}" y="{_HEIGHT - _BOTTOM + 20}"'
        turn = f'transform="rotate(-28 {x(index)} {_HEIGHT - _BOTTOM + 20})"'
        yield f'<text {place} {turn} text-anchor="end" fill="{colour}">{escape(depth.name)}</text>'
    yield "</svg>"
