"""Images out of packs: read by offset, decoded in threads, handed over in batches.

Nothing is unpacked. A pack was verified against its hash when it was fetched; here only sizes are checked.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from PIL import Image as Pillow

from remote.contract.dataset_manifest import DatasetManifest, Image
from remote.errors import CannotRun
from remote.images.decoding import Unreadable, decode
from remote.images.image_cache import ImageCache
from remote.images.preprocessing import Pixels, Preprocessing, pixels

T = TypeVar("T")
R = TypeVar("R")
_AHEAD = 2  # batches or groups


class Packs:
    """The packs of one dataset version, opened when first needed. Safe to use from threads.

    Read at offsets rather than mapped: mapped pages count as memory of the process, a whole pack of them.
    """

    def __init__(self, path_of: Callable[[str], Path]) -> None:
        self._path_of = path_of
        self._open: dict[str, int] = {}
        self._lock = threading.Lock()

    def read(self, image: Image) -> bytes:
        """The file's bytes. CannotRun when the pack is missing or too short."""
        try:
            data = os.pread(self._descriptor(image.pack), image.size, image.offset)
        except OSError as error:
            raise CannotRun(
                f"Pack {image.pack[:12]} is not on this machine, or can't be read: {error}"
            ) from None
        if len(data) != image.size:
            raise CannotRun(
                f"{image.path}: pack {image.pack[:12]} ends before the image does. Upload the dataset again."
            )
        return data

    def close(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def _descriptor(self, pack: str) -> int:
        with self._lock:
            if pack not in self._open:
                self._open[pack] = os.open(self._path_of(pack), os.O_RDONLY | os.O_CLOEXEC)
            return self._open[pack]


@dataclass(frozen=True)
class _Also:
    """What is kept of an image besides, whatever it is decoded for."""

    what: Hashable
    make: Callable[[Pillow.Image], Pixels]
    only: frozenset[tuple[str, int]] | None  # content and page of the images; None: all


class Reader:
    """Decodes the images of a manifest and counts how many it has decoded.

    cache   of what `kept` has made; without one everything is made anew
    """

    def __init__(self, manifest: DatasetManifest, packs: Packs, cache: ImageCache | None = None) -> None:
        self._window = manifest.intensity_window
        self._packs = packs
        self._cache = cache or ImageCache(0, None)
        self._lock = threading.Lock()
        self._also: list[_Also] = []
        self.decoded = 0

    def rgb(self, image: Image) -> Pillow.Image:
        """Upright RGB pixels. CannotRun, naming the image, when it can't be read."""
        try:
            rgb = decode(self._packs.read(image), page=image.page, window=self._window)
        except Unreadable as error:
            raise CannotRun(
                f"{image.path} can't be read: {error}. Repair or remove it, and upload the dataset again."
            ) from None
        with self._lock:
            self.decoded += 1
        for also in self._also:
            if also.only is None or (image.sha256, image.page) in also.only:
                self._cache.get((image.sha256, image.page, also.what), partial(also.make, rgb))
        return rgb

    @contextmanager
    def keeping(self, what: Hashable, make: Callable[[Pillow.Image], Pixels]) -> Iterator[None]:
        """While it lasts, each image that is decoded for whatever is also kept for `kept`: it is not decoded again."""
        also = _Also(what, make, None)
        self._also.append(also)
        try:
            yield
        finally:
            self._also.remove(also)

    def keep(self, what: Hashable, make: Callable[[Pillow.Image], Pixels], images: Iterable[Image]) -> None:
        """The same of these images alone, from now on."""
        self._also.append(_Also(what, make, frozenset((image.sha256, image.page) for image in images)))

    def pixels(self, image: Image, spec: Preprocessing) -> Pixels:
        """As a network sees it, (crop, crop, 3). CannotRun when it can't be read."""
        return pixels(spec, self.rgb(image))

    def kept(self, image: Image, what: Hashable, make: Callable[[Pillow.Image], Pixels]) -> Pixels:
        """What `make` makes of the image, which is then found under `what`. CannotRun when it can't be read."""
        return self._cache.get((image.sha256, image.page, what), lambda: make(self.rgb(image)))


@dataclass(frozen=True)
class Batch(Generic[T, R]):
    items: Sequence[T]
    loaded: list[R]  # what each item was loaded as


def batches(
    items: Sequence[T], load: Callable[[T], R], *, batch_size: int, workers: int
) -> Iterator[Batch[T, R]]:
    """The items in their order, loaded by `workers` threads at most two batches ahead of what is used.

    Threads, not processes: Pillow works outside the interpreter's lock, and nothing has to be copied between them.
    """
    waiting: deque[Future[R]] = deque()
    todo = iter(items)
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            for start in range(0, len(items), batch_size):
                group = items[start : start + batch_size]
                some = itertools.islice(todo, _AHEAD * batch_size - len(waiting))
                waiting.extend(pool.submit(load, item) for item in some)
                yield Batch(group, [waiting.popleft().result() for _ in group])
        finally:
            for future in waiting:
                future.cancel()


def ahead(
    groups: Iterable[tuple[T, Sequence[Callable[[], object]]]],
    *,
    workers: int,
    begin: Callable[[], object] = lambda: None,
) -> Iterator[T]:
    """Each group's own, once all of its jobs are done by threads; at most two groups are worked on ahead.

    A group is asked for when its turn to be worked on has come, so what it holds may be large.
    begin   called by each thread before its first job
    """
    waiting: deque[tuple[T, list[Future[object]]]] = deque()
    todo = iter(groups)
    with ThreadPoolExecutor(workers, thread_name_prefix="decode", initializer=begin) as pool:
        try:
            while True:
                for own, jobs in itertools.islice(todo, _AHEAD + 1 - len(waiting)):
                    waiting.append((own, [pool.submit(job) for job in jobs]))
                if not waiting:
                    return
                own, futures = waiting.popleft()
                for future in futures:
                    future.result()
                yield own
        finally:
            for _, futures in waiting:
                for future in futures:
                    future.cancel()


def worker_count(asked: int) -> int:
    """Threads that decode: what was asked, or a core each, at most 16."""
    return asked or min(16, usable_cores())


def usable_cores() -> int:
    """The cores that this process may use, which in a container are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1
