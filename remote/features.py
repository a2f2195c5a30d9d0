"""The features of every image: each decoded once, each passed through the frozen network once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from .backbones import Network
from .contract.dataset_manifest import Image
from .data import Reader, batches
from .errors import Stopped
from .preprocessing import Preprocessing, network_input


@dataclass(frozen=True)
class Extraction:
    """What came out, and the work that it took."""

    features: NDArray[np.float32]  # images, feature_count
    forwarded: int  # images passed through the network
    seconds: float

    @property
    def images_per_s(self) -> float:
        return self.forwarded / max(self.seconds, 1e-9)


def extract(
    network: Network,
    images: Sequence[Image],
    reader: Reader,
    spec: Preprocessing,
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
    on_progress: Callable[[int], None] = lambda done: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Extraction:
    """The network, whose head was removed and which is frozen, on every image, in their order.

    Threads decode the next batches while one is on its way through the network.
    Memory: the features, two decoded batches, and what the network needs for one batch.
    Stopped     between two batches, when `should_stop` says so
    CannotRun   an image that can't be read, by name
    """
    began = time.perf_counter()
    features = np.empty((len(images), network.feature_count), dtype=np.float32)
    done = 0
    with torch.inference_mode():
        for batch in batches(
            images, lambda image: reader.pixels(image, spec), batch_size=batch_size, workers=workers
        ):
            if should_stop():
                raise Stopped("while features were extracted")
            rows = network.module(network_input(spec, np.stack(batch.loaded), device)).flatten(1)
            features[done : done + len(rows)] = rows.float().cpu().numpy()
            done += len(rows)
            on_progress(done)
    return Extraction(features, done, time.perf_counter() - began)
