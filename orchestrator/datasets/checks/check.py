"""Read, hash and decode the files of a dataset once, in worker processes on all cores, and hand on what is to be packed.

What is known is not read again. A worker holds a batch of files at a time, answers come back in path order, and
no more than a few batches are on their way, so memory does not grow with the images. A file on which a decoder crashes
(and takes its process along) is found and named.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from orchestrator.datasets.checks.batch import Answers, Batch, answer, answer_known, batches
from orchestrator.datasets.checks.cache import Cache
from orchestrator.datasets.checks.checked import VERDICTS, Images
from orchestrator.datasets.checks.confirm import near_copies
from orchestrator.datasets.checks.convert import Conversion
from orchestrator.datasets.checks.judge import Unusable, Verdict
from orchestrator.datasets.checks.near import NOTHING, Near
from orchestrator.datasets.checks.workers import cores, in_processes, load_ahead
from orchestrator.datasets.columns.column import Indices
from orchestrator.datasets.columns.hashes import Digests
from orchestrator.datasets.columns.numbers import Numbers
from orchestrator.datasets.columns.rows import Rows
from orchestrator.datasets.folder import names, snapshot
from orchestrator.datasets.folder.names import SetAside
from orchestrator.datasets.folder.reading import Missed
from orchestrator.datasets.folder.scan import Labelled, Scan
from orchestrator.datasets.folder.snapshot import Refused, Snapshot
from orchestrator.datasets.packs.member import HASH_BYTES, Members
from orchestrator.progress import Progress

_INLINE_FILES = 64  # so few are judged sooner than a process starts
_INLINE_S = 0.6  # what reading without decoding may take here, before processes are worth their start
_NOISY = (b".tif", b".tiff")  # libtiff writes to stderr by itself, so it is kept in a process without one
_KEPT_AT_ONCE = 20_000  # files: verdicts are written by their hash, all over the cache
_KEPT_EVERY_S = 5.0  # so much work a kill may cost

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

    def expected(self, paths: Sequence[bytes]) -> bytes:
        """The hash of the content that each path had, if that needs no packing; else zeros."""

    def add(self, members: Members) -> None:
        """Those that are in no pack yet."""

    def close(self) -> None:
        """No image comes any more."""


def prepare(scan: Scan, cache: Cache) -> None:
    """Begin what takes a moment where a folder is new, as soon as it is clear that `check` will be called."""
    if len(scan.files) > _INLINE_FILES and not snapshot.is_kept(cache.folder, scan.root, cache.form):
        load_ahead()


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
            due = time.monotonic() + _KEPT_EVERY_S
            for at, answers in _answers(scan, found, cache, packing, processes):
                new += found.take(at, answers)
                if packing is not None:
                    packing.add(answers.members)
                bar.advance(len(at), int(sizes[at].sum()))
                if len(new) >= _KEPT_AT_ONCE or time.monotonic() > due:
                    cache.keep(new)
                    new.clear()
                    due = time.monotonic() + _KEPT_EVERY_S
            if packing is not None:
                packing.close()
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

    def batch(self, at: Indices, packing: Packing | None) -> Batch:
        """What is asked of the files at these positions."""
        paths = list(self._files.columns["path"].take(at))
        sizes, times, inodes = (self._files.numbers(name)[at] for name in ("size", "mtime_ns", "inode"))
        known, extensions = self._known(self._row[at])
        return Batch(
            b"\0".join(paths),
            sizes.tobytes(),
            times.tobytes(),
            inodes.tobytes(),
            known.tobytes(),
            extensions,
            packing.expected(paths) if packing is not None else None,
        )

    def _known(self, rows: Indices) -> tuple[Digests, list[str]]:
        """What files held, but images that were converted: they must be again."""
        known = np.zeros(len(rows), dtype=f"S{HASH_BYTES}")
        if not (rows >= 0).any():
            return known, [""] * len(rows)
        before = self._before.verdicts
        codes, sizes = before.codes("size")  # 0: not converted
        held = (rows >= 0) & (np.array(sizes)[codes[rows]] == 0)
        known[held] = before.hashes("sha256")[rows[held]]
        return known, list(before.columns["extension"].take(np.maximum(rows, 0)))

    def take(self, at: Indices, answers: Answers) -> list[tuple[str, Verdict | Unusable]]:
        """What is new of it, by content."""
        self._same.extend(at[answers.known].tolist())
        self._new.extend(at[answers.usable].tolist())
        for name, values in zip(Verdict._fields, answers.verdicts, strict=True):
            self._verdicts.columns[name].extend(values)
        judged: list[tuple[str, Verdict | Unusable]] = []
        judged += zip(answers.contents, map(Verdict, *answers.verdicts), strict=True)
        for place, (sha256, said) in answers.others.items():
            position = int(at[place])
            if isinstance(said, Missed):
                self.missed.append(SetAside(names.encode(self._files[position].path), said.reason))
                continue
            self._refuse(position, said.reason, is_sure=bool(sha256))
            if sha256:
                judged.append((sha256, said))
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
) -> Iterator[tuple[Indices, Answers]]:
    """What is answered, and the positions of the files."""
    root = os.fsencode(scan.root)
    few = len(found.todo) <= _INLINE_FILES and not any(
        scan.files[at].path.lower().endswith(_NOISY) for at in found.todo.tolist()
    )
    workers = processes if processes is not None else 0 if few else cores()
    parts = batches(scan.files.numbers("size")[found.todo].tolist(), workers)
    todo = deque(found.todo[part] for part in parts)
    if processes is None and not few:
        for answers in _without_decoding(root, todo, found, cache, packing):
            yield todo.popleft(), answers
    asked = ((at, found.batch(at, packing)) for at in todo)
    if workers and todo:
        yield from in_processes(root, asked, min(workers, len(todo)), cache)
    else:
        for at, batch in asked:
            yield at, answer(root, batch, cache)


def _without_decoding(
    root: bytes, todo: Sequence[Indices], found: _Found, cache: Cache, packing: Packing | None
) -> Iterator[Answers]:
    """The first batches, as long as all their content is known, and as there is too little left for processes."""
    began = time.monotonic()
    for done, at in enumerate(tuple(todo)):
        spent_s = time.monotonic() - began
        if done and spent_s / done * len(todo) > _INLINE_S:
            return
        answers = answer_known(root, found.batch(at, packing), cache)
        if answers is None:
            return
        yield answers
