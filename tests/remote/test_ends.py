"""How a run ends when it has to: before the hard end of its machine, on notice, and with what it has used."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from remote.contract import layout
from remote.contract.layout import RunFolder
from remote.job.asked import keep_hard_end
from remote.job.reasons import Reasons
from remote.job.resources import Gauge
from remote.job.training_process import Limits
from tests.remote.machine import TestMachine, events_of, eventually

COUNT = {"behaviour": "count", "to": 8, "hold": 5}


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[TestMachine]:
    machine = TestMachine(tmp_path, grace_s=1, margin_s=0.2, unmeasured_s=0.2)
    yield machine
    machine.end()


def test_before_the_hard_end_it_checkpoints_publishes_and_says_why(machine: TestMachine) -> None:
    spec = machine.spec("count", parameters=COUNT)
    assert machine.start(spec, seconds_left=5.0) == 0
    eventually(lambda: machine.is_at_rest(spec))
    status = machine.stored_status(spec)
    assert status.state == "INTERRUPTED"
    assert status.message.startswith("the time of the machine is over in ")
    assert status.attempts[0].how == "INTERRUPTED"
    assert (machine.store / layout.latest_checkpoints_key(spec.run_id)).exists()
    assert machine.stored_stream(spec, "log") == machine.run_folder(spec).log.read_bytes()
    assert machine.start(spec, seconds_left=600.0) == 0  # the machine got another end
    eventually(lambda: machine.is_at_rest(spec))
    assert machine.stored_status(spec).state == "SUCCEEDED"


def test_the_end_is_not_the_machines_wall_clock(
    machine: TestMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour wrong, from the start of the supervisor on: the seconds that are left stay the same."""
    wrong = machine.folder / "wrong"
    wrong.mkdir()
    (wrong / "sitecustomize.py").write_text(
        "import time\nright = time.time\ntime.time = lambda: right() + 3600\n"
    )
    monkeypatch.setattr(machine, "first_paths", [str(wrong)])
    spec = machine.spec("count", parameters=COUNT)
    assert machine.start(spec, seconds_left=600.0) == 0
    eventually(machine.log_says(spec, "counted 5"))
    times = [event["t"] for event in events_of(machine.run_folder(spec).events.read_bytes())]
    assert min(times) > machine.run_folder(spec).events.stat().st_mtime + 3000  # the clock is wrong indeed
    (machine.run_folder(spec).root / "cancel").touch()
    eventually(lambda: machine.is_at_rest(spec))
    assert machine.stored_status(spec).state == "CANCELLED"


def test_a_machine_that_is_taken_away_has_its_newest_checkpoint_in_the_store(machine: TestMachine) -> None:
    spec = machine.spec("count", parameters=COUNT | {"size": 100_000})
    supervisor = machine.begin(spec)
    eventually(machine.log_says(spec, "counted 5"))
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(20) == 12
    newest = machine.store / layout.checkpoint_key(spec.run_id, "attempt-1/checkpoint-00000005.pt")
    assert newest.read_bytes() == b"5 " * 100_000


@pytest.mark.parametrize(
    ("seconds_left", "asked", "at_least", "at_most"),
    [
        (240.0, True, 200.0, 225.0),  # the guard, before the hard end: all the time that there is
        (3600.0, True, 20.0, 20.0),  # the cloud takes the machine away: it gives 30 s
        (None, True, 20.0, 20.0),
        (100.0, False, 60.0, 85.0),  # the run's own look at the clock
    ],
)
def test_what_is_said_last_may_take_as_long_as_there_is(
    tmp_path: Path, seconds_left: float | None, asked: bool, at_least: float, at_most: float
) -> None:
    folder, told = RunFolder(tmp_path), threading.Event()
    if seconds_left is not None:
        keep_hard_end(folder, seconds_left)
    if asked:
        told.set()
    assert at_least <= Reasons(folder, told, Limits()).patience_s() <= at_most


@pytest.mark.parametrize("behaviour", ["succeed", "crash", "killed", "segfault"])
def test_what_a_run_has_used_is_told_whatever_became_of_it(machine: TestMachine, behaviour: str) -> None:
    spec = machine.spec(behaviour)
    machine.carry_out(spec)
    resources = machine.stored_status(spec).resources
    assert resources is not None
    assert 5 < resources.peak_memory_mb < 500
    assert 0.02 < resources.processor_s < 30
    assert resources.gpu_memory_mb is None
    assert resources.disk_free_mb > 1


def test_what_an_attempt_has_used_is_noted_while_it_works(machine: TestMachine) -> None:
    """A supervisor that is killed leaves what counts of max_hours."""
    machine.tell_s = 0.1
    spec = machine.spec("wait")
    supervisor = machine.begin(spec)
    eventually(machine.log_says(spec, "waiting"))
    eventually(lambda: machine.status(spec).attempts[0].used_s > 0.3)
    used_s = machine.status(spec).attempts[0].used_s
    supervisor.kill()
    supervisor.wait()
    eventually(lambda: machine.is_at_rest(spec))
    again = machine.begin(spec)
    eventually(lambda: machine.status(spec).attempt == 2)
    first = machine.status(spec).attempts[0]
    assert (first.how, first.used_s >= used_s, first.ended is not None) == ("KILLED", True, True)
    again.send_signal(signal.SIGTERM)
    assert again.wait(20) == 12


def test_the_events_say_how_long_the_log_was(machine: TestMachine) -> None:
    spec = machine.spec("noisy")
    machine.carry_out(spec)
    lengths = [
        event["bytes"]
        for event in events_of(machine.run_folder(spec).events.read_bytes())
        if event["type"] == "logged"
    ]
    assert (
        lengths
        and lengths == sorted(lengths)
        and 0 < lengths[0] <= machine.run_folder(spec).log.stat().st_size
    )


def test_a_gpu_without_a_driver_uses_nothing(tmp_path: Path) -> None:
    times = iter([0.0, 1.0, 6.0])
    gauge = Gauge(tmp_path, [0], clock=lambda: next(times))
    for _ in range(3):
        gauge.look()
    used_mb = gauge.read().gpu_memory_mb
    assert used_mb is not None and used_mb >= 0
