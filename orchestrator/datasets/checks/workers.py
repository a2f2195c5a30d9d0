"""Worker processes that read, hash and decode batches of files, and lay out for packs what is wanted of them.

Answers come in the order in which was asked, so that what follows from the order (the packs) does not depend on how
fast which process is.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, util
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.datasets.checks.batch import Answers, Batch, answer
from orchestrator.datasets.checks.cache import Cache
from orchestrator.datasets.checks.judge import Unusable
from orchestrator.datasets.packs.member import members
from orchestrator.datasets.packs.scratch import adopt
from orchestrator.errors import CloudError

if TYPE_CHECKING:
    from orchestrator.datasets.columns.column import Indices  # loads numpy, which a worker seldom needs

_PAGES_BYTES = 8 * 1024**2
_AHEAD = 2  # batches on their way for each worker
_LOADED_BY_WORKERS = ("concurrent.futures.process", "multiprocessing.spawn", "PIL.JpegImagePlugin")


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_ahead() -> None:
    """Begin to load what workers need, where that is done once for all of them. Does not wait for it."""
    _context()


def in_processes(
    root: bytes, asked: Iterable[tuple[Indices, Batch]], workers: int, cache: Cache
) -> Iterator[tuple[Indices, Answers]]:
    """The answers, batch by batch. No more than a few batches are on their way."""
    load_ahead()
    todo = iter(asked)
    more = True
    while more:
        flying: deque[tuple[Indices, Batch, Future[Answers]]] = deque()
        with _pool(workers) as pool:
            try:
                for at, batch in todo:
                    flying.append((at, batch, _submit(pool, root, batch, cache)))
                    if len(flying) > _AHEAD * workers:
                        yield _first(flying)
                while flying:
                    yield _first(flying)
                more = False
            except BrokenProcessPool:
                pass  # a decoder crashed: those in flight are taken one by one, to find on which file
        for at, batch, future in flying:
            if found := _finished(future):
                yield at, found
            else:
                yield from _one_by_one(root, at, batch, cache)


def _submit(pool: ProcessPoolExecutor, root: bytes, batch: Batch, cache: Cache) -> Future[Answers]:
    try:
        return _begun(pool, root, batch, cache)
    except BrokenProcessPool as error:  # it counts when its turn comes
        failed: Future[Answers] = Future()
        failed.set_exception(error)
        return failed


def _begun(pool: ProcessPoolExecutor, root: bytes, batch: Batch, cache: Cache) -> Future[Answers]:
    try:
        return pool.submit(_answer, root, batch, cache.folder, cache.how)
    except (
        EOFError,
        OSError,
    ) as error:  # which elsewhere would tell of the terminal, or of a reader that has gone
        raise CloudError(
            "The processes that look at images can't be started",
            detail=str(error) or "they ended at once",
            next="Look for limits on processes, memory and open files (ulimit -a); then run it again.",
        ) from error


def _first(flying: deque[tuple[Indices, Batch, Future[Answers]]]) -> tuple[Indices, Answers]:
    at, _, future = flying[0]
    found = future.result()
    flying.popleft()
    return at, found


def _finished(future: Future[Answers]) -> Answers | None:
    try:
        return future.result()
    except (BrokenProcessPool, CancelledError):
        return None


def _one_by_one(root: bytes, at: Indices, batch: Batch, cache: Cache) -> Iterator[tuple[Indices, Answers]]:
    places = (at[place : place + 1] for place in range(len(at)))
    left = deque(zip(places, batch.one_by_one(), strict=True))
    while left:
        with _pool(1) as pool:
            try:
                while left:
                    place, one = left[0]
                    yield place, _begun(pool, root, one, cache).result()
                    left.popleft()
            except BrokenProcessPool:
                place, _ = left.popleft()
                crashed = Unusable("the decoder crashed on it")
                yield place, Answers([], [], [], [], {0: ("", crashed)}, members([]))


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    pool = ProcessPoolExecutor(workers, mp_context=_context(), initializer=_prepare_worker)
    try:
        yield pool
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown(wait=False)  # they have nothing left to do, and need not be waited for


@functools.cache
def _context() -> BaseContext:
    """Not a fork of this process, which would copy the locks that its threads hold.

    On Linux one that has no threads loads what workers need, once, and they are its copies.
    """
    if sys.platform == "linux":
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__, *_LOADED_BY_WORKERS])
        with suppress(OSError):  # its socket finds no place, or TMPDIR is too long for the path of one
            forkserver.ensure_running()
            adopt(Path(util.get_temp_dir()))
            return context
    return multiprocessing.get_context("spawn")


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


def _answer(root: bytes, batch: Batch, folder: Path | None, how: str) -> Answers:
    return answer(root, batch, _cache(folder, how))


@functools.cache
def _cache(folder: Path | None, how: str) -> Cache:
    """One connection, for as long as the worker lives. It only looks hashes up."""
    return Cache(folder, how=how, pages_bytes=_PAGES_BYTES)
