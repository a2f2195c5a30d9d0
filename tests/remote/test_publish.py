"""What a publisher does with a store that refuses: for a moment, or for good."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from remote.contract import layout
from remote.contract.layout import MachineHome, RunFolder
from remote.contract.store import FREE, Begun, Blob, Way
from remote.job.pace import PACE
from remote.job.publish import Publisher
from remote.storage.directory import DirectoryStore
from remote.store import StoreError, StoreUnready, said
from tests.remote.machine import eventually

RUN = "fixed-extractor-20260807-142530-k3qz"


class Refusing(DirectoryStore):
    """A folder that refuses to be written with `error`."""

    def __init__(self, path: Path, error: StoreError) -> None:
        super().__init__(path, said)
        self.error = error
        self.asked = 0

    def upload(
        self,
        path: Path,
        key: str,
        *,
        if_generation: int | None = None,
        way: Way = FREE,
        begun: Begun | None = None,
    ) -> Blob:
        self.asked += 1
        raise self.error


class Slow(DirectoryStore):
    """A folder that takes a result for as long as `meanwhile` takes."""

    def __init__(self, path: Path, meanwhile: Callable[[], None]) -> None:
        super().__init__(path, said)
        self._meanwhile = meanwhile

    def upload(
        self,
        path: Path,
        key: str,
        *,
        if_generation: int | None = None,
        way: Way = FREE,
        begun: Begun | None = None,
    ) -> Blob:
        if key.endswith("metrics.json"):
            self._meanwhile()
        return super().upload(path, key, if_generation=if_generation, way=way, begun=begun)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = MachineHome(tmp_path / "home").run(RUN)
    folder.result.mkdir(parents=True)
    folder.status.write_text("{}")
    folder.events.write_text("")
    (folder.result / "metrics.json").write_text("{}")
    return folder


def test_streams_and_status_are_given_up_at_once_when_the_store_refuses_for_good(
    folder: RunFolder, tmp_path: Path
) -> None:
    store, told = Refusing(tmp_path, StoreError("read-only file system")), list[str]()
    publisher = Publisher(lambda: store, RUN, folder, warn=told.append)
    publisher.send(patience_s=60)
    publisher.send_status(patience_s=60)
    assert store.asked == 2
    assert len(told) == 1 and "read-only file system" in told[0]


def test_what_may_succeed_a_moment_later_is_tried_again(folder: RunFolder, tmp_path: Path) -> None:
    store = Refusing(tmp_path, StoreUnready("try again"))
    Publisher(lambda: store, RUN, folder, warn=lambda text: None).send(patience_s=1.9)
    assert store.asked == 2


def test_a_result_is_insisted_on_within_its_patience_and_the_end_is_told(
    folder: RunFolder, tmp_path: Path
) -> None:
    store, told = Refusing(tmp_path, StoreError("forbidden")), list[str]()
    publisher = Publisher(lambda: store, RUN, folder, warn=told.append)
    began = time.monotonic()
    manifest = publisher.finish(
        "SUCCEEDED", with_result=True, patience_s=1.9, wanted=lambda: True, tell=lambda files, size: None
    )
    assert manifest is None
    assert time.monotonic() - began > 1
    assert store.asked == 2  # the third would come after it
    assert "tries again" in told[0] and "on this machine only: forbidden" in told[1]


def says(path: Path, word: str) -> bool:
    return path.is_file() and path.read_text() == word


def test_what_is_new_reaches_the_store_while_the_result_is_on_its_way(
    folder: RunFolder, tmp_path: Path
) -> None:
    """Who follows through the store sees that the supervisor lives. Checkpoints would only be in the way."""
    before = set(threading.enumerate())
    stored = tmp_path / "store" / layout.run_key(RUN, "status.json")

    def begun() -> set[str]:
        return {thread.name for thread in set(threading.enumerate()) - before}

    def meanwhile() -> None:
        eventually(lambda: "checkpoints" not in begun())
        for word in ("sends", "still sends"):
            folder.status.write_text(word)
            eventually(partial(says, stored, word))

    store = Slow(tmp_path / "store", meanwhile)
    pace = dataclasses.replace(PACE, interval_s=0.02, processor_share=1.0)
    publisher = Publisher(lambda: store, RUN, folder, warn=print, pace=pace)
    publisher.start()
    assert begun() >= {"news", "checkpoints"}
    manifest = publisher.finish(
        "SUCCEEDED", with_result=True, patience_s=60, wanted=lambda: True, tell=lambda files, size: None
    )
    assert manifest and "metrics.json" in [file.path for file in manifest.files]
    assert publisher.stop()
