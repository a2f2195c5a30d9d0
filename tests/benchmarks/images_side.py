"""A side of `images`: the batches of two epochs, taken and dropped, and those of a third, taken slowly."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from remote.images.data import Packs, Reader
from remote.images.image_cache import ImageCache
from remote.images.preprocessing import of_weights, with_image_size
from remote.training.loading import Loader
from remote.training.recipe import Recipe
from remote.training.trainee import Labelled
from tests.benchmarks.measure import report
from tests.remote import fixtures

_STEP_S = 0.1  # as if a network were busy, so that as many batches wait on every side, however fast it loads
RECIPE = Recipe(
    epochs=2,
    batch_size=8,
    learning_rate=1e-3,
    first_layers_rate=1.0,
    weight_decay=0.0,
    warmup_epochs=0.0,
    label_smoothing=0.0,
    mixup=0.0,
    ema_epochs=0.0,
    balanced=False,
    augmentation="light",
    flips="horizontal",
    patience=1,
    seed=0,
)


def main(arguments: list[str]) -> None:
    asked = json.loads(arguments[0])
    torch.set_num_threads(int(arguments[1]))
    with tempfile.TemporaryDirectory(prefix="tlvm-bench-") as folder:
        machine = fixtures.home(Path(folder, "home"))
        dataset = fixtures.pack_folder(machine, Path(asked["photos"]))
        cache = ImageCache(1_000_000 * asked["memory_mb"], machine.cache)
        reader = Reader(dataset.manifest, Packs(machine.pack), cache)
        images = [image for image in dataset.manifest.images if image.split == "train"]
        loader = Loader(
            Labelled(images, np.zeros(len(images), dtype=np.int64)),
            RECIPE,
            with_image_size(of_weights("resnet18"), asked["image_size"]),
            reader,
            torch.device("cpu"),
            int(arguments[1]),
        )

        def work() -> Mapping[str, Any]:
            speeds = []
            for epoch in range(2):
                began = time.perf_counter()
                count = sum(len(batch.labels) for batch in loader.epoch(epoch, 0))
                speeds.append(count / (time.perf_counter() - began))
            for _ in loader.epoch(2, 0):
                time.sleep(_STEP_S)
            return {
                "images": len(images),
                "decoded": reader.decoded,
                "images_per_s": speeds,
                "memory_bytes": cache.memory_bytes,
                "disk_bytes": cache.disk_bytes,
            }

        report(work)


if __name__ == "__main__":
    main(sys.argv[1:])
