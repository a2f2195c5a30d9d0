"""What trained scenarios say of the images that they learn from, by classifiers that have not seen them.

Doubtful labels of train come from the classifier that training begins with, fitted fold by fold; so does the temperature
where that classifier is what is kept. Else the images that steered give it, and the result says which.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from orchestrator.render import figures
from remote.contract import document
from remote.contract.metrics import Evaluation, Metrics
from remote.measures.evaluation import fit_temperature, share_weights
from remote.train import main
from tests.remote import fixtures

WRONG = "train/oak/00.png"  # a birch
BREAKS = 10.0  # a learning rate with which no epoch is any good


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two kinds of trees that anyone can tell, and one that lies with the other kind."""
    torch.set_num_threads(1)
    folder, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in (("train", 14), ("val", 6), ("test", 6)):
        for label, name in enumerate(("birch", "oak")):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                path = f"{split}/{name}/{number:02}.png"
                pixels = generator.integers(0, 120, (40, 40, 3))
                pixels[:, :, 1 - label if path == WRONG else label] += 100
                Image.fromarray(pixels.astype(np.uint8)).save(folder / path)
    return folder


def run(tmp_path: Path, images: Path, scenario: str, splits: Sequence[str], **parameters: Any) -> Metrics:
    machine, some = fixtures.home(tmp_path / "home"), tmp_path / "some"
    some.mkdir()
    for split in splits:
        (some / split).symlink_to(images / split)
    wanted: dict[str, Any] = {"image_size": 32, "epochs": 1, "holdout": 0.3, **parameters}
    folder = fixtures.put_run(machine, fixtures.pack_folder(machine, some), scenario=scenario, **wanted)
    assert main(folder.spec) == 0, folder.events.read_text()
    return document.decode(Metrics, (folder.result / "metrics.json").read_bytes(), what="metrics.json")


def of(metrics: Metrics, split: str) -> Evaluation:
    (found,) = [one for one in metrics.evaluations if one.split == split]
    return found


@pytest.mark.parametrize("scenario", ["fine-tune-all", "fine-tune-top"])
def test_a_doubtful_label_of_train_is_listed_and_not_dropped(
    tmp_path: Path, images: Path, scenario: str
) -> None:
    metrics = run(tmp_path, images, scenario, ("train", "val", "test"))
    said = of(metrics, "train, out of fold")
    assert [one.path for one in said.doubtful] == [WRONG]
    assert (said.doubtful[0].label, said.doubtful[0].predicted) == ("oak", "birch")
    assert said.n == metrics.training["trained_on"] == metrics.images["train"] == 28
    assert "1 label to look at again" in "\n".join(figures.lines(metrics))


def test_the_classifier_alone_brings_the_temperature_of_its_folds(tmp_path: Path, images: Path) -> None:
    metrics = run(tmp_path, images, "fine-tune-all", ("train", "val", "test"), learning_rate=BREAKS)
    said = of(metrics, "train, out of fold")
    assert metrics.training["best_epoch"] == 0
    assert metrics.temperature_from == "train, out of fold"
    assert said.chose == "the penalty of the classifier that training began with, and the temperature"
    assert of(metrics, "val").chose == "when training stopped"
    assert (metrics.reported, metrics.result.chose) == ("test", "nothing")


@pytest.mark.parametrize(
    ("splits", "steers"), [(("train", "val"), "train, held out"), (("train", "val", "test"), "val")]
)
def test_else_the_images_that_steer_give_it_and_the_result_says_so(
    tmp_path: Path, images: Path, splits: Sequence[str], steers: str
) -> None:
    metrics = run(tmp_path, images, "from-scratch", splits)
    assert metrics.temperature_from == steers
    assert of(metrics, steers).chose == "when training stopped, and the temperature"
    assert metrics.result.chose == "nothing"
    told = [line for line in figures.lines(metrics) if "temperature" in line]
    assert told == (
        ["the temperature comes from val, which chose when training stopped"] if steers == "val" else []
    )


def test_balanced_classes_are_calibrated_for_a_world_of_equal_ones() -> None:
    """What is sure of itself on the frequent class only is not made less sure because rare ones are few."""
    labels = np.repeat([0, 1], [90, 10])
    logits = np.where(labels[:, None] == [0, 1], 2.0, 0.0)
    logits[90:95] = [3.0, 0.0]  # half of the rare ones are taken for the others
    as_they_are = fit_temperature(logits, labels)
    for_equal = fit_temperature(logits, labels, share_weights(labels, [0.5, 0.5]))
    assert share_weights(labels, [0.5, 0.5])[[0, 99]] == pytest.approx([100 / 180, 100 / 20])
    assert for_equal > as_they_are
