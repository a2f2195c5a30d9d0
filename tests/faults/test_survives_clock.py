"""A machine whose clock is wrong, and jumps while a run is at work."""

from __future__ import annotations

import re
import time

from tests.faults.machines import LocalMachine
from tests.faults.survival import World

# Python's own clocks; those of the file system stay the kernel's.
_WRONG_CLOCK = """
import datetime, time

SHIFT_S = {hours} * 3600
right = time.time

class Shifted(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)

    @classmethod
    def utcnow(cls):
        return cls.now(datetime.timezone.utc).replace(tzinfo=None)

time.time = lambda: right() + SHIFT_S
time.time_ns = lambda: int(time.time() * 1e9)
datetime.datetime = Shifted
"""


def test_it_is_an_hour_behind_and_then_ahead(local: World, local_machine: LocalMachine) -> None:
    expected = local.undisturbed  # and there is a bundle
    began = time.time()
    local_machine.set_clock(_WRONG_CLOCK.format(hours=-1))
    try:
        with local_machine.holding(3):
            run_id = local.started()
            local_machine.at_hold(3)
            local_machine.set_clock(_WRONG_CLOCK.format(hours=1))
            local_machine.strike(run_id, "training")
        local.published(run_id)
    finally:
        local_machine.set_clock("")
    assert local.pulled(run_id) == expected
    (row,) = [row for row in local("runs", "--json").document["runs"] if row["run_id"] == run_id]
    assert row["state"] == "SUCCEEDED"
    told = local_machine.run(run_id).events.read_text()
    times = [float(text) for text in re.findall(r'"t": ([0-9.]+)', told)]
    assert min(times) < began < began + 3000 < max(times), "the clock was never wrong"
