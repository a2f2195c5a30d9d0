"""One run on one machine: real supervisors, real subprocesses, a folder as the store."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from remote.contract import layout
from remote.contract.run_spec import DatasetRef, WeightsRef
from remote.contract.run_status import PUBLISHING
from remote.job.resume import unfinished
from tests.remote.machine import TestMachine, events_of, eventually


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[TestMachine]:
    machine = TestMachine(tmp_path)
    yield machine
    machine.end()


def test_a_run_fetches_trains_and_publishes(machine: TestMachine) -> None:
    spec = machine.spec("succeed")
    assert machine.carry_out(spec) == 0
    status = machine.status(spec)
    assert (status.state, status.published, status.step, status.exit_code) == ("SUCCEEDED", True, 8, 0)
    assert machine.stored_status(spec) == status
    packs = list((machine.home.root / "packs").iterdir())
    assert [path.read_bytes() for path in packs] == [machine.pack]
    manifest = machine.manifest(spec)
    assert manifest.state == "SUCCEEDED"
    assert [file.path for file in manifest.files] == [
        "events/0000000000000000",
        "log/0000000000000000",
        "metrics.json",
        "model/model.json",
        "model/model.safetensors",
    ]
    for file in manifest.files:
        data = machine.stored(spec, file.path)
        assert (file.size, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_the_events_tell_the_states_in_order_and_are_whole_in_the_store(machine: TestMachine) -> None:
    spec = machine.spec("succeed")
    machine.carry_out(spec)
    data = machine.run_folder(spec).events.read_bytes()
    assert machine.stored_stream(spec, "events") == data
    states = [event["state"] for event in events_of(data) if event["type"] == "state"]
    assert states == ["QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]
    published = [event for event in events_of(data) if event["type"] == "published"]
    assert [event["files"] for event in published] == [3]


@pytest.mark.parametrize(
    ("behaviour", "message", "exit_code"),
    [
        ("unusable", "Only one class: bees", 3),
        ("crash", "The training ended with exit code 1", 1),
        ("killed", "killed (SIGKILL)", -9),
        ("segfault", "crashed (SIGSEGV)", -11),
        ("nothing", "without a result", 0),
    ],
)
def test_a_training_that_fails_says_why(
    machine: TestMachine, behaviour: str, message: str, exit_code: int
) -> None:
    spec = machine.spec(behaviour)
    assert machine.carry_out(spec) == 9
    status = machine.stored_status(spec)
    assert status.state == "FAILED"
    assert message in status.message
    assert status.exit_code == exit_code
    assert "training begins" in status.log_tail
    assert status.published
    assert machine.manifest(spec).state == "FAILED"
    assert not [file for file in machine.manifest(spec).files if file.path.startswith("model")]


def test_a_training_that_is_killed_often_but_comes_further_each_time_ends_well(machine: TestMachine) -> None:
    spec = machine.spec("killed after each epoch")
    assert machine.carry_out(spec) == 0
    told = machine.run_folder(spec).events.read_text()
    assert told.count("it goes on from what it has kept") == 4
    assert machine.stored_status(spec).state == "SUCCEEDED"


def test_the_log_of_a_crash_ends_with_its_reason(machine: TestMachine) -> None:
    spec = machine.spec("crash")
    machine.carry_out(spec)
    assert machine.status(spec).log_tail[-1] == "RuntimeError: out of luck"


def test_a_training_that_hangs_is_stopped_and_says_where(machine: TestMachine) -> None:
    machine.hang_s = 1
    spec = machine.spec("hang")
    assert machine.carry_out(spec) == 9
    assert "no sign of life for 1 s" in machine.status(spec).message
    assert any("standin_training.py" in text for text in machine.status(spec).log_tail)


def test_a_training_knows_how_long_it_has(machine: TestMachine) -> None:
    spec = machine.spec("hours", max_hours=3.0)
    assert machine.carry_out(spec) == 0
    assert "it has 3.0 hours" in machine.run_folder(spec).log.read_text()


def test_max_hours_ends_a_run(machine: TestMachine) -> None:
    machine.before = ("env", "--block-signal=TERM")  # until it listens, however long that takes
    spec = machine.spec("wait", max_hours=1.0 / 3600)
    assert machine.carry_out(spec) == 9
    assert machine.status(spec).message.startswith("Stopped after its max_hours of 0.000")
    assert f"tlvm run --spec {spec.run_id[-4:]} --max-hours H" in machine.status(spec).message
    assert "in epoch 1, after 10 of 100 images" in machine.status(spec).message
    assert (machine.run_folder(spec).checkpoints / "mark").exists()


def changed(path: Path, since: int) -> bool:
    return path.stat().st_mtime_ns != since


def test_a_supervisor_shows_that_it_lives_while_the_result_is_on_its_way(machine: TestMachine) -> None:
    """A status that nothing changes is that of a frozen one."""
    machine.tell_s, machine.publish_s = 0.02, 120
    spec = machine.spec("succeed")
    in_the_way = machine.store / layout.run_key(spec.run_id, "model")
    in_the_way.parent.mkdir(parents=True)
    in_the_way.touch()
    supervisor = machine.begin(spec)
    status = machine.run_folder(spec).status
    eventually(lambda: status.exists() and machine.status(spec).message == PUBLISHING)
    for _ in range(4):
        before = status.stat().st_mtime_ns
        eventually(partial(changed, status, before))
    in_the_way.unlink()
    assert supervisor.wait(60) == 0
    assert machine.stored_status(spec).published
    told = machine.run_folder(spec).events.read_text()
    assert told.count("The store can't be written, the run goes on and tries again") == 1


def test_a_deaf_training_is_killed_after_the_grace(machine: TestMachine) -> None:
    machine.grace_s = 0.2
    spec = machine.spec("deaf")
    supervisor = machine.begin(spec)
    eventually(machine.log_says(spec, "deaf"))
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(20) == 12
    assert machine.status(spec).exit_code == -9


def test_sigterm_becomes_a_checkpoint_and_the_run_goes_on_later(machine: TestMachine) -> None:
    spec = machine.spec("wait")
    supervisor = machine.begin(spec)
    eventually(machine.log_says(spec, "waiting"))
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(20) == 12
    assert machine.stored_status(spec).state == "INTERRUPTED"
    assert (machine.run_folder(spec).checkpoints / "mark").exists()
    assert not (machine.store / layout.run_key(spec.run_id, "MANIFEST.json")).exists()
    again = machine.begin(spec)
    eventually(lambda: machine.status(spec).attempt == 2 and machine.status(spec).state == "RUNNING")
    again.send_signal(signal.SIGTERM)
    assert again.wait(20) == 12


def test_a_training_whose_supervisor_is_killed_checkpoints_and_frees_the_run(machine: TestMachine) -> None:
    spec = machine.spec("wait")
    supervisor = machine.begin(spec)
    eventually(machine.log_says(spec, "waiting"))
    supervisor.kill()
    supervisor.wait()
    eventually((machine.run_folder(spec).checkpoints / "mark").exists)
    assert machine.carry_out(machine.spec("succeed")) == 0


def test_a_result_that_is_complete_is_published_without_training_again(machine: TestMachine) -> None:
    spec = machine.spec("succeed")
    machine.publish_s = machine.grace_s = 0.5
    runs = machine.store / "runs"
    runs.write_text("in the way: nothing can be written below")
    assert machine.carry_out(spec) == 0
    assert not machine.status(spec).published
    assert "the store refused" in machine.status(spec).message
    runs.unlink()
    log = machine.run_folder(spec).log.read_bytes()
    assert machine.carry_out(spec) == 0
    assert machine.stored_status(spec).published
    assert machine.run_folder(spec).log.read_bytes() == log


def test_a_run_that_failed_is_published_later_and_never_trained_again(machine: TestMachine) -> None:
    """Nor does it keep its secrets while the store refuses."""
    spec = machine.spec("crash")
    machine.publish_s = machine.grace_s = 0.5
    runs = machine.store / "runs"
    runs.write_text("in the way: nothing can be written below")
    folder = machine.run_folder(spec)
    assert machine.start(spec, environment={"TOKEN": "secret"}) == 0
    eventually(lambda: machine.is_at_rest(spec))
    assert (machine.status(spec).state, machine.status(spec).published) == ("FAILED", False)
    assert not folder.environment.exists()
    log = folder.log.read_bytes()
    runs.unlink()
    assert [found.root for found in unfinished(machine.home)] == [folder.root]  # what a boot starts again
    assert machine.carry_out(spec) == 9
    assert folder.log.read_bytes() == log
    status = machine.stored_status(spec)
    assert (status.state, status.published, status.exit_code) == ("FAILED", True, 1)
    assert (
        status.message.startswith("The training ended with exit code 1") and "refused" not in status.message
    )
    assert status.log_tail[-1] == "RuntimeError: out of luck"
    assert machine.manifest(spec).state == "FAILED"
    assert unfinished(machine.home) == []


@pytest.mark.parametrize(("behaviour", "code"), [("crash", 9), ("succeed", 0)])
def test_a_supervisor_that_is_killed_while_it_publishes_trains_nothing_again(
    machine: TestMachine, behaviour: str, code: int
) -> None:
    spec = machine.spec(behaviour)
    machine.publish_s = 60
    runs = machine.store / "runs"
    runs.write_text("in the way")
    assert machine.start(spec, environment={"TOKEN": "secret"}) == 0
    folder = machine.run_folder(spec)
    eventually(lambda: folder.supervisor.exists() and '"outcome": {' in folder.supervisor.read_text())
    assert not folder.environment.exists()
    os.kill(json.loads(folder.supervisor.read_text())["pid"], signal.SIGKILL)
    eventually(lambda: machine.is_at_rest(spec))
    runs.unlink()
    assert machine.carry_out(spec) == code
    assert machine.stored_stream(spec, "log").decode().count("training begins") == 1


def test_a_supervisor_that_broke_keeps_no_secrets_and_trains_nothing_again(machine: TestMachine) -> None:
    spec = machine.spec("succeed")
    folder = machine.run_folder(spec)
    folder.log.mkdir(parents=True)  # where the log should be
    machine.grace_s = 0.5
    assert machine.start(spec, environment={"TOKEN": "secret"}) == 0
    eventually(lambda: machine.is_at_rest(spec))
    assert machine.status(spec).message.startswith("The supervisor broke: IsADirectoryError")
    assert not folder.environment.exists()
    folder.log.rmdir()
    assert machine.carry_out(spec) == 9
    assert not folder.log.exists()
    assert machine.stored_status(spec).published
    assert machine.stored_status(spec).message.startswith("The supervisor broke")


def test_a_start_of_a_run_that_is_over_elsewhere_leaves_no_secrets(machine: TestMachine) -> None:
    spec = machine.spec("succeed")
    assert machine.carry_out(spec) == 0
    other = TestMachine(machine.folder, "other")
    assert other.start(spec, attempt=2, environment={"TOKEN": "secret"}) == 0
    eventually(lambda: other.is_at_rest(spec))
    assert other.status(spec).published and not other.run_folder(spec).environment.exists()
    other.end()


def test_a_run_that_is_known_to_have_failed_elsewhere_is_published_and_not_trained(
    machine: TestMachine,
) -> None:
    """Its supervisor broke, and its machine is gone: the store has its status, and no manifest."""
    spec = machine.spec("succeed")
    machine.run_folder(spec).log.mkdir(parents=True)
    machine.grace_s = 0.5
    machine.carry_out(spec)
    other = TestMachine(machine.folder, "other")
    assert other.start(spec, attempt=2) == 0
    eventually(lambda: other.is_at_rest(spec))
    assert other.stored_status(spec).published and other.manifest(spec).state == "FAILED"
    assert (
        not other.run_folder(spec).log.exists() or b"training" not in other.run_folder(spec).log.read_bytes()
    )
    other.end()


def test_a_store_that_refuses_is_said_and_training_goes_on(machine: TestMachine) -> None:
    machine.publish_s = machine.grace_s = 0.5
    (machine.store / "runs").write_text("in the way")
    spec = machine.spec("succeed")
    machine.carry_out(spec)
    warnings = [
        event
        for event in events_of(machine.run_folder(spec).events.read_bytes())
        if event["type"] == "log" and event["level"] == "warning"
    ]
    assert len(warnings) == 2
    assert "goes on" in warnings[0]["text"]
    assert "on this machine only" in warnings[1]["text"]


def test_a_missing_dataset_version_fails_with_its_key(machine: TestMachine) -> None:
    spec = machine.spec("succeed", dataset=DatasetRef("bees", "2" * 64))
    assert machine.carry_out(spec) == 9
    assert "can't be fetched" in machine.status(spec).message
    assert "2" * 64 in machine.status(spec).message


def test_a_damaged_pack_is_refused(machine: TestMachine) -> None:
    pack = next((machine.store / "packs").iterdir())
    pack.write_bytes(b"something else")
    spec = machine.spec("succeed")
    assert machine.carry_out(spec) == 9
    assert "it was damaged" in machine.status(spec).message
    assert not list(machine.home.root.glob("packs/*"))


def test_weights_are_fetched_and_verified(machine: TestMachine) -> None:
    data = b"weights"
    digest = hashlib.sha256(data).hexdigest()
    (machine.store / "weights").mkdir()
    (machine.store / "weights" / "resnet18.pth").write_bytes(data)
    good = machine.spec("succeed", weights=WeightsRef("a file", digest, "weights/resnet18.pth"))
    assert machine.carry_out(good) == 0
    assert machine.home.weights(digest).read_bytes() == data
    bad = machine.spec("succeed", weights=WeightsRef("a file", "3" * 64, "weights/resnet18.pth"))
    assert machine.carry_out(bad) == 9


def test_more_accelerators_than_there_are_fail(machine: TestMachine) -> None:
    spec = machine.spec("succeed", accelerators=16)
    assert machine.carry_out(spec) == 9
    assert "asks for 16 accelerators" in machine.status(spec).message


def test_a_long_log_travels_in_segments(machine: TestMachine) -> None:
    spec = machine.spec("noisy")
    assert machine.carry_out(spec) == 0
    log = machine.run_folder(spec).log.read_bytes()
    assert len(log) > 3 * layout.SEGMENT_BYTES
    assert machine.stored_stream(spec, "log") == log
    segments = [file for file in machine.manifest(spec).files if file.path.startswith("log/")]
    assert max(file.size for file in segments) == layout.SEGMENT_BYTES
    assert [int(file.path[4:]) for file in segments] == [
        number * layout.SEGMENT_BYTES for number in range(len(segments))
    ]


def test_no_process_and_no_lock_is_left(machine: TestMachine) -> None:
    spec = machine.spec("killed")
    machine.carry_out(spec)
    marker = str(machine.home.root.parent)
    processes = [path for path in Path("/proc").glob("[0-9]*") if marker in _environment(path)]
    assert not processes
    assert machine.carry_out(machine.spec("succeed")) == 0


def _environment(process: Path) -> str:
    try:
        return (process / "environ").read_bytes().decode(errors="replace")
    except OSError:
        return ""
