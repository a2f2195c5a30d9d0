"""Read, hash and decode the files of a dataset once, in worker processes on all cores, and hand on what is to be packed.

What is known is not read again. A worker holds a batch of files at a time, answers come back in path order, and
no more than a few batches are on their way, so memory does not grow with the images. A file on which a decoder crashes
(and takes its process along) is found and named.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from orchestrator.datasets.checks.cache import Cache
from orchestrator.datasets.checks.checked import VERDICTS, Images
from orchestrator.datasets.checks.confirm import near_copies
from orchestrator.datasets.checks.convert import Conversion
from orchestrator.datasets.checks.judge import Unusable, Verdict
from orchestrator.datasets.checks.near import NOTHING, Near
from orchestrator.datasets.checks.workers import Answer, Task, answer, batches, cores, in_processes
from orchestrator.datasets.columns.column import Indices
from orchestrator.datasets.columns.hashes import Digests
from orchestrator.datasets.columns.numbers import Numbers
from orchestrator.datasets.columns.rows import Rows
from orchestrator.datasets.folder import names, snapshot
from orchestrator.datasets.folder.names import SetAside
from orchestrator.datasets.folder.reading import Missed
from orchestrator.datasets.folder.scan import Labelled, Scan
from orchestrator.datasets.folder.snapshot import Refused, Snapshot
from orchestrator.progress import Progress

_INLINE_FILES = 64  # so few are judged sooner than a process starts
_INLINE_S = 0.6  # what reading without decoding may take here, before processes are worth their start
_NOISY = (b".tif", b".tiff")  # libtiff writes to stderr by itself, so it is kept in a process without one
_KEPT_AT_ONCE = 4000  # files

T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    images: Images  # in path order
    unusable: list[SetAside]
    missed: list[SetAside]  # vanished or changed since the scan
    near: Near = NOTHING  # which of the images look the same


class Packing(Protocol):
    """Where the bytes of usable images go."""

    def needs(self, hashes: Digests) -> NDArray[np.bool_]:
        """Which of these contents are in no pack yet."""

    def expected(self, paths: Sequence[bytes]) -> Sequence[str]:
        """The content that each path had, if that needs no packing; else ""."""

    def add(self, sha256: str, extension: str, data: bytes) -> None:
        """Unless it is in a pack already."""


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
    now_ns = time.time_ns()
    before = snapshot.load(cache.folder, scan.root, cache.form)
    found = _Found(scan.files, before, packing)
    sizes = scan.files.numbers("size")
    with progress.bar("check", len(scan.files), "images") as bar:
        if len(found.todo) < len(scan.files):
            bar.advance(len(scan.files) - len(found.todo))
        try:
            new: list[tuple[str, Verdict | Unusable]] = []
            for at, tasks, answers in _answers(scan, found, cache, packing, processes):
                new += found.take(at, tasks, answers, packing)
                bar.advance(len(at), int(sizes[at].sum()))
                if len(new) >= _KEPT_AT_ONCE:
                    cache.keep(new)
                    new.clear()
        finally:
            cache.keep(new)
            images = found.images()
            if len(found.todo) or len(before.files) + len(before.refused) > found.known:
                snapshot.keep(cache.folder, scan.root, cache.form, images, found.refused, now_ns)
    unusable = sorted(found.unusable, key=lambda item: item.path)
    missed = sorted(found.missed, key=lambda item: item.path)
    conversion = Conversion.of(cache.how)
    near = near_copies(images, scan.root, progress, conversion=conversion, remembered=cache.folder)
    return Outcome(images, unusable, missed, near)


class _Found:
    """What is known of the files of a scan, more with each batch. Positions are those of the scan."""

    def __init__(self, files: Rows[Labelled], before: Snapshot, packing: Packing | None) -> None:
        self._files = files
        self._before = before
        self._row = before.unchanged(files)
        refused = before.still_refused(files)
        done = self._row >= 0
        self.known = int(done.sum()) + len(refused)  # rows of `before` that still hold
        if packing is not None:
            done[done] = ~packing.needs(before.verdicts.hashes("sha256")[self._row[done]])
        left = ~done
        left[list(refused)] = False
        self.todo: Indices = np.flatnonzero(left)
        self.unusable: list[SetAside] = []
        self.missed: list[SetAside] = []
        self.refused: list[Refused] = []
        self._same = Numbers.of(np.flatnonzero(done))  # positions of what holds
        self._new = Numbers()  # positions of what was judged
        self._verdicts = VERDICTS.rows()
        for position, reason in refused.items():
            self._refuse(position, reason)

    def tasks(self, at: Indices, packing: Packing | None) -> list[Task]:
        """What is asked of the files at these positions."""
        stats = self._files.picked(at, "path", "size", "mtime_ns", "inode")
        if packing is None:
            return [Task(*stat) for stat in stats]
        files = list(stats)
        contents = self._contents(self._row[at])
        expected = packing.expected([path for path, *_ in files])
        return [Task(*file, *more) for file, *more in zip(files, contents, expected, strict=True)]

    def _contents(self, rows: Indices) -> Iterable[str]:
        """What files held; "" where nobody knows, and of images that were converted, for they must be again."""
        if not (rows >= 0).any():
            return [""] * len(rows)
        before = self._before.verdicts.picked(np.maximum(rows, 0), "sha256", "size")
        known = zip(rows.tolist(), before, strict=True)
        return ["" if row < 0 or converted else sha256 for row, (sha256, converted) in known]

    def take(
        self, at: Indices, tasks: Sequence[Task], answers: Sequence[Answer], packing: Packing | None
    ) -> list[tuple[str, Verdict | Unusable]]:
        """What is new of it, by content."""
        extension = self._before.verdicts.columns["extension"]
        same, new, verdicts, judged = [], [], [], []
        for position, task, found in zip(at.tolist(), tasks, answers, strict=True):
            said = found.judged
            if said is None:
                same.append(position)
                if found.data is not None and packing is not None:
                    packing.add(task.known, extension[self._row[position]], found.data)
            elif isinstance(said, Missed):
                self.missed.append(SetAside(names.encode(task.path), said.reason))
            elif isinstance(said, Unusable):
                self._refuse(position, said.reason, is_sure=bool(found.sha256))
            else:
                new.append(position)
                verdicts.append(said)
                if found.data is not None and packing is not None:
                    packing.add(said.sha256, said.extension, found.data)
            if found.sha256 and isinstance(said, Verdict | Unusable):
                judged.append((found.sha256, said))
        self._same.extend(same)
        self._new.extend(new)
        self._verdicts.extend(verdicts)
        return judged

    def _refuse(self, position: int, reason: str, *, is_sure: bool = True) -> None:
        """`is_sure`: of what it holds, not of whether it can be read just now."""
        file = self._files[position]
        self.unusable.append(SetAside(names.encode(file.path), reason))
        if is_sure:
            self.refused.append(Refused(*file[:4], reason))

    def images(self) -> Images:
        same, new = self._same.array(), self._new.array()
        held = _taken(self._before.verdicts, self._row[same])
        positions = np.concatenate([same, new])
        order = np.argsort(positions, kind="stable")
        verdicts = (
            held.joined(self._verdicts) if len(held) and len(new) else held if len(held) else self._verdicts
        )
        return Images(_taken(self._files, positions[order]), _taken(verdicts, order))


def _taken(rows: Rows[T], at: Indices) -> Rows[T]:
    """These rows; without a copy where they are all."""
    return rows if np.array_equal(at, np.arange(len(rows))) else rows.take(at)


def _answers(
    scan: Scan, found: _Found, cache: Cache, packing: Packing | None, processes: int | None
) -> Iterator[tuple[Indices, list[Task], list[Answer]]]:
    """Positions, what was asked of them, and what is answered."""
    root = os.fsencode(scan.root)
    few = len(found.todo) <= _INLINE_FILES and not any(
        scan.files[at].path.lower().endswith(_NOISY) for at in found.todo.tolist()
    )
    workers = processes if processes is not None else 0 if few else cores()
    parts = batches(scan.files.numbers("size")[found.todo].tolist(), workers)
    todo = deque(found.todo[part] for part in parts)
    if processes is None and not few:
        for tasks, answers in _without_decoding(root, todo, found, cache, packing):
            yield todo.popleft(), tasks, answers
    asked = ((at, found.tasks(at, packing)) for at in todo)
    if workers and todo:
        yield from in_processes(root, asked, min(workers, len(todo)), cache)
    else:
        for at, tasks in asked:
            yield at, tasks, answer(root, tasks, cache)


def _without_decoding(
    root: bytes, todo: Sequence[Indices], found: _Found, cache: Cache, packing: Packing | None
) -> Iterator[tuple[list[Task], list[Answer]]]:
    """The first batches, as long as all their content is known, and as there is too little left for processes."""
    began = time.monotonic()
    for done, at in enumerate(tuple(todo)):
        spent_s = time.monotonic() - began
        if done and spent_s / done * len(todo) > _INLINE_S:
            return
        tasks = found.tasks(at, packing)
        answers = answer(root, tasks, cache, decode=False)
        if any(
            one.judged is None and one.sha256 != task.known for one, task in zip(answers, tasks, strict=True)
        ):
            return
        yield tasks, answers
