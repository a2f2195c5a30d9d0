"""A disk that is full costs lines, never the run. The disk is /dev/full, which takes nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remote.contract.events import EventWriter, parse
from remote.contract.full_disk import ForgivingLog

FULL = Path("/dev/full")
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="only Linux has a disk that is always full")


def test_events_that_find_no_room_are_counted_and_said(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.symlink_to(FULL)
    writer = EventWriter(path)
    for epoch in range(3):
        writer.emit("epoch", epoch=epoch)
    path.unlink()
    room = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(room, writer.descriptor)
    os.close(room)
    writer.emit("epoch", epoch=3)
    writer.emit("epoch", epoch=4)
    writer.close()
    told, *others = [parse(line) or {} for line in path.read_bytes().splitlines()]
    assert told["text"] == "The disk of the machine was full: events are missing here (3)"
    assert [event["epoch"] for event in others] == [3, 4]


def test_a_line_of_the_log_that_finds_no_room_is_left_out() -> None:
    with FULL.open("w", buffering=1) as log:
        print("epoch 1", file=ForgivingLog(log), flush=True)
        with pytest.raises(OSError, match="No space left"):
            print("epoch 1", file=log, flush=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), log.fileno())  # what is buffered goes at the close


def test_another_trouble_is_still_one(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path / "events.jsonl")
    writer.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        writer.emit("epoch", epoch=1)
