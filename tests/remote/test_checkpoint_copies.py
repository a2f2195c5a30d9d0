"""Checkpoints on their way to the store: the newest wins, two are kept, and a store that refuses is said once."""

from __future__ import annotations

import itertools
import threading
import time
from pathlib import Path

import pytest

from remote.contract import document, layout
from remote.contract.layout import MachineHome, RunFolder
from remote.contract.run_status import AttemptTimes, RunStatus
from remote.contract.store import FREE, Begun, Blob, Way
from remote.contract.stored_checkpoints import LatestCheckpoints
from remote.job.checkpoint_copies import CheckpointCopies
from remote.job.claim import Claim, Superseded
from remote.job.pace import Pace, repeat
from remote.job.publish import Publisher
from remote.job.streams import Streams
from remote.storage.directory import DirectoryStore
from remote.store import StoreError, StoreUnready, said
from tests.remote.machine import eventually

RUN = "fixed-extractor-20260807-142530-k3qz"


class Watched(DirectoryStore):
    """A folder that remembers what it was given; `gate` holds uploads of checkpoints up, `error` refuses them."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, said)
        self.given: list[str] = []
        self.error: StoreError | None = None
        self.gate = threading.Event()
        self.gate.set()

    def upload(
        self,
        path: Path,
        key: str,
        *,
        if_generation: int | None = None,
        way: Way = FREE,
        begun: Begun | None = None,
    ) -> Blob:
        if key.endswith(".pt"):
            self.given.append(key.removeprefix(layout.checkpoints_prefix(RUN)))
            self.gate.wait(20)
            if self.error:
                raise self.error
        return super().upload(path, key, if_generation=if_generation, way=way)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = MachineHome(tmp_path / "home").run(RUN)
    folder.checkpoints.mkdir(parents=True)
    folder.events.write_text("")
    put_status(folder, 1)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Watched:
    (tmp_path / "store").mkdir()
    return Watched(tmp_path / "store")


def put_status(folder: RunFolder, attempt: int) -> None:
    times = AttemptTimes(attempt, f"machine-{attempt}", "2026-08-07T14:25:30+00:00")
    document.write(folder.status, RunStatus(RUN, "RUNNING", updated="", attempt=attempt, attempts=[times]))


def put(folder: RunFolder, number: int, text: str | None = None) -> None:
    """As training does: beside, renamed, and the last two stay."""
    beside = folder.checkpoints / ".checkpoint"
    beside.write_text(text or f"checkpoint {number}")
    beside.rename(folder.checkpoints / f"checkpoint-{number:08d}.pt")
    for old in sorted(folder.checkpoints.glob("checkpoint-*.pt"))[:-2]:
        old.unlink()


def copies(folder: RunFolder, store: Watched, attempt: int = 1) -> CheckpointCopies:
    claim = Claim(lambda: store, RUN, folder, attempt=attempt)
    return CheckpointCopies(
        lambda: store,
        claim,
        RUN,
        folder,
        attempt=attempt,
        position=lambda: (7, 3),
        publish_streams=lambda: None,
    )


def listed(store: Watched) -> list[str]:
    path = Path(store.url) / layout.latest_checkpoints_key(RUN)
    found = document.decode(LatestCheckpoints, path.read_bytes(), what="latest")
    for file in found.files:
        blob = store.get(layout.checkpoint_key(RUN, file.name))
        assert blob is not None and (blob.size, blob.crc32c) == (file.size, file.crc32c)
        assert (file.step, file.epoch) == (7, 3)
    return [file.name for file in found.files]


def names(*numbers: int, attempt: int = 1) -> list[str]:
    return [f"attempt-{attempt}/checkpoint-{number:08d}.pt" for number in numbers]


def test_the_newest_two_are_in_the_store_and_nothing_else(folder: RunFolder, store: Watched) -> None:
    copying = copies(folder, store)
    assert copying.copy_newest() is False
    for number in range(1, 5):
        put(folder, number)
        assert copying.copy_newest() is True
        assert copying.copy_newest() is False
    assert listed(store) == names(4, 3)
    there = [blob.key for blob in store.blobs(layout.checkpoints_prefix(RUN))]
    assert sorted(there) == sorted(
        [layout.latest_checkpoints_key(RUN), *(layout.checkpoint_key(RUN, name) for name in names(4, 3))]
    )
    assert store.given == names(1, 2, 3, 4)
    assert not list(folder.root.glob(".sending*"))


def test_one_that_was_superseded_before_its_turn_is_never_sent(folder: RunFolder, store: Watched) -> None:
    """And the one that is on its way is sent whole although training has dropped it meanwhile."""
    copying = copies(folder, store)
    put(folder, 1)
    store.gate.clear()
    thread = threading.Thread(target=copying.copy_newest)
    thread.start()
    eventually(lambda: store.given == names(1))
    for number in range(2, 9):
        put(folder, number)
    store.gate.set()
    thread.join(20)
    assert copying.copy_newest() is True
    assert store.given == names(1, 8)
    assert listed(store) == names(8, 1)


def test_a_copy_that_comes_late_does_not_become_the_newest(folder: RunFolder, store: Watched) -> None:
    copying = copies(folder, store)
    put(folder, 1)
    assert copying.copy_newest()
    put(folder, 2)
    store.gate.clear()
    thread = threading.Thread(target=copying.copy_newest)
    thread.start()
    eventually(lambda: store.given == names(1, 2))
    put(folder, 3)
    last = threading.Thread(target=copying.copy_newest)  # the last word of an attempt
    last.start()
    eventually(lambda: len(store.given) == 3)
    store.gate.set()
    thread.join(20)
    last.join(20)
    assert listed(store) == names(3, 2)


def test_what_is_in_the_store_already_is_not_sent_again(folder: RunFolder, store: Watched) -> None:
    put(folder, 1)
    assert copies(folder, store).copy_newest()
    copies(folder, store, attempt=2).copy_newest()  # another process
    assert store.given == names(1)
    put(folder, 2)
    put_status(folder, 2)
    assert copies(folder, store, attempt=2).copy_newest()
    assert listed(store) == [*names(2, attempt=2), *names(1)]


def test_a_store_that_takes_no_checkpoint_is_said_once_and_training_goes_on(
    folder: RunFolder, store: Watched
) -> None:
    told: list[str] = []
    store.error = StoreError("403: no permission for checkpoints/")
    pace = Pace(interval_s=0.02)
    publisher = Publisher(lambda: store, RUN, folder, warn=told.append, pace=pace)
    publisher.start()
    put(folder, 1)
    eventually(lambda: len(store.given) >= 3)
    eventually((Path(store.url) / layout.run_key(RUN, "status.json")).exists)
    store.error = None
    eventually((Path(store.url) / layout.latest_checkpoints_key(RUN)).exists)
    publisher.stop()
    assert len(told) == 1 and "No checkpoint can be put into the store" in told[0] and "403" in told[0]


class SlowStatus(DirectoryStore):
    """A folder in which the upload of a status takes until the end of the test."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, said)
        self.reached, self.ended = threading.Event(), threading.Event()

    def upload(
        self,
        path: Path,
        key: str,
        *,
        if_generation: int | None = None,
        way: Way = FREE,
        begun: Begun | None = None,
    ) -> Blob:
        if key.endswith("/status.json"):
            self.reached.set()
            self.ended.wait(60)
        return super().upload(path, key, if_generation=if_generation, way=way)


def test_what_a_run_said_up_to_its_checkpoint_is_there_before_the_checkpoint_counts(
    folder: RunFolder, tmp_path: Path
) -> None:
    """Who sends events and log is held up; a machine that is lost now loses no line that its checkpoint is beyond."""
    store = SlowStatus(tmp_path / "store")
    publisher = Publisher(lambda: store, RUN, folder, warn=print, pace=Pace(interval_s=0.02))
    publisher.start()
    assert store.reached.wait(20)
    folder.events.write_text('{"type": "epoch", "epoch": 1}\n')
    folder.log.write_text("epoch 1\n")
    put(folder, 1)
    eventually((Path(store.url) / layout.latest_checkpoints_key(RUN)).exists)
    for stream, path in (("events", folder.events), ("log", folder.log)):
        assert (Path(store.url) / layout.segment_key(RUN, stream, 0)).read_bytes() == path.read_bytes()
    store.ended.set()
    publisher.stop()


def test_streams_that_are_closed_are_not_sent_any_more(folder: RunFolder, store: Watched) -> None:
    """A checkpoint that is still on its way must not put more into them than the manifest names."""
    streams = Streams(lambda: store, RUN, folder)
    folder.events.write_text("one\n")
    with pytest.raises(StoreError), streams.closing() as segments:
        assert [file.size for file in segments] == [4]
        raise StoreError("the manifest was refused")
    folder.events.write_text("one\ntwo\n")
    with streams.closing() as segments:
        assert [file.size for file in segments] == [8]
    folder.events.write_text("one\ntwo\nthree\n")
    streams.publish()
    stored = Path(store.url) / layout.segment_key(RUN, "events", 0)
    assert stored.read_text() == "one\ntwo\n"


def test_an_older_attempt_puts_nothing_over_a_later_one(folder: RunFolder, store: Watched) -> None:
    later = MachineHome(folder.root.parent.parent / "other").run(RUN)
    later.checkpoints.mkdir(parents=True)
    put_status(later, 2)
    ours, theirs = (
        Claim(lambda: store, RUN, place, attempt=number) for number, place in ((1, folder), (2, later))
    )
    ours.publish()
    ours.check()
    theirs.publish()
    with pytest.raises(Superseded, match="attempt 2 on machine-2"):
        ours.check()
    put_status(folder, 1)
    with pytest.raises(Superseded):
        Claim(lambda: store, RUN, folder, attempt=1).publish()
    theirs.check()


def test_an_end_that_somebody_else_wrote_ends_the_attempt(folder: RunFolder, store: Watched) -> None:
    claim = Claim(lambda: store, RUN, folder, attempt=1)
    claim.publish()
    elsewhere = folder.root.parent / "elsewhere"
    document.write(elsewhere, RunStatus(RUN, "CANCELLED", updated="", attempt=1))
    store.upload(elsewhere, layout.run_key(RUN, "status.json"))
    with pytest.raises(Superseded, match="ended as CANCELLED by somebody else"):
        claim.check()


def test_a_status_that_is_damaged_in_the_store_is_replaced(folder: RunFolder, store: Watched) -> None:
    claim = Claim(lambda: store, RUN, folder, attempt=1)
    claim.publish()
    stored = Path(store.url) / layout.run_key(RUN, "status.json")
    damaged = folder.root / "damaged"
    damaged.write_text("{")
    store.upload(damaged, layout.run_key(RUN, "status.json"))
    claim.check()
    claim.publish()
    assert stored.read_bytes() == folder.status.read_bytes()


def test_turns_stay_within_what_they_may_cost() -> None:
    """A turn of 20 ms of processor time that may cost a tenth is followed by a pause ten times as long."""
    began: list[float] = []
    stopping = threading.Event()

    def act() -> int:
        began.append(time.monotonic())
        until = time.thread_time() + 0.02
        while time.thread_time() < until:
            pass
        if len(began) == 3:
            stopping.set()
        return 0

    pace = Pace(interval_s=0.01, processor_share=0.1)
    thread = threading.Thread(target=repeat, args=(act, pace, stopping, lambda error: False))
    thread.start()
    thread.join(20)
    assert all(after - before >= 0.19 for before, after in itertools.pairwise(began))


def test_turns_come_less_often_while_the_store_refuses() -> None:
    refused: list[float] = []
    stopping = threading.Event()

    def act() -> int:
        raise StoreUnready("503")

    def note(error: Exception) -> bool:
        refused.append(time.monotonic())
        return len(refused) < 4

    repeat_in = threading.Thread(target=repeat, args=(act, Pace(interval_s=0.03), stopping, note))
    repeat_in.start()
    repeat_in.join(20)
    pauses = [after - before for before, after in itertools.pairwise(refused)]
    assert pauses[0] >= 0.06 and pauses[1] >= 0.12 and pauses[2] >= 0.24
