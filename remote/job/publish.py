"""What a run has to say leaves the machine while it works: events, log and status go to the store in the background.

At the end the files of the result follow, and MANIFEST.json last: only what it names is a result. Training never
waits for any of this, and a store that is full, forbidden or away never stops it: the run says so and goes on trying.
"""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeVar

from remote.contract import document, layout
from remote.contract.layout import RunFolder
from remote.contract.run_status import ResultFile, ResultManifest, State
from remote.store import Store, StoreError

T = TypeVar("T")

INTERVAL_S = 5.0
PAUSE_MAX_S = 60.0  # between two tries of a store that refuses
SHARE = 25  # a pass that took t seconds is followed by a pause of at least 25 t: at most 4 % of the time
_CHUNK_BYTES = 1024 * 1024
STREAMS = ("events", "log")


class Publisher:
    """Copies one run to the store. `start` and `stop` bracket the background thread; `finish` comes after `stop`.

    warn    is told once each time the store begins to refuse, and when something is given up
    """

    def __init__(
        self,
        open_store: Callable[[], Store],
        run_id: str,
        folder: RunFolder,
        *,
        warn: Callable[[str], None],
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._open_store = open_store
        self._run_id = run_id
        self._folder = folder
        self._warn = warn
        self._interval_s = interval_s
        self._store: Store | None = None
        self._sent = dict.fromkeys(STREAMS, 0)  # bytes of each stream that are in the store
        self._segments: dict[str, ResultFile] = {}
        self._results: dict[str, ResultFile] = {}
        self._status = b""
        self._refused = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="publish", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, patience_s: float = 600.0) -> bool:
        """End the background thread once its present upload is through; False when that took too long."""
        self._stopping.set()
        self._thread.join(patience_s)
        return not self._thread.is_alive()

    def finish(
        self,
        state: State,
        *,
        with_result: bool,
        patience_s: float,
        wanted: Callable[[], bool],
        tell: Callable[[int, int], None],
    ) -> ResultManifest | None:
        """Everything, the manifest last; again and again until it is through, whatever the store says meanwhile.

        A permission that is missing may be given within `patience_s`: the result is worth waiting for.

        wanted      asked between two tries: False gives up
        tell        called once, with the number and the bytes of the result's files, when they are in the store
        Returns     the manifest, None when the store refused all the time
        """
        deadline = time.monotonic() + patience_s
        if with_result:
            sent = self._insist(self._publish_results, deadline, wanted)
            if sent is None:
                return None
            tell(len(sent), sum(file.size for file in sent))
        return self._insist(lambda: self._publish_manifest(state), deadline, wanted)

    def send(self, *, patience_s: float) -> None:
        """Events, log and status as they are now. A store that refuses for good is not asked again."""

        def once() -> bool:
            self._publish_streams()
            self._publish_status()
            return True

        self._insist(once, time.monotonic() + patience_s, lambda: True, result=False)

    def send_status(self, *, patience_s: float) -> None:
        """The last word: after MANIFEST.json the streams are closed, so a refusal is not said there."""

        def once() -> bool:
            self._publish_status()
            return True

        self._refused = True
        self._insist(once, time.monotonic() + patience_s, lambda: True, result=False)

    def _loop(self) -> None:
        pause_s = 0.0
        while not self._stopping.wait(pause_s):
            began = time.monotonic()
            try:
                self._publish_streams()
                self._publish_status()
            except (StoreError, OSError) as error:
                self._refusal(error)
                pause_s = min(2 * max(pause_s, self._interval_s), PAUSE_MAX_S)
            else:
                self._refused = False
                pause_s = max(self._interval_s, SHARE * (time.monotonic() - began))

    def _insist(
        self, act: Callable[[], T], deadline: float, wanted: Callable[[], bool], *, result: bool = True
    ) -> T | None:
        """What `act` returns once it is through; None when nobody wants it any more, or the time is over.

        result      whether it belongs to the result; what does not is given up once the store refuses for good
        """
        pause_s = 1.0
        while True:
            try:
                return act()
            except (StoreError, OSError) as error:
                self._refusal(error)
                for_good = isinstance(error, StoreError) and not error.retryable
                if for_good and not result:
                    return None
                last = error
            until = min(time.monotonic() + pause_s, deadline)
            while time.monotonic() < until and wanted():
                time.sleep(0.1)
            if not wanted():
                return None
            if time.monotonic() >= deadline:
                if result:
                    self._warn(
                        f"The store refused all the time, the result stays on this machine only: {last}"
                    )
                return None
            pause_s = min(2 * pause_s, PAUSE_MAX_S)

    def _refusal(self, error: Exception) -> None:
        if not self._refused:
            self._refused = True
            self._warn(f"The store can't be written, the run goes on and tries again: {error}")

    def _publish_results(self) -> list[ResultFile]:
        for path in result_files(self._folder.result):
            name = path.relative_to(self._folder.result).as_posix()
            if name not in self._results:
                self._results[name] = self._upload(path, name)
        return list(self._results.values())

    def _publish_manifest(self, state: State) -> ResultManifest:
        self._publish_streams()
        files = sorted([*self._results.values(), *self._segments.values()], key=lambda file: file.path)
        manifest = ResultManifest(self._run_id, state, created=now(), files=files)
        path = self._folder.root / "MANIFEST.json"
        document.write(path, manifest)
        self._the_store().upload(path, layout.run_key(self._run_id, "MANIFEST.json"))
        return manifest

    def _publish_streams(self) -> None:
        """Whole segments once; the last one again whenever it has grown."""
        for stream, path in (("events", self._folder.events), ("log", self._folder.log)):
            size = _size(path)
            while self._sent[stream] < size:
                offset = self._sent[stream] // layout.SEGMENT_BYTES * layout.SEGMENT_BYTES
                length = min(layout.SEGMENT_BYTES, size - offset)
                piece = self._folder.root / ".segment"
                with path.open("rb") as file:
                    file.seek(offset)
                    piece.write_bytes(file.read(length))
                name = f"{stream}/{offset:016d}"
                self._segments[name] = self._upload(piece, name)
                self._sent[stream] = offset + length

    def _publish_status(self) -> None:
        text = self._folder.status.read_bytes()
        if text != self._status:
            piece = self._folder.root / ".status"
            piece.write_bytes(text)
            self._the_store().upload(piece, layout.run_key(self._run_id, "status.json"))
            self._status = text

    def _upload(self, path: Path, name: str) -> ResultFile:
        described = describe(path, name)
        blob = self._the_store().upload(path, layout.run_key(self._run_id, name))
        if (blob.size, blob.crc32c) != (described.size, described.crc32c):
            raise OSError(f"{name} changed while it was uploaded")
        return described

    def _the_store(self) -> Store:
        if self._store is None:
            self._store = self._open_store()
        return self._store


def result_files(folder: Path) -> list[Path]:
    """Every regular file of the result, hidden ones (half written) left out."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not path.is_symlink()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def describe(path: Path, name: str) -> ResultFile:
    import google_crc32c

    sha256, crc32c, size = hashlib.sha256(), google_crc32c.Checksum(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            sha256.update(chunk)
            crc32c.update(chunk)
            size += len(chunk)
    return ResultFile(name, size, sha256.hexdigest(), base64.b64encode(crc32c.digest()).decode())


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0
