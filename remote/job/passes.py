"""How far a training has come in its present pass over the images, how fast, and what that means for its hours."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from remote.contract.events import STEPS
from remote.contract.run_spec import RunSpec
from remote.contract.wording import duration

_LOOKED_S = 60.0  # the least from which a rate is believed before the hours are over
_SLOWER = 1.25  # that a pass has to be too slow by, until that is said: the first images are slow
_MEASURED = 0.5  # passes: what may come after the first, until there is a result
_HOURS_MAX = 168.0  # that a run may have


@dataclass(frozen=True)
class Pass:
    """One pass over the images, as its progress events tell it. Times are of the machine's clock, and only subtracted."""

    step: str
    unit: str
    epoch: int  # the first is 1; 0: none, as where features are extracted or a classifier is fitted
    total: int
    done: int
    now_s: float
    first: int  # done at the first event
    began_s: float

    @property
    def in_words(self) -> str:
        """ "in epoch 1, after 64 of 220 images", and how long it all takes when that can be said."""
        at = f"in epoch {self.epoch}" if self.epoch else f"in the step {self.step}"
        what = "an epoch" if self.epoch else "it"
        rate = f"; at this rate {what} takes {duration(self.whole_s)}" if self.whole_s else ""
        return f"{at}, after {self.done:,} of {self.total:,} {self.unit}{rate}"

    @property
    def whole_s(self) -> float:
        """At the rate that was seen; 0 when none was."""
        fresh, seen_s = self.done - self.first, self.now_s - self.began_s
        return seen_s * self.total / fresh if fresh > 0 and seen_s > 0 else 0.0

    @property
    def left_s(self) -> float:
        return self.whole_s * (1 - self.done / self.total)

    def is_too_slow(self, left_s: float) -> bool:
        """The first epoch will not be over in what is left of the run's hours."""
        seen = self.now_s - self.began_s >= _LOOKED_S
        return self.epoch == 1 and seen and self.left_s > _SLOWER * max(0.0, left_s)

    def more_hours(self, name: str, used: float) -> str:
        """What a run needs that has used so many without a result."""
        less = "; smaller images, or the scenario fixed-extractor, take less" if self.epoch else ""
        if not self.whole_s:
            return f"tlvm run --spec {name} --max-hours H does it with more{less}"
        needed = _rounded_up(used + (self.left_s + _MEASURED * self.whole_s) / 3600)
        what = f"this {'epoch' if self.epoch else 'step'}"
        if needed > _HOURS_MAX:
            return f"For {what} it needs about {needed:,.0f}, and a run may have {_HOURS_MAX:g}{less}"
        return f"tlvm run --spec {name} --max-hours {needed:g} is about enough for {what}{less}"


class Foresight:
    """Says once that the first epoch will not be over in time: an hour of a machine costs less than all of them."""

    def __init__(self, spec: RunSpec, warn: Callable[[str], None]) -> None:
        self._spec, self._warn, self._said = spec, warn, False

    def look(self, passing: Pass | None, left_s: float) -> None:
        """left_s      of the run's hours"""
        if self._said or passing is None or not passing.is_too_slow(left_s):
            return
        self._said = True
        name, used = self._spec.run_id[-4:], self._spec.max_hours - left_s / 3600
        self._warn(
            f"This run seems to come to no result: it is {passing.in_words}, and {duration(left_s)} of its max_hours are left. "
            f"tlvm cancel {name} ends it now. {passing.more_hours(name, used)}"
        )


def moved(before: Pass | None, event: Mapping[str, Any]) -> Pass | None:
    """After one more event of the training."""
    step, unit = event.get("step"), event.get("unit")
    done, total, now_s, epoch = (event.get(name) for name in ("done", "total", "t", "epoch"))
    if event.get("type") != "progress" or step not in STEPS or not isinstance(unit, str):
        return before
    if not (isinstance(done, int) and isinstance(total, int) and isinstance(now_s, int | float)):
        return before
    if not 0 <= done <= total or not total:
        return before
    epoch = epoch if isinstance(epoch, int) else 0
    goes_on = before and (before.step, before.unit, before.total, before.epoch) == (step, unit, total, epoch)
    if before and goes_on and done >= before.done:
        return dataclasses.replace(before, done=done, now_s=now_s)
    return Pass(step, unit, epoch, total, done, now_s, first=done, began_s=now_s)


def _rounded_up(hours: float) -> float:
    """To two digits."""
    digit = 10.0 ** (math.floor(math.log10(hours)) - 1)
    return math.ceil(hours / digit) * digit
