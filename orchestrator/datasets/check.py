"""Read, hash and decode every file of a dataset, in worker processes on all cores.

A worker holds one file at a time, and only small verdicts come back, so memory does not grow with the images. A file
on which a decoder crashes (and takes its process along) is found and named.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass

from orchestrator.progress import Progress

from . import names
from .judge import Unusable, Verdict, judge
from .names import SetAside
from .reading import Missed, read
from .scan import Labelled, Scan

_BATCH_FILES = 32
_BATCH_BYTES = 16 * 1024**2
_INLINE_FILES = 64  # so few are judged sooner than a process starts
_NOISY = (b".tif", b".tiff")  # libtiff writes to stderr by itself, so it is kept in a process without one

Judged = Verdict | Unusable | Missed
Batch = Sequence[Labelled]


@dataclass(frozen=True, slots=True)
class Checked:
    """A usable image."""

    file: Labelled
    verdict: Verdict


@dataclass(frozen=True)
class Outcome:
    images: list[Checked]  # in path order
    unusable: list[SetAside]
    missed: list[SetAside]  # vanished or changed since the scan


def check(scan: Scan, progress: Progress, *, processes: int | None = None) -> Outcome:
    """Judge every file of `scan`.

    processes       0: in this one; default: one per core, or this one where there is little to do
    """
    workers = _workers(scan.files) if processes is None else processes
    root = os.fsencode(scan.root)
    outcome = Outcome([], [], [])
    with progress.bar("check", len(scan.files), "images") as bar:
        batches = _batches(scan.files)
        judged = _in_processes(root, batches, workers) if workers else _here(root, batches)
        for batch, answers in judged:
            for file, answer in zip(batch, answers, strict=True):
                _file_away(outcome, file, answer)
            bar.advance(len(batch))
    outcome.images.sort(key=lambda image: image.file.path)
    outcome.unusable.sort(key=lambda item: item.path)
    outcome.missed.sort(key=lambda item: item.path)
    return outcome


def _workers(files: Sequence[Labelled]) -> int:
    if len(files) <= _INLINE_FILES and not any(file.path.lower().endswith(_NOISY) for file in files):
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, -(-len(files) // _BATCH_FILES)))


def _file_away(outcome: Outcome, file: Labelled, answer: Judged) -> None:
    path = names.encode(file.path)
    if isinstance(answer, Verdict):
        outcome.images.append(Checked(file, answer))
    elif isinstance(answer, Missed):
        outcome.missed.append(SetAside(path, answer.reason))
    else:
        outcome.unusable.append(SetAside(path, answer.reason))


def _batches(files: Sequence[Labelled]) -> Iterator[Batch]:
    batch: list[Labelled] = []
    size = 0
    for file in files:
        batch.append(file)
        size += file.size
        if len(batch) == _BATCH_FILES or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _here(root: bytes, batches: Iterator[Batch]) -> Iterator[tuple[Batch, list[Judged]]]:
    for batch in batches:
        yield batch, _judge_batch(root, batch)


def _in_processes(
    root: bytes, batches: Iterator[Batch], workers: int
) -> Iterator[tuple[Batch, list[Judged]]]:
    left = deque(batches)
    while left:
        flying: dict[Future[list[Judged]], Batch] = {}
        with _pool(workers) as pool:
            try:
                while left or flying:
                    while left and len(flying) < 2 * workers:
                        flying[pool.submit(_judge_batch, root, left[0])] = left[0]
                        left.popleft()
                    for future in wait(flying, return_when=FIRST_COMPLETED).done:
                        answers = future.result()
                        yield flying.pop(future), answers
            except BrokenProcessPool:
                pass  # a decoder crashed: those in flight are taken one by one, to find on which file
        for batch in flying.values():
            yield batch, list(_one_by_one(root, batch))


def _one_by_one(root: bytes, batch: Batch) -> Iterator[Judged]:
    left = deque(batch)
    while left:
        with _pool(1) as pool:
            try:
                while left:
                    yield pool.submit(_judge_batch, root, [left[0]]).result()[0]
                    left.popleft()
            except BrokenProcessPool:
                left.popleft()
                yield Unusable("the decoder crashed on it")


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


def _judge_batch(root: bytes, batch: Batch) -> list[Judged]:
    answers: list[Judged] = []
    for file in batch:
        data = read(root, file)
        answers.append(judge(data) if isinstance(data, bytes) else data)
    return answers
