"""What each scenario promises about its work, counted from outside: what is frozen, and how often an image is looked at.

fixed-extractor, initial-layers     all but the classifier stays to the bit; each image decoded once, passed once
fine-tune-top                       what is before the cut stays to the bit, and is never run again once activations
                                    are kept, however many epochs follow
fine-tune-all, from-scratch         nothing is frozen; each train image is learned from once an epoch, and later
                                    epochs decode nothing
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from remote.contract.layout import MachineHome
from remote.networks import backbones
from remote.train import main
from tests.remote import fixtures

MODEL = "mobilenet_v3_small"  # its normalisation would move where it is left in training mode
TRAIN, VAL, TEST = 20, 10, 10
ALL = TRAIN + VAL + TEST  # a multiple of the batch: a short one would be filled up


@dataclass
class Seen:
    """By this process, in all its threads."""

    decoded: int = (
        0  # calls of Pillow's open in threads, which is where all are made that nothing else has made before
    )
    passed: Counter[bool] = field(
        default_factory=Counter
    )  # images at the first convolution; True: to learn from


@contextmanager
def watched() -> Iterator[Seen]:
    seen, lock = Seen(), threading.Lock()

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code is Image.open.__code__:
            with lock:
                seen.decoded += 1

    def hook(module: torch.nn.Module, given: tuple[torch.Tensor, ...], _: object) -> None:
        if isinstance(module, torch.nn.Conv2d) and module.in_channels == 3 and given[0].device.type != "meta":
            seen.passed[module.training] += len(given[0])

    handle = torch.nn.modules.module.register_module_forward_hook(hook)
    threading.setprofile(
        profile
    )  # of threads that begin from here on: this one would become several times slower
    try:
        yield seen
    finally:
        threading.setprofile(None)
        handle.remove()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in (("train", TRAIN), ("val", VAL), ("test", TEST)):
        for label, name in enumerate(("birch", "oak")):
            (folder / split / name).mkdir(parents=True)
            for number in range(count // 2):
                pixels = generator.integers(0, 120, (40, 40, 3))
                pixels[:, :, label] += 100
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / name / f"{split}{number}.png")
    return folder


@pytest.fixture
def machine(tmp_path: Path) -> MachineHome:
    torch.set_num_threads(1)
    return fixtures.home(tmp_path / "home")


def run(machine: MachineHome, images: Path, scenario: str, **parameters: Any) -> tuple[Seen, Path]:
    """What was seen, and the result. Nothing that another run has computed is found."""
    dataset = fixtures.pack_folder(machine, images)
    wanted: dict[str, Any] = {"model": MODEL, "image_size": 32, "batch_size": 10, "cache_gb": 0.0}
    if scenario == "from-scratch":
        del wanted["cache_gb"]
    folder = fixtures.put_run(machine, dataset, scenario=scenario, **(wanted | parameters))
    with watched() as seen:
        assert main(folder.spec) == 0, folder.events.read_text()
    counters = json.loads((folder.result / "metrics.json").read_text())["counters"]
    assert counters["decoded"] == seen.decoded, "more was decoded, for the sample page"
    return seen, folder.result


def moved(result: Path) -> set[str]:
    """The tensors of the model that are not those that the run began with."""
    start = backbones.build(MODEL, 2, seed=0).module.state_dict()
    found = load_file(result / "model" / "model.safetensors")
    return {name for name, value in found.items() if name not in start or not torch.equal(value, start[name])}


@pytest.mark.parametrize(
    ("scenario", "trained"),
    [
        ("fixed-extractor", {"classifier.3.weight", "classifier.3.bias"}),
        ("initial-layers", {"stages_head.weight", "stages_head.bias"}),
    ],
)
def test_a_frozen_network_stays_to_the_bit_and_sees_each_image_once(
    machine: MachineHome, images: Path, scenario: str, trained: set[str]
) -> None:
    seen, result = run(machine, images, scenario)
    assert moved(result) == trained
    assert (seen.decoded, seen.passed[False], seen.passed[True]) == (ALL, ALL, 0)
    assert (result / "sample.html").read_text().count("<figure>") == TRAIN


def test_with_features_of_an_earlier_run_nothing_is_decoded_not_for_the_sample_page_either(
    machine: MachineHome, images: Path
) -> None:
    first, _ = run(machine, images, "fixed-extractor", cache_gb=1.0)
    second, result = run(machine, images, "initial-layers", cache_gb=1.0)
    assert (first.decoded, second.decoded, second.passed[False]) == (ALL, 0, 0)
    assert (result / "sample.html").read_text().count("<figure>") == TRAIN


def test_training_after_features_were_found_decodes_each_image_once(
    machine: MachineHome, images: Path
) -> None:
    run(machine, images, "fixed-extractor", cache_gb=1.0)
    seen, _ = run(machine, images, "fine-tune-all", cache_gb=1.0, epochs=2)
    assert seen.decoded == ALL


@pytest.mark.parametrize(("epochs", "activations_gb"), [(1, 1.0), (3, 1.0), (3, 0.0)])
def test_what_is_before_the_cut_stays_to_the_bit_and_passes_once(
    machine: MachineHome, images: Path, epochs: int, activations_gb: float
) -> None:
    seen, result = run(
        machine,
        images,
        "fine-tune-top",
        epochs=epochs,
        patience=epochs,
        unfreeze_from="features.11",
        activations_gb=activations_gb,
    )
    assert moved(result) and all(
        name.startswith(("features.11.", "features.12.", "classifier.")) for name in moved(result)
    )
    before = TRAIN + 3 * 2  # for the first classifier; two images show that the two parts are the whole
    steps = VAL + epochs * (TRAIN + VAL) + VAL + TEST
    assert (seen.passed[False], seen.passed[True]) == (before + (ALL if activations_gb else steps), 0)
    assert seen.decoded == ALL


@pytest.mark.parametrize("scenario", ["fine-tune-all", "from-scratch"])
def test_each_train_image_is_learned_from_once_an_epoch_and_decoded_once(
    machine: MachineHome, images: Path, scenario: str
) -> None:
    seen, _ = run(machine, images, scenario, epochs=3, patience=3)
    assert seen.passed[True] == 3 * TRAIN
    assert seen.decoded == ALL
