"""What a run has to say leaves the machine while it works: events, log, status and checkpoints, in the background.

At the end the files of the result follow, and MANIFEST.json last: only what it names is a result. Training never
waits for any of this, and a store that is full, forbidden or away never stops it: the run says so and goes on trying.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TypeVar

from remote.contract import document, layout
from remote.contract.layout import RunFolder
from remote.contract.run_status import ResultFile, ResultManifest, State
from remote.job.checkpoint_copies import CheckpointCopies
from remote.job.claim import Claim, Superseded
from remote.job.pace import PACE, PAUSE_MAX_S, Pace, repeat
from remote.job.streams import Streams, describe, is_same, send
from remote.store import Store, StoreError

T = TypeVar("T")

_NEWS = "The store can't be written, the run goes on and tries again"
_CHECKPOINTS = "No checkpoint can be put into the store, the run goes on and tries again"
_LAST_WORD_S = 2.0  # for the status, whatever the checkpoint took
_LAST_COPY_S = 60.0  # that a result is kept waiting for a checkpoint nobody needs any more
LARGE_BYTES = 1024 * 1024  # what is larger is compared with what the store has before it is sent


class Publisher:
    """Copies one attempt of a run to the store. `start` begins the background, `stop` or `finish` ends it.

    warn        is told once each time the store begins to refuse, and when something is given up
    position    the step that the training is at, and the epochs that are over
    """

    def __init__(
        self,
        open_store: Callable[[], Store],
        run_id: str,
        folder: RunFolder,
        *,
        warn: Callable[[str], None],
        attempt: int = 1,
        position: Callable[[], tuple[int, int]] = lambda: (0, 0),
        pace: Pace = PACE,
    ) -> None:
        self.superseded = ""  # who speaks for this run now, when it is not ours any more
        self._open_store = open_store
        self._run_id = run_id
        self._folder = folder
        self._warn = warn
        self._store: Store | None = None
        self._claim = Claim(self._the_store, run_id, folder, attempt=attempt)
        self._streams = Streams(self._the_store, run_id, folder)
        self._checkpoints = CheckpointCopies(
            self._the_store,
            self._claim,
            run_id,
            folder,
            attempt=attempt,
            position=position,
            publish_streams=self._publish_streams_of_ours,
        )
        self._results: dict[str, ResultFile] = {}
        self._refused: set[str] = set()
        self._no_news, self._no_checkpoints = threading.Event(), threading.Event()
        self._threads = [
            threading.Thread(
                target=repeat,
                args=(act, pace, stopping, partial(self._goes_on, what)),
                name=name,
                daemon=True,
            )
            for name, act, stopping, what in (
                ("news", self._publish_news, self._no_news, _NEWS),
                ("checkpoints", self._publish_checkpoint, self._no_checkpoints, _CHECKPOINTS),
            )
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, *, patience_s: float = 600.0) -> bool:
        """End the background once its present upload of news is through; False when that took too long.

        A checkpoint that is on its way is not waited for: what follows sends a newer one, or needs none.
        """
        self._no_checkpoints.set()
        self._no_news.set()
        if self._threads[0].is_alive():
            self._threads[0].join(patience_s)
        return not self._threads[0].is_alive()

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

        News go on while the result is sent: who follows through the store sees that we live. A permission that is
        missing may be given within `patience_s`: the result is worth waiting for.

        wanted      asked between two tries: False gives up
        tell        called once, with the number and the bytes of the result's files, when they are in the store
        Returns     the manifest, None when the store refused all the time
        Superseded
        """
        deadline = time.monotonic() + patience_s
        if with_result:
            self._no_checkpoints.set()
            sent = self._insist(self._publish_results, deadline, wanted)
            if sent is None:
                self.stop()
                return None
            tell(len(sent), sum(file.size for file in sent))
        self.stop()
        return self._insist(lambda: self._publish_manifest(state), deadline, wanted)

    def send(self, *, patience_s: float) -> None:
        """Events, log, checkpoint and then status, as they are now. A store that refuses for good is not asked again.

        What takes longer than the patience goes on beside, until the process ends. Superseded
        """
        deadline = time.monotonic() + patience_s
        pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        copying = pool.submit(
            lambda: self._insist(self._checkpoints.copy_newest, deadline, lambda: True, result=False)
        )
        pool.shutdown(wait=False)
        self._insist(self._publish_streams_of_ours, deadline, lambda: True, result=False)
        wait([copying], max(0.0, deadline - time.monotonic()))
        last = max(deadline, time.monotonic() + _LAST_WORD_S)
        self._insist(self._publish_status, last, lambda: True, result=False)

    def send_status(self, *, patience_s: float) -> None:
        """The last word. After MANIFEST.json the streams are closed, so a refusal is not said there."""
        self._refused.add(_NEWS)
        self._insist(self._publish_status, time.monotonic() + patience_s, lambda: True, result=False)

    def forget_checkpoints(self) -> None:
        """The run is over and in the store. One that is still on its way is waited for, or stays. StoreError"""
        self._threads[1].join(_LAST_COPY_S)
        self._checkpoints.remove_all()

    def checkpoint_s(self) -> float:
        """How long a checkpoint takes on its way; 0 when none was sent yet."""
        return self._checkpoints.sent_s

    def _publish_news(self) -> int:
        self._publish_streams_of_ours()
        self._publish_status()
        # While the result is sent, it may be refused all the same: said once.
        if not self._no_checkpoints.is_set():
            self._refused.discard(_NEWS)
        return 0

    def _publish_checkpoint(self) -> int:
        copied = self._checkpoints.copy_newest()
        self._refused.discard(_CHECKPOINTS)
        return self._checkpoints.sent_bytes if copied else 0

    def _goes_on(self, what: str, error: Exception) -> bool:
        if isinstance(error, Superseded):
            self.superseded = str(error)
            return False
        self._refusal(error, what)
        return True

    def _insist(
        self,
        act: Callable[[], T],
        deadline: float,
        wanted: Callable[[], bool],
        *,
        result: bool = True,
        what: str = _NEWS,
    ) -> T | None:
        """What `act` returns once it is through; None when nobody wants it any more, or the time is over.

        result      whether it belongs to the result; what does not is given up once the store refuses for good
        """
        pause_s = 1.0
        while True:
            try:
                return act()
            except (StoreError, OSError) as error:
                self._refusal(error, what)
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

    def _refusal(self, error: Exception, what: str) -> None:
        if what not in self._refused:
            self._refused.add(what)
            self._warn(f"{what}: {error}")

    def _publish_results(self) -> list[ResultFile]:
        self._claim.check()
        for path in result_files(self._folder.result):
            name = path.relative_to(self._folder.result).as_posix()
            if name not in self._results:
                self._results[name] = self._upload(path, name)
        return list(self._results.values())

    def _publish_manifest(self, state: State) -> ResultManifest:
        self._claim.check()
        with self._streams.closing() as segments:
            files = sorted([*self._results.values(), *segments], key=lambda file: file.path)
            manifest = ResultManifest(self._run_id, state, created=now(), files=files)
            path = self._folder.root / "MANIFEST.json"
            document.write(path, manifest)
            self._the_store().upload(path, layout.run_key(self._run_id, "MANIFEST.json"))
        return manifest

    def _publish_streams_of_ours(self) -> bool:
        self._claim.check()
        self._streams.publish()
        return True

    def _publish_status(self) -> bool:
        self._claim.publish()
        return True

    def _upload(self, path: Path, name: str) -> ResultFile:
        described = describe(path, name)
        key, store = layout.run_key(self._run_id, name), self._the_store()
        if described.size < LARGE_BYTES or not is_same(store.get(key), described):
            send(store, path, key, described)
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


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
