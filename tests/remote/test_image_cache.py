"""Decoded images are kept within a limit, then on disk, then not at all; each is decoded once as long as there is room."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from remote.contract import document
from remote.contract.metrics import Metrics
from remote.images import data, image_cache
from remote.images.augmentation import Augmentation
from remote.images.image_cache import ImageCache, free_memory_bytes
from remote.images.preprocessing import Pixels, of_weights, with_image_size
from remote.train import main
from remote.training import precision
from remote.training.loading import Loader
from remote.training.trainee import Batch, Labelled
from tests.remote import fixtures
from tests.remote.drawn import draw
from tests.remote.test_training import RECIPE


def noise(number: int, side: int = 100) -> Pixels:
    return np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)


class Counted:
    def __init__(self) -> None:
        self.made = 0

    def get(self, cache: ImageCache, number: int) -> Pixels:
        def make() -> Pixels:
            self.made += 1
            return noise(number)

        return cache.get(number, make)


def open_files() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


def test_what_does_not_fit_into_memory_comes_back_from_disk(tmp_path: Path) -> None:
    cache, counted = ImageCache(70_000, tmp_path), Counted()
    for _ in range(3):
        for number in range(5):
            assert np.array_equal(counted.get(cache, number), noise(number))
    assert (counted.made, cache.memory_bytes, cache.disk_bytes) == (5, 60_000, 90_000)
    assert not list(tmp_path.iterdir())  # the file has no name
    before = open_files()
    cache.close()
    assert open_files() == before - 1


def test_without_room_anywhere_it_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_cache, "_DISK_RESERVE_BYTES", 1 << 60)  # as if the disk were nearly full
    for folder in (None, tmp_path):
        cache, counted = ImageCache(30_000, folder), Counted()
        for _ in range(2):
            for number in range(3):
                assert np.array_equal(counted.get(cache, number), noise(number))
        assert (counted.made, cache.memory_bytes, cache.disk_bytes) == (5, 30_000, 0)
        assert ("disk" in cache.trouble) == (folder is not None)
        cache.close()


def test_threads_share_it(tmp_path: Path) -> None:
    cache = ImageCache(100_000, tmp_path)
    gate = threading.Barrier(8)

    def work(first: int) -> None:
        gate.wait()
        for number in range(40):
            chosen = (number + first) % 40
            found = cache.get(chosen, partial(noise, chosen, 50))
            assert np.array_equal(found, noise(chosen, 50))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert cache.memory_bytes == 97_500
    assert cache.memory_bytes + cache.disk_bytes == 40 * 7_500
    cache.close()


def test_free_memory_is_known() -> None:
    assert 10**6 < free_memory_bytes() < 10**14


@pytest.fixture
def labelled(tmp_path: Path) -> tuple[Labelled, data.Reader, ImageCache]:
    """Nineteen images of several sizes; memory for about half of them."""
    machine = fixtures.home(tmp_path / "home")
    for number in range(19):
        path = tmp_path / "images" / "train" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(number, 20 + 3 * number)).save(path)
    dataset = fixtures.pack_folder(machine, tmp_path / "images")
    images = dataset.manifest.images
    cache = ImageCache(30_000, tmp_path)
    labels = np.array([image.class_name == "b" for image in images], dtype=np.int64)
    return Labelled(images, labels), data.Reader(dataset.manifest, data.Packs(machine.pack), cache), cache


def loader(train: Labelled, reader: data.Reader, workers: int) -> Loader:
    spec = with_image_size(of_weights("resnet18"), 32)
    return Loader(train, RECIPE, spec, reader, torch.device("cpu"), workers)


def equal(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a.inputs, b.inputs) and torch.equal(a.labels, b.labels)
        for a, b in zip(one, other, strict=True)
    )


def test_batches_depend_on_epoch_and_step_alone(labelled: tuple[Labelled, data.Reader, ImageCache]) -> None:
    train, reader, cache = labelled
    once = list(loader(train, reader, 1).epoch(4, 0))
    assert [len(batch.labels) for batch in once] == [8, 8, 3]
    assert once[0].inputs.shape == (8, 3, 32, 32)
    assert once[0].inputs.is_contiguous(memory_format=torch.channels_last)
    for workers in (1, 2, 4):
        assert equal(list(loader(train, reader, workers).epoch(4, 0)), once)
        assert equal(list(loader(train, reader, workers).epoch(4, 2)), once[2:])
    assert not equal(list(loader(train, reader, 2).epoch(5, 0)), once)
    assert reader.decoded == 19  # in the first epoch
    assert cache.disk_bytes > 0
    assert cache.memory_bytes <= 30_000


def test_a_batch_says_whose_images_it_holds(labelled: tuple[Labelled, data.Reader, ImageCache]) -> None:
    train, reader, _ = labelled
    one = loader(train, reader, 2)
    shown = [image for step in range(one.steps) for image in one.images(3, step)]
    assert sorted(image.path for image in shown) == sorted(image.path for image in train.images)
    labels = torch.cat([batch.labels for batch in one.epoch(3, 0)])
    assert labels.tolist() == [int(image.class_name == "b") for image in shown]


def test_images_that_steer_are_decoded_once(labelled: tuple[Labelled, data.Reader, ImageCache]) -> None:
    train, reader, _ = labelled
    one = loader(train, reader, 2)
    first = torch.cat(list(one.plain(train.images)))
    assert torch.equal(torch.cat(list(one.plain(train.images))), first)
    assert reader.decoded == 19


def test_what_is_decoded_for_something_else_is_kept_too(
    labelled: tuple[Labelled, data.Reader, ImageCache],
) -> None:
    train, reader, _ = labelled
    one = loader(train, reader, 2)
    seen = Augmentation.of(train.images, one.spec, RECIPE.augmentation, RECIPE.flips)
    with reader.keeping(seen.name, seen.source):
        for image in train.images:
            reader.pixels(image, one.spec)  # as features are computed from
    list(one.epoch(0, 0))
    assert reader.decoded == 19


def test_threads_that_load_leave_those_of_the_training_alone(
    labelled: tuple[Labelled, data.Reader, ImageCache],
) -> None:
    train, reader, _ = labelled
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        list(loader(train, reader, 4).epoch(0, 0))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_leaving_an_epoch_early_leaves_no_thread(labelled: tuple[Labelled, data.Reader, ImageCache]) -> None:
    train, reader, _ = labelled
    batches = loader(train, reader, 4).epoch(0, 0)
    next(batches)
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


@pytest.mark.parametrize(
    ("flags", "has"),
    [("fpu avx2", False), ("fpu avx512f avx512_bf16 sse", True), ("amx_bf16", True), ("avx512_bf16x", False)],
)
def test_processors_without_bfloat16_are_known(tmp_path: Path, flags: str, has: bool) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    assert bool(precision._cpu_flags(path) & precision._CPU_INSTRUCTIONS) == has


def test_precision_is_what_was_asked_for() -> None:
    cpu, apple = torch.device("cpu"), torch.device("mps")
    assert precision.training_precision(cpu, "fp32") == torch.float32
    assert precision.training_precision(cpu, "bf16") == torch.bfloat16
    assert precision.training_precision(apple, "auto") == torch.float32
    auto = torch.bfloat16 if precision.multiplies_bfloat16(cpu) else torch.float32
    assert precision.training_precision(cpu, "auto") == auto
    layer = torch.nn.Linear(4, 4)
    with precision.mixed(cpu, torch.bfloat16):
        assert layer(torch.ones(1, 4)).dtype == torch.bfloat16
    with precision.mixed(cpu, torch.float32):
        assert layer(torch.ones(1, 4)).dtype == torch.float32


def test_fine_tuning_decodes_each_image_once_for_its_classifier_and_its_epochs(tmp_path: Path) -> None:
    machine = fixtures.home(tmp_path / "home")
    dataset = fixtures.pack_folder(machine, draw(tmp_path / "images", train=20, val=5))
    found = []
    for tail, epochs in (("aaaa", 1), ("bbbb", 2)):
        run = fixtures.put_run(
            machine, dataset, scenario="fine-tune-all", image_size=32, epochs=epochs, tail=tail, cache_gb=0.0
        )
        assert main(run.spec) == 0
        metrics = document.decode(Metrics, (run.result / "metrics.json").read_bytes(), what="metrics.json")
        found.append(metrics.counters.decoded)
    assert found == [50, 50]  # those of the sample page among them
