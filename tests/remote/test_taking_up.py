"""A run that goes on on a machine that never had it: streams, hours and checkpoints come from the store."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from remote.contract import document, layout
from remote.contract.layout import MachineHome
from remote.contract.run_spec import RunSpec, StoreRef
from remote.contract.run_status import AttemptTimes, RunStatus
from remote.contract.stored_checkpoints import LatestCheckpoints
from remote.job.restore import restore
from remote.store import open_store
from tests.remote.machine import TestMachine, events_of, eventually

STATUS = "status.json"


@dataclass
class Two:
    """Two machines of one store."""

    first: TestMachine
    second: TestMachine

    def interrupted(self, **parameters: object) -> RunSpec:
        """A run that has counted to 5 of 8 on the first machine, which is gone now."""
        spec = self.first.spec("count", parameters={"behaviour": "count", "to": 8, "hold": 5, **parameters})
        supervisor = self.first.begin(spec)
        eventually(self.first.log_says(spec, "counted 5"))
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(20) == 12
        shutil.rmtree(self.first.home.root)
        return spec

    def gone_on(self, spec: RunSpec, attempt: int = 2) -> RunStatus:
        assert self.second.start(spec, attempt=attempt, machine="tlvm-second") == 0
        eventually(lambda: self.second.is_at_rest(spec))
        return self.second.stored_status(spec)

    def stored(self, spec: RunSpec, file: str) -> Path:
        return self.first.store / layout.checkpoint_key(spec.run_id, file)

    def latest(self, spec: RunSpec) -> LatestCheckpoints:
        return document.decode(
            LatestCheckpoints, self.stored(spec, "LATEST.json").read_bytes(), what="latest"
        )

    def said(self, spec: RunSpec) -> list[str]:
        return [
            event["text"]
            for event in events_of(self.second.stored_stream(spec, "events"))
            if event["type"] == "log"
        ]


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    two = Two(TestMachine(tmp_path), TestMachine(tmp_path, "second"))
    yield two
    two.first.end()
    two.second.end()


def test_it_goes_on_where_it_was_and_no_line_is_missing_or_twice(two: Two) -> None:
    spec = two.interrupted()
    log = two.first.stored_stream(spec, "log")
    events = two.first.stored_stream(spec, "events")
    status = two.gone_on(spec)
    assert (status.state, status.published, status.attempt) == ("SUCCEEDED", True, 2)
    counted = [row for row in two.second.stored_stream(spec, "log").decode().splitlines() if "counted" in row]
    assert counted == [f"counted {number}" for number in range(1, 9)]
    assert two.second.stored_stream(spec, "log").startswith(log)
    assert two.second.stored_stream(spec, "events").startswith(events)
    first, second = status.attempts
    assert (first.number, first.machine, first.how) == (1, "tlvm-test", "INTERRUPTED")
    assert (second.number, second.machine, second.how) == (2, "tlvm-second", "SUCCEEDED")
    assert (second.events_from, second.log_from) == (len(events), len(log))
    assert any(
        "attempt-1/checkpoint-00000005.pt of the store is where it goes on from" in text
        for text in two.said(spec)
    )
    for file in two.second.manifest(spec).files:
        assert (two.second.store / layout.run_key(spec.run_id, file.path)).stat().st_size == file.size


def test_the_checkpoints_are_gone_once_the_result_is_there(two: Two) -> None:
    spec = two.interrupted()
    assert [file.name for file in two.latest(spec).files] == ["attempt-1/checkpoint-00000005.pt"]
    two.gone_on(spec)
    assert not [path for path in two.stored(spec, "LATEST.json").parent.rglob("*") if path.is_file()]


def test_a_damaged_checkpoint_is_refused_by_name_and_the_one_before_it_taken(two: Two) -> None:
    spec = two.interrupted()
    good = two.latest(spec).files[0]
    before = json.loads(document.encode(good)) | {"name": "attempt-1/checkpoint-00000004.pt"}
    two.stored(spec, "attempt-1/checkpoint-00000004.pt").write_bytes(two.stored(spec, good.name).read_bytes())
    text = json.loads(two.stored(spec, "LATEST.json").read_bytes())
    text["files"].append(before)
    two.stored(spec, "LATEST.json").write_text(json.dumps(text))
    two.stored(spec, good.name).write_bytes(b"x" * good.size)
    assert two.gone_on(spec).state == "SUCCEEDED"
    assert any(f"{good.name} of the store is refused: " in text for text in two.said(spec))
    lines = two.second.stored_stream(spec, "log").decode().split("training begins")[-1]
    assert "counted 5" in lines and "counted 4\n" not in lines


@pytest.mark.parametrize("damage", ["gone", "no list", "broken list"])
def test_without_a_checkpoint_it_begins_anew_and_says_so(two: Two, damage: str) -> None:
    spec = two.interrupted()
    if damage == "gone":
        two.stored(spec, two.latest(spec).files[0].name).unlink()
    elif damage == "no list":
        two.stored(spec, "LATEST.json").unlink()
    else:
        two.stored(spec, "LATEST.json").write_text("{")
    assert two.gone_on(spec).state == "SUCCEEDED"
    assert any("begins anew" in text for text in two.said(spec))
    assert two.second.stored_stream(spec, "log").decode().count("counted 1\n") == 2


def test_max_hours_counts_over_all_machines(two: Two) -> None:
    spec = two.first.spec("wait", max_hours=3.0 / 3600)
    supervisor = two.first.begin(spec)
    eventually(two.first.log_says(spec, "waiting"))
    supervisor.send_signal(signal.SIGTERM)
    supervisor.wait(20)
    used = two.first.stored_status(spec).attempts[0].used_s
    status = two.gone_on(spec)
    assert status.message.startswith("Stopped after its max_hours")
    assert used > 0 and sum(times.used_s for times in status.attempts) == pytest.approx(3, abs=1)


def test_a_run_that_is_over_is_not_begun_again(two: Two) -> None:
    spec = two.first.spec("succeed")
    two.first.carry_out(spec)
    before = two.first.stored(spec, STATUS)
    assert two.second.start(spec, attempt=2) == 0
    eventually(lambda: two.second.is_at_rest(spec))
    assert two.second.status(spec).state == "SUCCEEDED" and two.first.stored(spec, STATUS) == before
    assert two.second.start(spec, attempt=3) == 1  # it has ended already


def test_a_machine_that_comes_back_writes_nothing_when_another_goes_on(two: Two) -> None:
    """It was given up: frozen, or cut off. Its run is the other one's now."""
    spec = two.first.spec("wait")
    supervisor = two.first.begin(spec)
    eventually(two.first.log_says(spec, "waiting"))
    eventually((two.first.store / layout.run_key(spec.run_id, STATUS)).exists)
    supervisor.send_signal(signal.SIGSTOP)
    assert two.second.start(spec, attempt=2, machine="tlvm-second") == 0
    eventually(lambda: two.second.stored_status(spec).attempt == 2)
    eventually(two.second.log_says(spec, "waiting"))
    supervisor.send_signal(signal.SIGCONT)
    assert supervisor.wait(30) == 130
    assert "attempt 2 on tlvm-second goes on with this run" in two.first.status(spec).message
    assert two.second.stored_status(spec).attempt == 2
    assert two.second.remote("cancel", spec.run_id).stdout == b'{"state": "CANCELLED"}\n'
    assert two.second.stored_stream(spec, "log") == two.second.run_folder(spec).log.read_bytes()
    assert two.second.stored_stream(spec, "events") == two.second.run_folder(spec).events.read_bytes()


def test_a_store_that_does_not_say_what_it_has_does_not_lose_a_later_attempt(two: Two) -> None:
    spec = two.interrupted()
    (two.first.store / layout.run_key(spec.run_id, STATUS)).write_text("{")
    two.second.publish_s = 0.5
    assert two.second.start(spec, attempt=2) == 0
    eventually(lambda: two.second.is_at_rest(spec))
    assert not two.second.run_folder(spec).status.exists()
    assert (
        "was not taken up from the store" in (two.second.run_folder(spec).root / "supervisor.log").read_text()
    )
    assert (two.first.store / layout.run_key(spec.run_id, STATUS)).read_text() == "{"


def test_restoring_that_is_cut_off_begins_again(two: Two) -> None:
    """What a supervisor has restored counts only when all of it is here."""
    spec = two.interrupted()
    log = two.first.stored_stream(spec, "log")
    folder = two.second.run_folder(spec)
    folder.root.mkdir(parents=True)
    folder.log.write_bytes(log[:10])
    folder.events.write_bytes(b"{")
    assert two.gone_on(spec).state == "SUCCEEDED"
    assert two.second.stored_stream(spec, "log").startswith(log)


@pytest.mark.parametrize(("used_s", "said"), [(61.0, "1 minute"), (130.0, "2 minutes")])
def test_the_time_that_was_used_is_said(tmp_path: Path, used_s: float, said: str) -> None:
    spec = TestMachine(tmp_path).spec("succeed")
    times = AttemptTimes(1, spec.machine, "2026-08-07T14:25:30+00:00", used_s=used_s)
    status = RunStatus(spec.run_id, "INTERRUPTED", times.began, attempts=[times])
    stored = tmp_path / "store" / layout.run_key(spec.run_id, STATUS)
    stored.parent.mkdir(parents=True)
    document.write(stored, status)
    folder = MachineHome(tmp_path / "home").run(spec.run_id)
    folder.root.mkdir(parents=True)
    told = restore(open_store(StoreRef(str(tmp_path / "store"))), spec.run_id, folder)
    assert told and told[0] == f"Taken up from the store after attempt 1 ({said} used so far)"
