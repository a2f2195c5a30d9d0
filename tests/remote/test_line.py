"""The waiting line as people see it: place, what is waited for, order of the starts, and going on after a boot."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from remote.contract import document, layout
from remote.contract.run_spec import RunSpec, StoreRef
from remote.contract.start_request import BootRun
from remote.job import line
from remote.job.resume import resume, unfinished
from remote.job.supervisor import prepare
from tests.remote.machine import ROOT, STANDIN, TestMachine, eventually

BUNDLE = "0" * 64
TRAIN = "import sys\nfrom remote import standin\n\ndef main(spec_path, **hours):\n    sys.argv = ['', str(spec_path)]\n    return standin.main()\n"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[TestMachine]:
    machine = TestMachine(tmp_path)
    yield machine
    machine.end()


def put_bundle(machine: TestMachine) -> None:
    """The code that the specs name, with the stand-in as training."""
    bundle = machine.home.bundle(BUNDLE)
    shutil.copytree(ROOT / "remote", bundle / "remote", ignore=shutil.ignore_patterns("__pycache__"))
    (bundle / "remote" / "train.py").write_text(TRAIN)
    shutil.copy(STANDIN, bundle / "remote" / "standin.py")
    (bundle / "READY").touch()


def told(machine: TestMachine) -> dict[str, dict[str, object]]:
    runs = json.loads(machine.remote("status").stdout)["runs"]
    return {run["status"]["run_id"]: run["status"] for run in runs}


def is_at_place(machine: TestMachine, spec: RunSpec, place: int) -> bool:
    return told(machine).get(spec.run_id, {}).get("place") == place


def test_status_tells_the_place_in_the_line_and_what_is_waited_for(machine: TestMachine) -> None:
    first, second, third = (machine.spec("wait") for _ in range(3))
    for spec in (first, second, third):
        assert machine.start(spec) == 0
    eventually(machine.log_says(first, "waiting"))
    for spec, place, before in ((second, 1, first), (third, 2, second)):
        eventually(partial(is_at_place, machine, spec, place))
        status = told(machine)[spec.run_id]
        assert (status["state"], status["waits_for"]) == ("QUEUED", before.run_id)
    assert told(machine)[first.run_id]["place"] == 0
    assert machine.remote("cancel", second.run_id).stdout == b'{"state": "CANCELLED"}\n'
    eventually(lambda: told(machine)[third.run_id]["place"] == 1)
    assert told(machine)[third.run_id]["waits_for"] == first.run_id
    assert machine.remote("cancel", first.run_id).stdout == b'{"state": "CANCELLED"}\n'
    eventually(machine.log_says(third, "waiting"))
    assert told(machine)[third.run_id]["place"] == 0 and told(machine)[third.run_id]["waits_for"] == ""


def test_runs_wait_in_the_order_of_their_starts(machine: TestMachine) -> None:
    """Whichever supervisor is the faster one: the place is taken by who starts it."""
    held = line.join(machine.home.locks, "").try_take(1, 1)
    assert held is not None
    specs = [machine.spec("succeed") for _ in range(4)]
    for spec in specs:
        assert machine.start(spec) == 0
    tickets = line.waiting(machine.home.locks)
    assert [path.read_text() for path in tickets] == [spec.run_id for spec in specs]
    held.release()
    for spec in specs:
        eventually(partial(machine.is_at_rest, spec))
    started = [machine.run_folder(spec).log.stat().st_mtime_ns for spec in specs]
    assert started == sorted(started)


def test_a_ticket_left_twice_takes_nobody_elses(tmp_path: Path) -> None:
    first = line.join(tmp_path, "")
    first.leave()
    second = line.join(tmp_path, "")
    assert second.path == first.path
    first.leave()
    assert line.is_held(second.path)


def test_after_a_boot_every_run_that_is_not_over_goes_on_by_its_own_bundle(machine: TestMachine) -> None:
    put_bundle(machine)
    counting = machine.spec("count", parameters={"behaviour": "count", "to": 3})
    waiting, over = machine.spec("succeed"), machine.spec("succeed")
    machine.carry_out(over)
    for spec in (counting, waiting):
        document.write(prepare(machine.home, spec).spec, spec)
    foreign = machine.spec("succeed", bundle="f" * 64)
    prepare(machine.home, foreign)
    assert [folder.root.name for folder in unfinished(machine.home)] == sorted(
        [counting.run_id, waiting.run_id, foreign.run_id], key=lambda name: name.split("-")[-3:]
    )
    done = machine.remote("resume", "--seconds-left", "900")
    assert done.returncode == 1  # one has no bundle here
    assert f"{foreign.run_id} can't go on" in done.stdout.decode()
    for spec in (counting, waiting):
        assert f"{spec.run_id} goes on" in done.stdout.decode()
        eventually(partial(machine.is_at_rest, spec))
        assert machine.stored_status(spec).state == "SUCCEEDED"
    shutil.rmtree(machine.run_folder(foreign).root)
    assert machine.remote("resume").stdout == b""  # nothing is left to do


def in_the_store(machine: TestMachine, spec: RunSpec) -> BootRun:
    """A run that this machine knows from its metadata only."""
    path = machine.store / layout.run_key(spec.run_id, "spec.json")
    path.parent.mkdir(parents=True)
    document.write(path, spec)
    return BootRun(spec.run_id, BUNDLE, StoreRef(str(machine.store)), 4, "tlvm-new")


def test_the_run_of_the_metadata_comes_out_of_the_store(
    machine: TestMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_bundle(machine)
    spec = machine.spec("count", parameters={"behaviour": "count", "to": 3})
    boot = in_the_store(machine, spec)
    for name in ("HOME", "PYTHONPATH"):
        monkeypatch.setenv(name, machine.environment[name])
    assert resume(machine.home, boot=boot, seconds_left=900) == 0
    eventually(lambda: machine.is_at_rest(spec))
    status = machine.stored_status(spec)
    assert (status.state, status.attempt, status.attempts[0].machine) == ("SUCCEEDED", 4, "tlvm-new")
    before = machine.run_folder(spec).log.stat()
    assert resume(machine.home, boot=boot) == 0  # at the next boot it is over
    assert machine.run_folder(spec).log.stat() == before


@pytest.mark.parametrize("changes", [{"bundle": "f" * 64}, {"store": StoreRef("gs://another")}])
def test_a_spec_of_the_store_that_names_other_code_is_not_run(
    machine: TestMachine, changes: dict[str, Any]
) -> None:
    spec = machine.spec("count", **changes)
    boot = in_the_store(machine, spec)
    with pytest.raises(document.ContractError, match="is not the one that the metadata names"):
        resume(machine.home, boot=boot)
    assert not machine.run_folder(spec).root.exists()
