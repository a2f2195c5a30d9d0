"""The features of every image, at every depth: each decoded once, each passed through the frozen network once.

What this machine has computed before is not computed again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from remote.contract.dataset_manifest import Image
from remote.errors import Stopped
from remote.features.feature_cache import FeatureCache, Floats32
from remote.features.views import CENTRE, View, seen
from remote.images.data import Reader, batches
from remote.images.preprocessing import Pixels, Preprocessing, network_input
from remote.networks import depths, memory
from remote.networks.backbones import Network, pass_without_numbers

_KEEP_EVERY_ROWS = 4096
KEEP_EVERY_S = 30.0  # what is computed goes to the disk this often: a run that is killed loses no more
_BATCH_MIN = 8  # a shorter batch is filled up: for one image, other code gives other last bits than for many


@dataclass(frozen=True)
class Row:
    """One image, looked at in one way."""

    image: Image
    view: View = CENTRE

    @property
    def name(self) -> str:
        """The same bytes looked at in the same way have the same name, whatever the file is called."""
        return f"{self.image.sha256}:{self.image.page}:{self.view.name}"


@dataclass(frozen=True)
class Extraction:
    """What came out, and the work that it took."""

    blocks: Mapping[str, Floats32]  # each (rows, width)
    forwarded: int  # rows passed through the network
    found: int  # rows that this machine had computed before
    seconds: float
    trouble: str = ""  # why the features could not be kept for later runs
    at_a_time: int = 0  # images that passed together where memory did not allow the whole batch; 0: it did

    @property
    def features(self) -> Floats32:
        """What the head is given."""
        return self.blocks[depths.LAST]

    @property
    def images_per_s(self) -> float:
        return (self.forwarded or self.found) / max(self.seconds, 1e-9)


def extract(
    network: Network,
    images: Sequence[Image | Row],
    reader: Reader,
    spec: Preprocessing,
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
    ends: Sequence[str] = (),
    cache: FeatureCache | None = None,
    wanted: Sequence[str] | None = None,
    keep_every_s: float = KEEP_EVERY_S,
    on_progress: Callable[[int], None] = lambda done: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Extraction:
    """The network, whose head was removed and which is frozen, on every image (or view of one), in their order.

    Threads decode the next batches while one is on its way through the network. Equal images pass once. Whole batches
    are kept, so a run that was killed makes the same batches of what is left, and so the same bits: in another batch
    an image's last bits differ in some networks.
    Memory: the wanted blocks, what half a minute computes, two decoded batches, the network's own for one batch.
    ends        modules whose outputs are pooled on the way
    wanted      the blocks that are given back; None: all. The others go to the cache only
    Stopped     between two batches, when `should_stop` says so; what is computed is kept
    Out of memory   fewer images pass at a time, and the extraction says how many
    CannotRun   an image that can't be read, by name; one image of this size does not fit into memory
    """
    began = time.perf_counter()
    rows = [image if isinstance(image, Row) else Row(image) for image in images]
    cache = cache or FeatureCache.nowhere()
    names = [row.name for row in rows]
    widths = _widths(network, ends, spec)
    blocks = {
        name: np.empty((len(rows), width), np.float32)
        for name, width in widths.items()
        if wanted is None or name in wanted
    }
    first: dict[str, int] = {}
    again = [index for index, name in enumerate(names) if first.setdefault(name, index) != index]
    here = cache.find(list(first), widths)
    known = [name for name in first if name in here]
    copied = cache.read(known, blocks, [first[name] for name in known])
    todo = [index for name, index in first.items() if name not in copied]
    keep = _Keeping(cache, names, widths, batch_size, keep_every_s)

    def load(index: int) -> Pixels:
        return seen(rows[index].view, spec, rows[index].image, reader.rgb(rows[index].image))

    at_a_time = max(batch_size, _BATCH_MIN)
    done = len(rows) - len(todo)
    on_progress(done)
    with torch.inference_mode(), depths.watched(network, ends) as watched:
        for batch in batches(todo, load, batch_size=batch_size, workers=workers):
            if should_stop():
                keep.now()
                raise Stopped("while features were extracted")
            count = len(batch.items)
            filled = network_input(spec, _filled(batch.loaded), device)
            passed, at_a_time = _passed(network, watched, filled, widths, at_a_time)
            values = {name: block[:count] for name, block in passed.items()}
            for name, block in blocks.items():
                block[list(batch.items)] = values[name]
            keep.add(batch.items, values)
            done += count
            on_progress(done)
    keep.now()
    for block in blocks.values():
        block[again] = block[[first[names[index]] for index in again]]
    halved = at_a_time if at_a_time < max(batch_size, _BATCH_MIN) else 0
    return Extraction(blocks, len(todo), len(copied), time.perf_counter() - began, keep.trouble, halved)


def _passed(
    network: Network, watched: dict[str, Tensor], inputs: Tensor, names: Iterable[str], at_a_time: int
) -> tuple[dict[str, Floats32], int]:
    """What the network makes of a batch, and how many images may pass together: fewer where memory ran out."""
    while True:
        parts: dict[str, list[Floats32]] = {name: [] for name in names}
        try:
            for part in memory.parts(inputs, at_a_time):
                watched[depths.LAST] = network.module(part).flatten(1)
                for name, found in parts.items():
                    found.append(_numbers(watched[name]))
            return {name: np.concatenate(found) for name, found in parts.items()}, at_a_time
        except RuntimeError as error:
            if not memory.ran_out(error):
                raise
        at_a_time = memory.halved(min(at_a_time, len(inputs)), inputs.device)


class _Keeping:
    """Gathers what is computed and hands it to the cache now and then. A disk that is full ends that, not the run.

    Gathered in arrays made beforehand: small ones that outlive a batch would lie between the large ones of the
    network, whose memory could then not be used again, and the process grew with every batch.
    """

    def __init__(
        self,
        cache: FeatureCache,
        names: Sequence[str],
        widths: Mapping[str, int],
        batch_size: int,
        every_s: float,
    ) -> None:
        self.trouble = ""
        self._cache = cache
        self._names = names
        self._every_s = every_s
        rows = min(max(_KEEP_EVERY_ROWS, batch_size), len(names)) if cache.bytes_max else 0
        self._gathered = {name: np.empty((rows, width), np.float32) for name, width in widths.items()}
        self._room = rows
        self._rows: list[int] = []
        self._kept = time.monotonic()

    def add(self, rows: Sequence[int], values: Mapping[str, Floats32]) -> None:
        if self._room == 0 or self.trouble:
            return
        if len(self._rows) + len(rows) > self._room:
            self.now()
        start = len(self._rows)
        for name, array in self._gathered.items():
            array[start : start + len(rows)] = values[name]
        self._rows += rows
        if time.monotonic() - self._kept > self._every_s:
            self.now()

    def now(self) -> None:
        if not self._rows:
            return
        names = [self._names[row] for row in self._rows]
        try:
            self._cache.write(names, {name: array[: len(names)] for name, array in self._gathered.items()})
        except OSError as error:
            self.trouble = str(error)
        self._rows = []
        self._kept = time.monotonic()


def _widths(network: Network, ends: Sequence[str], spec: Preprocessing) -> dict[str, int]:
    """The width of each block."""
    with torch.inference_mode(), depths.watched(network, ends) as watched:
        pass_without_numbers(network.module, spec.crop)
    widths = {name: block.shape[1] for name, block in watched.items()}
    return {**widths, depths.LAST: network.feature_count}


def _filled(loaded: Sequence[Pixels]) -> NDArray[np.uint8]:
    return np.stack([*loaded, *[loaded[-1]] * (_BATCH_MIN - len(loaded))])


def _numbers(rows: Tensor) -> Floats32:
    return np.asarray(rows.float().cpu().numpy())
