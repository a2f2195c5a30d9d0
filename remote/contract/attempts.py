"""How often a thing is tried that may succeed a moment later; one policy for both halves."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


def _untold(error: Exception, wait_s: float) -> None: ...


@dataclass(frozen=True)
class Attempts:
    """At most `count` tries; what is tried says whether it is worth another: its error has a true `retryable`.

    The waits double from `first_s` up to `longest_s`; each is shortened by up to a half at random, so that clients
    that failed together do not come back together.

    tell        called with the error and the seconds to wait, before each wait; by any thread
    """

    count: int = 7
    first_s: float = 1.0
    longest_s: float = 32.0
    sleep: Callable[[float], None] = time.sleep
    random: Callable[[], float] = random.random  # from 0 to 1
    tell: Callable[[Exception, float], None] = _untold

    def call(self, act: Callable[[], T]) -> T:
        """What `act` returns, or the error of its last try."""
        for wait_s in self.waits():
            try:
                return act()
            except Exception as error:
                if not retryable(error):
                    raise
                self.wait(error, wait_s)
        return act()

    def wait(self, error: Exception, wait_s: float) -> None:
        self.tell(error, wait_s)
        self.sleep(wait_s)

    def waits(self) -> Iterator[float]:
        """Seconds before the second try, the third ..."""
        for number in range(self.count - 1):
            yield min(self.longest_s, self.first_s * 2**number) * (1 - self.random() / 2)


def retryable(error: Exception) -> bool:
    return bool(getattr(error, "retryable", False))
