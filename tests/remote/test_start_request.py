"""What a start may say beside the spec: attempt, machine, hard end and variables; and that secrets stay where they are."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from remote.contract import document
from remote.contract.document import ContractError
from remote.contract.start_request import StartRequest, read_start
from remote.job.asked import Asked, environment, keep_hard_end, keep_request, read_asked
from tests.remote.machine import TestMachine, eventually

SECRET = "hunter2-of-the-run"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[TestMachine]:
    machine = TestMachine(tmp_path)
    yield machine
    machine.end()


def test_a_bare_spec_is_a_start_as_older_laptops_send_it(machine: TestMachine) -> None:
    spec = machine.spec("wait")
    assert read_start(document.encode(spec).encode()) == StartRequest(spec)
    request = StartRequest(spec, 3, "tlvm-second", 1234.5, {"A": "b"})
    assert read_start(document.encode(request).encode()) == request


@pytest.mark.parametrize("name", ["", "1A", "A B", "A=B", "TLVM_SUPERVISOR", "A\0"])
def test_what_is_no_variable_is_refused_by_name(machine: TestMachine, name: str) -> None:
    with pytest.raises(ContractError, match="can't be a variable of a run"):
        StartRequest(machine.spec("wait"), environment={name: "x"})


def test_no_message_of_ours_shows_a_value(machine: TestMachine) -> None:
    request = StartRequest(machine.spec("wait"), environment={"TOKEN": SECRET})
    assert SECRET not in repr(request)
    with pytest.raises(ContractError) as caught:
        StartRequest(machine.spec("wait"), environment={"TLVM_X": SECRET})
    assert SECRET not in str(caught.value)


def test_a_secret_reaches_the_training_and_nothing_else(machine: TestMachine) -> None:
    spec = machine.spec("environment", parameters={"behaviour": "environment"})
    waiting = machine.spec("wait")
    assert machine.start(waiting, environment={"SECRET_OF_THE_RUN": SECRET}) == 0
    eventually(machine.log_says(waiting, "waiting"))
    file = machine.run_folder(waiting).environment
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    told = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if _is_ours(path)]
    assert not any(SECRET.encode() in words for words in told)
    (machine.run_folder(waiting).root / "cancel").touch()
    eventually(lambda: machine.is_at_rest(waiting))
    assert not file.exists()  # the run is over
    assert machine.start(spec, environment={"SECRET_OF_THE_RUN": SECRET}) == 0
    eventually(lambda: machine.is_at_rest(spec))
    assert (
        f"it has {SECRET}" in machine.run_folder(spec).log.read_text()
    )  # what a training prints is its own affair
    for path in [*machine.run_folder(waiting).root.rglob("*"), *machine.store.rglob("*")]:
        if path.is_file() and spec.run_id not in str(path):
            assert SECRET.encode() not in path.read_bytes(), path


def test_the_variables_are_there_again_when_the_run_goes_on(machine: TestMachine) -> None:
    folder = machine.run_folder(machine.spec("wait"))
    folder.root.mkdir(parents=True)
    keep_request(folder, StartRequest(machine.spec("wait"), environment={"A": "1"}))
    keep_request(folder, StartRequest(machine.spec("wait")))  # a restart names none
    assert environment(folder) == {"A": "1"}
    folder.environment.write_text("{")
    with pytest.raises(ContractError, match="is damaged"):
        environment(folder)


def test_what_a_restart_does_not_say_stays_and_another_boot_forgets_the_hard_end(
    machine: TestMachine,
) -> None:
    spec = machine.spec("wait")
    folder = machine.run_folder(spec)
    folder.root.mkdir(parents=True)
    assert read_asked(folder) == Asked()
    keep_request(folder, StartRequest(spec, 2, "tlvm-second", 100.0))
    keep_request(folder, StartRequest(spec))
    asked = read_asked(folder)
    left_s = asked.seconds_left()
    assert (asked.attempt, asked.machine) == (2, "tlvm-second") and left_s is not None and 99 < left_s <= 100
    path = folder.root / "asked.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"boot": "another"}))
    assert read_asked(folder).seconds_left() is None
    keep_hard_end(folder, 50)
    left_s = read_asked(folder).seconds_left()
    assert left_s is not None and 49 < left_s <= 50
    assert read_asked(folder).attempt == 2


def _is_ours(path: Path) -> bool:
    try:
        return path.stat().st_uid == os.getuid()
    except OSError:
        return False
