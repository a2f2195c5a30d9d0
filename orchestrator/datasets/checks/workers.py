"""Worker processes that read, hash and decode batches of files; what they are asked and what they answer.

Answers come in the order in which was asked, so that what follows from the order (the packs) does not depend on how
fast which process is.
"""

from __future__ import annotations

import functools
import hashlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from orchestrator.datasets.checks.cache import Cache
from orchestrator.datasets.checks.convert import Conversion, prepared
from orchestrator.datasets.checks.judge import Unusable, Verdict
from orchestrator.datasets.folder.reading import Missed, read

BATCH_FILES = 256
BATCH_BYTES = 4 * 1024**2
_PAGES_BYTES = 8 * 1024**2
_FILES_MIN = 16
_BATCHES_EACH = 4  # at least, for every worker, where there are so many files
_AHEAD = 2  # batches on their way for each worker

B = TypeVar("B")
Judged = Verdict | Unusable | Missed


class Task(NamedTuple):
    """A file as the scan saw it."""

    path: bytes
    size: int
    mtime_ns: int
    inode: int
    known: str = ""  # content that needs no judging, and of which the bytes are wanted
    expected: str | None = None  # they are wanted unless their hash is this; None: they are not


class Answer(NamedTuple):
    sha256: str  # of the file's bytes; "" where they could not be read
    judged: Judged | None  # None: it is what the task calls known; or it can't be told without decoding
    data: bytes | None  # of a usable image, where wanted


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def batches(sizes: Sequence[int], workers: int) -> Iterator[slice]:
    """Neighbours that make one message: many small files or a few large ones, and enough batches for all workers."""
    most = max(_FILES_MIN, min(BATCH_FILES, len(sizes) // (_BATCHES_EACH * max(1, workers))))
    start = size = 0
    for end, file_size in enumerate(sizes, 1):
        size += file_size
        if end - start == most or size >= BATCH_BYTES:
            yield slice(start, end)
            start, size = end, 0
    if start < len(sizes):
        yield slice(start, len(sizes))


def answer(root: bytes, tasks: Sequence[Task], cache: Cache, *, decode: bool = True) -> list[Answer]:
    """Read every file, and judge those whose content the cache does not know."""
    contents = [read(root, task) for task in tasks]
    hashes = [hashlib.sha256(data).hexdigest() if isinstance(data, bytes) else "" for data in contents]
    conversion = Conversion.of(cache.how)
    unknown = [sha256 for task, sha256 in zip(tasks, hashes, strict=True) if sha256 not in ("", task.known)]
    known = cache.verdicts(unknown)
    answers = []
    for task, data, sha256 in zip(tasks, contents, hashes, strict=True):
        if not isinstance(data, bytes):
            answers.append(Answer("", data, None))
            continue
        if sha256 == task.known:
            answers.append(Answer(sha256, None, data))
            continue
        judged = known.get(sha256)
        if judged is None and decode:
            travels, judged = prepared(data, conversion, sha256=sha256)
        elif isinstance(judged, Verdict) and judged.size:
            travels, _ = prepared(data, conversion)
        else:
            travels = data
        wanted = isinstance(judged, Verdict) and task.expected not in (None, judged.sha256)
        answers.append(Answer(sha256, judged, travels if wanted else None))
    return answers


def in_processes(
    root: bytes, asked: Iterable[tuple[B, list[Task]]], workers: int, cache: Cache
) -> Iterator[tuple[B, list[Task], list[Answer]]]:
    """The answers, batch by batch. No more than a few batches are on their way."""
    todo = iter(asked)
    more = True
    while more:
        flying: deque[tuple[B, list[Task], Future[list[Answer]]]] = deque()
        with _pool(workers) as pool:
            try:
                for batch, tasks in todo:
                    flying.append((batch, tasks, _submit(pool, root, tasks, cache)))
                    if len(flying) > _AHEAD * workers:
                        yield _first(flying)
                while flying:
                    yield _first(flying)
                more = False
            except BrokenProcessPool:
                pass  # a decoder crashed: those in flight are taken one by one, to find on which file
        for batch, tasks, future in flying:
            yield batch, tasks, _finished(future) or list(_one_by_one(root, tasks, cache))


def _submit(
    pool: ProcessPoolExecutor, root: bytes, tasks: Sequence[Task], cache: Cache
) -> Future[list[Answer]]:
    try:
        return pool.submit(_answer, root, tasks, cache.folder, cache.how)
    except BrokenProcessPool as error:  # it counts when its turn comes
        failed: Future[list[Answer]] = Future()
        failed.set_exception(error)
        return failed


def _first(flying: deque[tuple[B, list[Task], Future[list[Answer]]]]) -> tuple[B, list[Task], list[Answer]]:
    batch, tasks, future = flying[0]
    answers = future.result()
    flying.popleft()
    return batch, tasks, answers


def _finished(future: Future[list[Answer]]) -> list[Answer] | None:
    try:
        return future.result()
    except (BrokenProcessPool, CancelledError):
        return None


def _one_by_one(root: bytes, tasks: Sequence[Task], cache: Cache) -> Iterator[Answer]:
    left = deque(tasks)
    while left:
        with _pool(1) as pool:
            try:
                while left:
                    yield pool.submit(_answer, root, [left[0]], cache.folder, cache.how).result()[0]
                    left.popleft()
            except BrokenProcessPool:
                left.popleft()
                yield Answer("", Unusable("the decoder crashed on it"), None)


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """`spawn` on every system: a fork would copy the threads' locks of a process that has threads."""
    pool = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_prepare_worker
    )
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare_worker() -> None:
    """Ctrl-C is the parent's; decoders' own messages go nowhere; no parent, no worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _answer(root: bytes, tasks: Sequence[Task], folder: Path | None, how: str) -> list[Answer]:
    return answer(root, tasks, _cache(folder, how))


@functools.cache
def _cache(folder: Path | None, how: str) -> Cache:
    """One connection, for as long as the worker lives. It only looks hashes up."""
    return Cache(folder, how=how, pages_bytes=_PAGES_BYTES)
