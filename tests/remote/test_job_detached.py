"""What the laptop calls over SSH: start, follow, status, cancel; and the waiting line."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from remote.contract import document, frames
from remote.contract.document import ContractError
from remote.contract.run_spec import RunSpec
from remote.contract.start_request import StartRequest
from remote.job import launch, line
from remote.job.follow import Growing, follow
from tests.remote.machine import TestMachine, eventually


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[TestMachine]:
    machine = TestMachine(tmp_path)
    yield machine
    for path in machine.home.runs.glob("*"):
        (path / "cancel").touch()
        eventually(partial(_is_at_rest, machine, path.name))
    machine.end()


def _is_at_rest(machine: TestMachine, run_id: str) -> bool:
    return not line.is_held(line.run_lock(machine.home.locks, run_id))


def started(machine: TestMachine, spec: RunSpec, monkeypatch: pytest.MonkeyPatch) -> int:
    """`start`, with the stand-in as training."""
    for name in ("HOME", "PYTHONPATH"):
        monkeypatch.setenv(name, machine.environment[name])
    return launch.start(StartRequest(spec), machine.home, command=machine.supervisor())


def test_start_leaves_a_supervisor_in_a_session_of_its_own(
    machine: TestMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = machine.spec("wait")
    pid = started(machine, spec, monkeypatch)
    assert line.is_held(line.run_lock(machine.home.locks, spec.run_id))
    assert os.getsid(pid) == pid
    eventually(machine.log_says(spec, "waiting"))
    assert machine.remote("cancel", spec.run_id).stdout == b'{"state": "CANCELLED"}\n'
    os.waitpid(pid, 0)


def test_an_active_run_is_not_started_twice(machine: TestMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = machine.spec("wait")
    pid = started(machine, spec, monkeypatch)
    again = machine.remote("start", str(machine.write(spec)))
    assert again.returncode == 10
    assert b"is active already" in again.stderr
    machine.remote("cancel", spec.run_id)
    os.waitpid(pid, 0)


def test_a_run_that_has_ended_is_not_started_again(machine: TestMachine) -> None:
    spec = machine.spec("succeed")
    machine.carry_out(spec)
    again = machine.remote("start", str(machine.run_folder(spec).spec))
    assert again.returncode == 10
    assert b"has ended already" in again.stderr


def test_start_takes_the_spec_from_stdin_and_ends_at_once(machine: TestMachine) -> None:
    spec = machine.spec("succeed", accelerators=16)  # fails before any training
    command = [sys.executable, "-m", "remote", "start", "-"]
    process = subprocess.run(
        command,
        env=machine.environment,
        input=document.encode(spec).encode(),
        capture_output=True,
        timeout=30,
    )
    assert json.loads(process.stdout)["pid"] > 0
    eventually(lambda: not line.is_held(line.run_lock(machine.home.locks, spec.run_id)))
    assert machine.stored_status(spec).state == "FAILED"


def test_cancel_ends_a_running_one_with_a_checkpoint_and_publishes(machine: TestMachine) -> None:
    spec = machine.spec("wait")
    supervisor = machine.begin(spec)
    eventually(machine.log_says(spec, "waiting"))
    assert machine.remote("cancel", spec.run_id).returncode == 0
    assert supervisor.wait(10) == 130
    assert machine.stored_status(spec).state == "CANCELLED"
    assert machine.manifest(spec).state == "CANCELLED"


def test_cancel_ends_a_run_that_nobody_supervises(machine: TestMachine) -> None:
    spec = machine.spec("wait")
    supervisor = machine.begin(spec)
    eventually(machine.log_says(spec, "waiting"))
    supervisor.kill()
    supervisor.wait()
    assert machine.remote("cancel", spec.run_id).stdout == b'{"state": "CANCELLED"}\n'
    assert machine.stored_status(spec).state == "CANCELLED"


def test_cancelling_what_is_not_there_is_an_error(machine: TestMachine) -> None:
    spec = machine.spec("wait")
    assert machine.remote("cancel", spec.run_id).returncode == 4
    assert machine.remote("cancel", "../../etc").returncode == 2


def test_a_second_run_waits_in_line_and_follows_the_first(machine: TestMachine) -> None:
    first, second, third = machine.spec("wait"), machine.spec("succeed"), machine.spec("succeed")
    one = machine.begin(first)
    eventually(machine.log_says(first, "waiting"))
    two = machine.begin(second)
    eventually(lambda: len(line.waiting(machine.home.locks)) == 1)
    three = machine.begin(third)
    eventually(
        lambda: machine.run_folder(third).status.exists() and "1 other" in machine.status(third).message
    )
    assert machine.status(second).state == "QUEUED"
    (machine.run_folder(first).root / "cancel").touch()
    assert (one.wait(20), two.wait(20), three.wait(20)) == (130, 0, 0)
    assert machine.status(second).state == machine.status(third).state == "SUCCEEDED"
    assert not line.waiting(machine.home.locks)


def test_a_run_that_waits_says_again_and_again_that_it_lives(machine: TestMachine) -> None:
    machine.tell_s = 0.05
    running, waiting = machine.spec("wait"), machine.spec("succeed", scenario="from-scratch")
    machine.begin(running)
    eventually(machine.log_says(running, "waiting"))
    machine.begin(waiting)
    file, written = machine.run_folder(waiting).status, set()

    def lives() -> bool:
        written.add(file.stat().st_mtime_ns if file.exists() else 0)
        return len(written) > 6 and machine.status(waiting).state == "QUEUED"

    eventually(lives)


def test_a_waiting_run_can_be_cancelled_and_a_killed_one_frees_its_place(machine: TestMachine) -> None:
    first, second, third = machine.spec("wait"), machine.spec("succeed"), machine.spec("succeed")
    one = machine.begin(first)
    eventually(machine.log_says(first, "waiting"))
    two = machine.begin(second)
    eventually(lambda: len(line.waiting(machine.home.locks)) == 1)
    assert machine.remote("cancel", second.run_id).returncode == 0
    assert two.wait(10) == 130
    one.kill()
    one.wait()
    assert machine.carry_out(third) == 0


def test_status_tells_all_runs_and_who_is_active(machine: TestMachine) -> None:
    done, running = machine.spec("succeed"), machine.spec("wait", scenario="from-scratch")
    machine.carry_out(done)
    supervisor = machine.begin(running)
    eventually(machine.log_says(running, "waiting"))
    file = machine.run_folder(done).status
    os.utime(file, (file.stat().st_atime, file.stat().st_mtime - 500))
    runs = json.loads(machine.remote("status").stdout)["runs"]
    assert [run["quiet_s"] > 400 for run in runs if run["status"]["run_id"] == done.run_id] == [True]
    told = {run["status"]["run_id"]: (run["active"], run["status"]["state"]) for run in runs}
    assert told == {done.run_id: (False, "SUCCEEDED"), running.run_id: (True, "RUNNING")}
    machine.remote("cancel", running.run_id)
    supervisor.wait(10)


def test_follow_sends_all_bytes_and_the_state(machine: TestMachine) -> None:
    spec = machine.spec("noisy")
    machine.carry_out(spec)
    log = machine.run_folder(spec).log.read_bytes()
    for start in (0, 1, 12_345_678, len(log), len(log) + 5):
        followed = machine.remote("follow", spec.run_id, "--stream", "log", "--from", str(start))
        unframer = frames.Unframer()
        assert b"".join(unframer.feed(followed.stdout)) == log[start:]
        assert unframer.ended == "SUCCEEDED"


def test_follow_goes_along_with_a_running_one_to_its_end(machine: TestMachine) -> None:
    spec = machine.spec("wait")
    supervisor = machine.begin(spec)
    eventually(machine.log_says(spec, "waiting"))
    reader, writer = os.pipe()
    with closing(os.fdopen(reader, "rb")) as pipe, os.fdopen(writer, "wb") as out:
        follower = threading.Thread(target=follow, args=(machine.home, spec.run_id, "log", 0, out))
        follower.start()
        unframer, data = frames.Unframer(), b""
        while b"waiting" not in data:
            data += b"".join(unframer.feed(pipe.read1()))
        (machine.run_folder(spec).root / "cancel").touch()
        while not unframer.ended:
            data += b"".join(unframer.feed(pipe.read1()))
        follower.join(10)
    assert unframer.ended == "CANCELLED"
    assert data == machine.run_folder(spec).log.read_bytes()
    supervisor.wait(10)


def test_follow_from_beyond_the_end_sends_what_comes_from_now_on(machine: TestMachine) -> None:
    """Who followed it elsewhere knows more bytes than the store had of it: those were lost with the other machine."""
    spec = machine.spec("wait")
    supervisor = machine.begin(spec)
    eventually(machine.log_says(spec, "waiting"))
    events, out = machine.run_folder(spec).events, io.BytesIO()
    growing = Growing(events, events.stat().st_size + 10_000)
    growing.send(out)
    before = events.stat().st_size
    (machine.run_folder(spec).root / "cancel").touch()
    supervisor.wait(30)
    growing.send(out)
    growing.close()
    sent = b"".join(frames.Unframer().feed(out.getvalue()))
    assert b"CANCELLED" in sent and sent.endswith(events.read_bytes()[before:])


def test_follow_of_a_run_whose_supervisor_died_ends(machine: TestMachine) -> None:
    spec = machine.spec("wait")
    supervisor = machine.begin(spec)
    eventually(machine.log_says(spec, "waiting"))
    supervisor.kill()
    supervisor.wait()
    out = io.BytesIO()
    follow(machine.home, spec.run_id, "log", 0, out)
    assert out.getvalue().endswith(b"end INTERRUPTED\n")


def test_follow_of_an_unknown_run(machine: TestMachine) -> None:
    spec = machine.spec("wait")
    assert machine.remote("follow", spec.run_id).returncode == 4


def test_usage_and_specs_that_are_none(machine: TestMachine, tmp_path: Path) -> None:
    assert machine.remote("follow").returncode == 2
    assert machine.remote(str(tmp_path / "nothing.json")).returncode == 2
    (tmp_path / "bad.json").write_text('{"schema": 99}')
    refused = machine.remote("start", str(tmp_path / "bad.json"))
    assert refused.returncode == 2
    assert b"schema" in refused.stderr


def test_the_command_line_starts_without_anything_heavy(machine: TestMachine) -> None:
    command = "import sys, remote.__main__ as m; m.main(['status']); print(*sorted(sys.modules))"
    said = subprocess.run(
        [sys.executable, "-c", command], env=machine.environment, capture_output=True, text=True, timeout=30
    )
    loaded = set(said.stdout.splitlines()[-1].split())
    assert not loaded & {
        "torch",
        "numpy",
        "PIL",
        "google",
        "google_crc32c",
        "subprocess",
        "asyncio",
        "urllib.request",
    }


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_frames_survive_any_cut(size: int) -> None:
    data = bytes(range(256)) * 3
    stream = frames.ALIVE + frames.frame(data) + frames.ALIVE + frames.frame(b"\n0\n") + frames.end("FAILED")
    unframer = frames.Unframer()
    found = b"".join(b"".join(unframer.feed(stream[at : at + size])) for at in range(0, len(stream), size))
    assert found == data + b"\n0\n"
    assert unframer.ended == "FAILED"


@pytest.mark.parametrize("stream", [b"-1\n", b"999999999\n", b"x" * 100, b"end FINE\n", b"\n", b"1e3\n"])
def test_a_stream_that_is_none_is_refused(stream: bytes) -> None:
    with pytest.raises(ContractError):
        list(frames.Unframer().feed(stream))


def test_tickets_are_served_in_order_and_those_of_the_dead_are_passed_over(tmp_path: Path) -> None:
    using = line.join(tmp_path, "")
    places = using.try_take(1, 2)
    assert places
    assert places.numbers == [0]
    first, second = line.join(tmp_path, ""), line.join(tmp_path, "")
    assert second.try_take(1, 2) is None, "the first one is before it, although an accelerator is free"
    os.close(first.descriptor)  # it died
    taken = second.try_take(1, 2)
    assert taken
    assert taken.numbers == [1]
    third = line.join(tmp_path, "")
    assert third.try_take(2, 2) is None
    places.release()
    taken.release()
    both = third.try_take(2, 2)
    assert both
    assert both.numbers == [0, 1]
    both.release()


def test_asking_whether_a_run_is_active_never_makes_it_so(tmp_path: Path) -> None:
    path = line.run_lock(tmp_path, "x")
    tmp_path.mkdir(exist_ok=True)
    stop = time.monotonic() + 0.3
    asker = threading.Thread(
        target=lambda: [line.is_held(path) for _ in iter(lambda: time.monotonic() < stop, False)]
    )
    asker.start()
    while time.monotonic() < stop:
        os.close(line.hold_run(tmp_path, "x"))
    asker.join()
