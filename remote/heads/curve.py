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

_UNNOTICED = (
    1e-3  # nats: probabilities a thousandth higher; fits that are only compared are no closer than that
)


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
    folds: NDArray[np.int64]  # in which each of them was held out


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
        losses = log_losses(head.held_out_logits, labels[head.held_out])
        result.append(Judged(choice, depth, losses, fold_of[head.held_out]))
        on_choice(number)
    return result


def simplest(judged: Sequence[Judged]) -> Judged:
    """The simplest of those whose log-loss is within one standard error of the best.

    One stage is simpler than several together, and fewer features are simpler than more. The log-loss, because with
    few images it tells more than right or wrong does. The error is that of the difference on the same folds.
    """
    best = min(judged, key=lambda one: (float(one.losses.mean()), one.depth.features))
    good = [one for one in judged if _within_one_error(one.losses - best.losses, best.folds)]
    return min(good, key=lambda one: (len(one.choice.stages) > 1, one.depth.features))


def picture(alone: Sequence[Depth], together: Sequence[Depth], chosen: str, *, title: str) -> str:
    """The curve as an SVG: accuracy with its 95 % bars from the first stage to the last.

    together    all stages up to one, each drawn beside the last of its stages; none: only single ones were judged
    """
    return "\n".join(_svg(alone, together, chosen, title)) + "\n"


def _within_one_error(behind: Floats, folds: NDArray[np.int64]) -> bool:
    """Whether these losses are higher than those of the best by no more than chance, or by what nobody would notice.

    The images of a fold are judged by one classifier, so they are no independent witnesses and the folds are counted;
    but five folds may agree by luck, so the images are too, and the larger error holds.
    """
    by_fold = np.array([behind[folds == fold].mean() for fold in np.unique(folds)])
    error = behind.std() / math.sqrt(len(behind))
    if len(by_fold) > 2:
        error = max(error, by_fold.std(ddof=1) / math.sqrt(len(by_fold)))
    return bool(behind.mean() <= max(error, _UNNOTICED))


_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 720, 420, 64, 72, 96  # pixels
_BESIDE = 18  # pixels between a stage and all up to it
_ALONE, _TOGETHER, _CHOSEN = "#4477aa", "#228833", "#cc3311"


def _svg(alone: Sequence[Depth], together: Sequence[Depth], chosen: str, title: str) -> Iterator[str]:
    lowest = min(d.accuracy - 2 * d.accuracy_error for d in (*alone, *together))
    # A curve at 1 from the start needs room below, too.
    low = min(0.9, max(0.0, math.floor(10 * lowest) / 10))
    step = (_WIDTH - _LEFT - 24) / max(1, len(alone))

    def x(index: float) -> float:
        return round(_LEFT + step * (index + 0.5), 1)

    def y(accuracy: float) -> float:
        share = (min(1.0, max(low, accuracy)) - low) / (1 - low)
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM), 1)

    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="13">'
    yield f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>'
    yield f'<text x="{_LEFT}" y="26" font-size="15" fill="#222">{escape(title)}</text>'
    yield f'<text x="{_LEFT}" y="{_HEIGHT - 10}" fill="#555">upright lines: 95 % intervals</text>'
    yield from _legend(chosen, bool(together))
    for tick in np.linspace(low, 1, 6):
        yield f'<line x1="{_LEFT}" x2="{_WIDTH - 24}" y1="{y(tick)}" y2="{y(tick)}" stroke="#ddd"/>'
        yield f'<text x="{_LEFT - 8}" y="{y(tick) + 4}" text-anchor="end" fill="#555">{tick:.2f}</text>'
    ends = [depth.name for depth in alone]
    rows = [(_ALONE, "", 0, [(x(index), depth) for index, depth in enumerate(alone)])]
    if together:
        beside = [(x(ends.index(depth.stages[-1])) + _BESIDE, depth) for depth in together]
        rows.append((_TOGETHER, ' stroke-dasharray="5 4"', 1, beside))
    for colour, dashes, below, row in rows:
        points = " ".join(f"{at},{y(depth.accuracy)}" for at, depth in row)
        yield f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>'
        for at, depth in row:
            reach, fill = 1.96 * depth.accuracy_error, _CHOSEN if depth.name == chosen else colour
            top, bottom = y(depth.accuracy + reach), y(depth.accuracy - reach)
            place = (
                f'x="{at - 12}" y="{bottom + 16}"'
                if below
                else f'x="{at}" y="{top - 8}" text-anchor="middle"'
            )
            yield f'<line x1="{at}" x2="{at}" y1="{top}" y2="{bottom}" stroke="{fill}"/>'
            yield f'<circle cx="{at}" cy="{y(depth.accuracy)}" r="5" fill="{fill}"/>'
            yield f'<text {place} fill="#222">{depth.accuracy:.3f}</text>'
    for index, name in enumerate(ends):
        place = f'x="{x(index)}" y="{_HEIGHT - _BOTTOM + 20}"'
        turn = f'transform="rotate(-28 {x(index)} {_HEIGHT - _BOTTOM + 20})"'
        fill = _CHOSEN if name == chosen else _ALONE
        yield f'<text {place} {turn} text-anchor="end" fill="{fill}">{escape(name)}</text>'
    yield "</svg>"


def _legend(chosen: str, together: bool) -> Iterator[str]:
    at = _LEFT
    entries = [
        (_ALONE, "one stage alone", 150),
        (_CHOSEN, f"{'chosen' if together else 'used'}: {chosen}", 0),
    ]
    if together:
        entries.insert(1, (_TOGETHER, "all stages up to it", 170))
    for colour, text, wide in entries:
        yield f'<circle cx="{at + 5}" cy="46" r="5" fill="{colour}"/>'
        yield f'<text x="{at + 16}" y="50" fill="#222">{escape(text)}</text>'
        at += wide
