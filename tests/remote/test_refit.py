"""Where test is the figure that is reported, val serves twice: it is measured, then the kept classifier is fitted on it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from remote.contract import document
from remote.contract.layout import MachineHome
from remote.contract.metrics import Evaluation, Metrics
from remote.train import main
from tests.remote import fixtures


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes that are hard to tell apart, so that more images make another classifier."""
    folder, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(3)
    for split, count in (("train", 10), ("val", 8), ("test", 6)):
        for label, name in enumerate(("birch", "oak")):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 200, (40, 40, 3))
                pixels[:, :, label] += 10
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / name / f"{split}{number}.png")
    return folder


@pytest.fixture
def machine(tmp_path: Path) -> MachineHome:
    return fixtures.home(tmp_path / "home")


def run(machine: MachineHome, images: Path, scenario: str, tail: str, **parameters: Any) -> Path:
    dataset = fixtures.pack_folder(machine, images)
    folder = fixtures.put_run(
        machine, dataset, scenario=scenario, tail=tail, image_size=64, batch_size=8, **parameters
    )
    assert main(folder.spec) == 0, folder.events.read_text()
    return folder.result


def metrics_of(result: Path) -> Metrics:
    return document.decode(Metrics, (result / "metrics.json").read_bytes(), what="metrics.json")


def figures(result: Path, split: str) -> Evaluation:
    return next(one for one in metrics_of(result).evaluations if one.split == split)


@pytest.mark.parametrize("scenario", ["fixed-extractor", "initial-layers"])
def test_the_kept_classifier_is_that_of_train_and_val(
    machine: MachineHome, images: Path, scenario: str
) -> None:
    again, alone = run(machine, images, scenario, "aaaa"), run(machine, images, scenario, "bbbb", refit="off")
    metrics = metrics_of(again)
    assert (metrics.training["fitted_on"], metrics.reported) == (["train", "val"], "test")
    assert metrics_of(alone).training["fitted_on"] == ["train"]
    assert figures(again, "val").chose.startswith(
        "nothing; the classifier that is kept was fitted on them too"
    )
    assert (
        figures(alone, "val").chose
        == figures(alone, "test").chose
        == figures(again, "test").chose
        == "nothing"
    )
    # Val was measured by the classifier of train alone.
    assert figures(again, "val").log_loss == figures(alone, "val").log_loss
    models = {(result / "model" / "model.safetensors").read_bytes() for result in (again, alone)}
    assert len(models) == 2


def test_it_is_the_classifier_of_all_images_together(
    machine: MachineHome, images: Path, tmp_path: Path
) -> None:
    again = run(machine, images, "fixed-extractor", "aaaa")
    both = shutil.copytree(images, tmp_path / "both")
    for path in sorted(both.glob("val/*/*")):
        path.rename(both / "train" / path.parent.name / path.name)
    shutil.rmtree(both / "val")
    penalty = metrics_of(again).training["penalty"]
    other = run(
        machine, both, "fixed-extractor", "bbbb", penalties=1, penalty_max=penalty, penalty_min=penalty
    )
    ours, theirs = (load_file(result / "model" / "model.safetensors") for result in (again, other))
    for name in ("classifier.1.weight", "classifier.1.bias"):
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-5)


def test_val_that_is_reported_trains_nothing(machine: MachineHome, images: Path, tmp_path: Path) -> None:
    both = shutil.copytree(images, tmp_path / "two", ignore=shutil.ignore_patterns("test"))
    metrics = metrics_of(run(machine, both, "fixed-extractor", "aaaa"))
    assert (metrics.training["fitted_on"], metrics.reported, metrics.result.chose) == (
        ["train"],
        "val",
        "nothing",
    )
