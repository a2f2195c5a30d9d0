"""Whether a training goes on with another epoch, and what ended it."""

from __future__ import annotations

from typing import Literal

from remote.training.recipe import Recipe
from remote.training.trainee import Position, Trainee

_NEXT = 1.5  # epochs: the next, and what it may take longer


def is_next(settings: Recipe, position: Position) -> bool:
    """Whether epochs and patience leave another one."""
    return position.epoch < settings.epochs and position.epoch - position.best_epoch < settings.patience


def is_late(trainee: Trainee, position: Position, epochs: int) -> bool:
    """Too late for another epoch and for measuring what came of them all. Never before the first.

    An image that is measured takes no longer than one that is learned from; writing the result takes time, too.
    """
    if not position.epoch:
        return False
    longest_s = max(float(epoch["seconds"]) for epoch in position.history)
    end = max(1.0, trainee.measured / max(1, sum(trainee.class_counts)))
    left_s = trainee.left_s()
    if left_s >= (_NEXT + end) * longest_s:
        return False
    trainee.tell(
        f"Stopped after epoch {position.epoch} of {epochs}: {left_s:.0f} s of max_hours are left, and an epoch takes up to "
        f"{longest_s:.0f} s. What is best so far is the result; a longer --max-hours gives more epochs"
    )
    return True


def ended_by(settings: Recipe, position: Position) -> Literal["epochs", "patience", "max_hours"]:
    """What ended a training that was not stopped."""
    if is_next(settings, position):
        return "max_hours"
    return "epochs" if position.epoch >= settings.epochs else "patience"
