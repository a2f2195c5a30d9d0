"""How often something is sent in the background: as often as it may cost, and less and less while the store refuses."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from remote.job.claim import Superseded
from remote.store import StoreError

PAUSE_MAX_S = 60.0  # between two tries of a store that refuses


@dataclass(frozen=True)
class Pace:
    """A turn is followed by a pause so long that the turns stay within each of these."""

    interval_s: float = 5.0
    processor_share: float = 0.01  # of one core, which a run keeps busy at least; there are two who publish
    bytes_per_s: float = 100e6


PACE = Pace()


def repeat(
    act: Callable[[], int], pace: Pace, stopping: threading.Event, refused: Callable[[Exception], bool]
) -> None:
    """Call `act` (which returns the bytes that it sent) until `stopping`; in a thread that gives way to training.

    refused     told what `act` raised: whether to go on
    """
    _give_way()
    pause_s = 0.0
    while not stopping.wait(pause_s):
        began_s, processor_s = time.monotonic(), time.thread_time()
        try:
            sent_bytes = act()
        except (StoreError, OSError, Superseded) as error:
            if not refused(error):
                return
            pause_s = min(2 * max(pause_s, pace.interval_s), PAUSE_MAX_S)
        else:
            least_s = (time.thread_time() - processor_s) / pace.processor_share
            least_s = max(least_s, sent_bytes / pace.bytes_per_s)
            pause_s = max(pace.interval_s, least_s - (time.monotonic() - began_s))


def _give_way() -> None:
    """On Linux a thread has a priority of its own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
