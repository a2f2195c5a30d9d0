"""Read, hash and decode the files of a dataset once, in worker processes on all cores, and hand on what is to be packed.

What the cache knows is not read again. A worker holds a batch of files at a time, answers come back in path order, and
no more than a few batches are on their way, so memory does not grow with the images. A file on which a decoder crashes
(and takes its process along) is found and named.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from orchestrator.progress import Progress

from . import names
from .cache import Cache, Entry
from .confirm import near_copies
from .convert import Conversion
from .judge import Verdict
from .names import SetAside
from .near import NOTHING, Near
from .reading import Missed
from .scan import Labelled, Scan
from .workers import Answer, Judged, Task, Todo, answer, batches, cores, in_processes

_INLINE_FILES = 64  # so few are judged sooner than a process starts
_INLINE_S = 2.0  # what reading without decoding may take here, before processes are worth their start
_NOISY = (b".tif", b".tiff")  # libtiff writes to stderr by itself, so it is kept in a process without one
_KEPT_AT_ONCE = 4000  # files


class Checked(NamedTuple):
    """A usable image."""

    file: Labelled
    verdict: Verdict

    @property
    def size(self) -> int:
        """Bytes that travel."""
        return self.verdict.size or self.file.size


@dataclass(frozen=True)
class Outcome:
    images: list[Checked]  # in path order
    unusable: list[SetAside]
    missed: list[SetAside]  # vanished or changed since the scan
    near: Near = NOTHING  # which of the images look the same


class Packing(Protocol):
    """Where the bytes of usable images go."""

    def needs(self, sha256: str) -> bool:
        """Whether this content is in no pack yet."""

    def expected(self, path: bytes) -> str:
        """The content that this path had, if that needs no packing; else ""."""

    def add(self, verdict: Verdict, data: bytes) -> None: ...


def check(
    scan: Scan,
    progress: Progress,
    *,
    processes: int | None = None,
    cache: Cache | None = None,
    packing: Packing | None = None,
) -> Outcome:
    """Judge every file of `scan`.

    processes       0: in this one; default: one per core, or this one where there is little to do
    cache           what is known from before; what is found is kept there
    packing         gets the content of usable images that it needs, in path order
    """
    cache = cache or Cache(None)
    with progress.bar("check", len(scan.files), "images") as bar:
        outcome = Outcome([], [], [])
        todo, gone = _known(scan, cache, packing, outcome)
        if len(todo) < len(scan.files):
            bar.advance(len(scan.files) - len(todo))
        kept: list[Entry] = []
        for batch, answers in _answers(scan, todo, cache, packing, processes):
            for (file, known), found in zip(batch, answers, strict=True):
                judged = known if known is not None and known.sha256 == found.sha256 else found.judged
                assert judged is not None
                _file_away(outcome, file, judged)
                if found.data is not None and packing is not None and isinstance(judged, Verdict):
                    packing.add(judged, found.data)
                if found.sha256 and judged is not known and not isinstance(judged, Missed):
                    kept.append(Entry(*_seen(file), found.sha256, judged))
            bar.advance(len(batch))
            if len(kept) >= _KEPT_AT_ONCE:
                cache.keep(scan.root, kept)
                kept.clear()
        if kept or gone:
            cache.keep(scan.root, kept, gone)
    outcome.images.sort(key=lambda image: image.file.path)
    outcome.unusable.sort(key=lambda item: item.path)
    outcome.missed.sort(key=lambda item: item.path)
    conversion = Conversion.of(cache.how)
    near = near_copies(outcome.images, scan.root, progress, conversion=conversion, remembered=cache.folder)
    return dataclasses.replace(outcome, near=near)


def _known(
    scan: Scan, cache: Cache, packing: Packing | None, outcome: Outcome
) -> tuple[list[Todo], list[bytes]]:
    """File away what need not be read; what must be, and the paths that the cache knows and the folder lacks."""
    todo: list[Todo] = []
    gone: list[bytes] = []
    rows = cache.files(scan.root)
    row = next(rows, None)
    for file in scan.files:
        while row is not None and row.path < file.path:
            gone.append(row.path)
            row = next(rows, None)
        if row is None or row.path != file.path:
            todo.append(Todo(file, None))
            continue
        judged = row.judged if row[:4] == _seen(file) else None
        if judged is None:
            todo.append(Todo(file, None))
        elif packing is not None and isinstance(judged, Verdict) and packing.needs(judged.sha256):
            todo.append(Todo(file, None if judged.size else judged))
        else:
            _file_away(outcome, file, judged)
        row = next(rows, None)
    if row is not None:
        gone += [row.path, *(left.path for left in rows)]
    return todo, gone


def _file_away(outcome: Outcome, file: Labelled, answer: Judged) -> None:
    if isinstance(answer, Verdict):
        outcome.images.append(Checked(file, answer))
    elif isinstance(answer, Missed):
        outcome.missed.append(SetAside(names.encode(file.path), answer.reason))
    else:
        outcome.unusable.append(SetAside(names.encode(file.path), answer.reason))


def _answers(
    scan: Scan, files: Sequence[Todo], cache: Cache, packing: Packing | None, processes: int | None
) -> Iterator[tuple[Sequence[Todo], list[Answer]]]:
    root = os.fsencode(scan.root)
    few = len(files) <= _INLINE_FILES and not any(one.file.path.lower().endswith(_NOISY) for one in files)
    workers = processes if processes is not None else 0 if few else cores()
    todo = deque(batches(files, workers))
    if processes is None and not few:
        for answers in _without_decoding(root, todo, cache, packing):
            yield todo.popleft(), answers
    tasks = ((batch, _tasks(batch, packing)) for batch in todo)
    if workers and todo:
        yield from in_processes(root, tasks, min(workers, len(todo)), cache)
    else:
        for batch, asked in tasks:
            yield batch, answer(root, asked, cache)


def _without_decoding(
    root: bytes, todo: Sequence[Sequence[Todo]], cache: Cache, packing: Packing | None
) -> Iterator[list[Answer]]:
    """The first batches, as long as all their content is known, and as there is too little left for processes."""
    began = time.monotonic()
    for done, batch in enumerate(tuple(todo)):
        spent_s = time.monotonic() - began
        if done and spent_s / done * (len(todo)) > _INLINE_S:
            return
        asked = _tasks(batch, packing)
        answers = answer(root, asked, cache, decode=False)
        if any(
            found.judged is None and found.sha256 != task.known
            for found, task in zip(answers, asked, strict=True)
        ):
            return
        yield answers


def _tasks(batch: Sequence[Todo], packing: Packing | None) -> list[Task]:
    if packing is None:
        return [Task(*_seen(file)) for file, _ in batch]
    return [
        Task(*_seen(file), known.sha256 if known is not None else "", packing.expected(file.path))
        for file, known in batch
    ]


def _seen(file: Labelled) -> tuple[bytes, int, int, int]:
    return file[:4]
