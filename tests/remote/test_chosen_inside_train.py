"""Nothing of a model is chosen by the images that are reported: others in their place give the same model to the bit.

Val is reported where there is no test; a part of train steers then. Where there is a test split val may serve.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from remote import frozen, trained
from remote.contract import document
from remote.contract.events import EventWriter
from remote.contract.layout import MachineHome, RunFolder
from remote.contract.metrics import Evaluation, Metrics
from remote.contract.run_spec import RunSpec
from remote.features.views import CENTRE
from remote.networks import backbones
from remote.results.artefacts import read_card_file
from remote.start import input_spec, load_backbone
from remote.task import Task, open_task
from remote.train import DONE, main
from remote.training.checkpoint import Rhythm
from tests.remote import fixtures

MODEL = "squeezenet1_1"
CLASSES = ("birch", "oak")
TRAIN = (18, 5)  # so unequal that the classes are balanced, which is a choice too
HELD_OUT, OTHERS = (6, 6), (8, 4)  # the classes' shares in val and test; as many images in all
PARAMETERS: dict[str, dict[str, Any]] = {
    "fixed-extractor": {"cache_gb": 0.0, "views": 2},
    "initial-layers": {"cache_gb": 0.0},
    "fine-tune-top": {"cache_gb": 0.0, "epochs": 2, "patience": 2, "holdout": 0.3},
    "fine-tune-all": {"cache_gb": 0.0, "epochs": 2, "patience": 2, "holdout": 0.3},
}
TUNED = [name for name in PARAMETERS if name.startswith("fine-tune")]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def machine(tmp_path: Path) -> MachineHome:
    return fixtures.home(tmp_path / "home")


def draw(folder: Path, counts: Mapping[str, tuple[int, int]], *, others: str = "") -> Path:
    """An ImageFolder, so many images of each class in each split.

    others      the split that has other images, other shares of the classes, and the wrong label on each of them
    """
    for number, (split, wanted) in enumerate(sorted(counts.items())):
        generator = np.random.default_rng([number, split == others])
        for label, name in enumerate(CLASSES):
            shown = 1 - label if split == others else label
            (folder / split / name).mkdir(parents=True)
            for index in range((OTHERS if split == others else wanted)[label]):
                pixels = generator.integers(0, 160, (40, 40, 3))
                pixels[:, :, shown] += generator.integers(0, 40)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / name / f"{index:02}.png")
    return folder


def put(machine: MachineHome, images: Path, scenario: str, tail: str, **parameters: Any) -> RunFolder:
    dataset = fixtures.pack_folder(machine, images)
    wanted = {"model": MODEL, "image_size": 32, "batch_size": 12, **PARAMETERS[scenario], **parameters}
    return fixtures.put_run(machine, dataset, scenario=scenario, tail=tail, **wanted)


def run(machine: MachineHome, images: Path, scenario: str, tail: str, **parameters: Any) -> Path:
    folder = put(machine, images, scenario, tail, **parameters)
    assert main(folder.spec) == DONE, folder.events.read_text()
    return folder.result


@contextmanager
def opened(folder: RunFolder) -> Iterator[Task]:
    """What the run works with, without its being run."""
    spec = document.decode(RunSpec, folder.spec.read_bytes(), what="run spec")
    events = EventWriter(folder.events)
    with open_task(spec, folder, events, lambda: False, Rhythm(60.0, 50.0)) as task:
        yield task
    events.close()


def metrics_of(result: Path) -> Metrics:
    return document.decode(Metrics, (result / "metrics.json").read_bytes(), what="metrics.json")


def figures(result: Path, split: str) -> Evaluation:
    return next(one for one in metrics_of(result).evaluations if one.split == split)


def tensors(result: Path) -> dict[str, bytes]:
    """The model's, by name, to the bit."""
    loaded = load_file(result / "model" / "model.safetensors")
    return {name: tensor.numpy().tobytes() for name, tensor in loaded.items()}


def chosen(result: Path, reported: str) -> dict[str, Any]:
    """All that a run says of its choices and of what they were made by."""
    metrics, card = metrics_of(result), read_card_file(result / "model" / "model.json")
    training = dict(metrics.training)
    epochs = [
        {name: value for name, value in epoch.items() if "seconds" not in name}
        for epoch in training.pop("epochs", [])
    ]
    return {
        "temperature": (metrics.temperature, card.temperature),
        "training": training,  # the penalty, the stages, the epoch that is kept ...
        "epochs": epochs,
        "by_depth": metrics.by_depth,
        "prior": metrics.prior,
        "stages": (card.stages, card.pooling, metrics.trained_parameters),
        "figures": [one for one in metrics.evaluations if one.split != reported],
    }


@pytest.mark.parametrize("reported", ["val", "test"])
@pytest.mark.parametrize("scenario", PARAMETERS)
def test_other_images_in_the_reported_split_give_the_same_model(
    machine: MachineHome, tmp_path: Path, scenario: str, reported: str
) -> None:
    counts = {"train": TRAIN, "val": HELD_OUT} | ({"test": HELD_OUT} if reported == "test" else {})
    ours = run(machine, draw(tmp_path / "a", counts), scenario, "aaaa")
    theirs = run(machine, draw(tmp_path / "b", counts, others=reported), scenario, "bbbb")
    assert metrics_of(ours).reported == reported
    assert figures(ours, reported).chose == figures(theirs, reported).chose == "nothing"
    assert figures(ours, reported).accuracy != figures(theirs, reported).accuracy
    assert chosen(ours, reported) == chosen(theirs, reported)
    assert tensors(ours) == tensors(theirs)


@pytest.mark.parametrize("scenario", ["fixed-extractor", "initial-layers"])
def test_val_that_is_fitted_on_chooses_nothing(machine: MachineHome, tmp_path: Path, scenario: str) -> None:
    """The kept classifier and its temperature are others; penalty, stage, balance and the figures of train are not."""
    counts = {"train": TRAIN, "val": HELD_OUT, "test": HELD_OUT}
    ours = run(machine, draw(tmp_path / "a", counts), scenario, "aaaa")
    theirs = run(machine, draw(tmp_path / "b", counts, others="val"), scenario, "bbbb")
    assert tensors(ours) != tensors(theirs)
    assert figures(ours, "train, held out") == figures(theirs, "train, held out")
    served = {"temperature", "figures"}
    ours_chose, theirs_chose = chosen(ours, "val"), chosen(theirs, "val")
    assert {name: ours_chose[name] for name in ours_chose.keys() - served} == {
        name: theirs_chose[name] for name in theirs_chose.keys() - served
    }


@pytest.mark.parametrize("scenario", TUNED)
def test_the_first_classifier_knows_nothing_of_the_images_that_steer(
    machine: MachineHome, tmp_path: Path, scenario: str
) -> None:
    """With a rate that moves nothing the model that is kept has the first classifier, and its temperature."""
    counts, still = (
        {"train": TRAIN, "val": HELD_OUT, "test": HELD_OUT},
        {"epochs": 1, "learning_rate": 1e-30},
    )
    ours = run(machine, draw(tmp_path / "a", counts), scenario, "aaaa", **still)
    theirs = run(machine, draw(tmp_path / "b", counts, others="val"), scenario, "bbbb", **still)
    assert metrics_of(ours).training["steered_by"] == metrics_of(theirs).training["steered_by"] == "val"
    assert figures(ours, "val") != figures(theirs, "val")
    assert metrics_of(ours).temperature == metrics_of(theirs).temperature
    assert figures(ours, "train, out of fold") == figures(theirs, "train, out of fold")
    assert classifier(ours) == classifier(theirs)
    assert metrics_of(ours).training["classifier"] == metrics_of(theirs).training["classifier"]


@pytest.mark.parametrize("scenario", TUNED)
def test_a_part_of_train_that_steers_is_as_if_it_were_val(
    machine: MachineHome, tmp_path: Path, scenario: str
) -> None:
    """So nothing is learned from it, and the first classifier is fitted without it."""
    images = draw(tmp_path / "a", {"train": TRAIN, "val": HELD_OUT})
    other = shutil.copytree(images, tmp_path / "b")
    (other / "val").rename(other / "test")
    with opened(put(machine, images, scenario, "cccc")) as task:
        _, held, steered_by = trained.steering(task)
    assert steered_by == "train, held out" and len(held.images) > 4
    for image in held.images:
        path = other / image.path.replace("train/", "val/", 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        (other / image.path).rename(path)
    ours = run(machine, images, scenario, "aaaa")
    theirs = run(machine, other, scenario, "bbbb")
    assert tensors(ours) == tensors(theirs)
    assert metrics_of(ours).temperature == metrics_of(theirs).temperature


def classifier(result: Path) -> dict[str, bytes]:
    return {name: value for name, value in tensors(result).items() if name.startswith("classifier.1.")}


def test_features_are_found_for_the_same_weights_and_window_alone(
    machine: MachineHome, tmp_path: Path
) -> None:
    """16-bit images, so that a window decides what is seen of them."""
    images, generator = tmp_path / "images", np.random.default_rng(0)
    for split in ("train", "val"):
        for label, name in enumerate(CLASSES):
            (images / split / name).mkdir(parents=True)
            for number in range(4):
                values = generator.integers(0, 900 + 300 * label, (40, 40)).astype(np.uint16)
                Image.fromarray(values).save(images / split / name / f"{number}.png")
    for seed in (1, 2):
        state = backbones.build(MODEL, 2, seed=seed).module.state_dict()
        save_file(state, tmp_path / f"{seed}.safetensors")

    def forwarded(tail: str, weights: int, window: tuple[float, float]) -> int:
        folder = fixtures.put_run(
            machine,
            fixtures.pack_folder(machine, images, window=window),
            model=MODEL,
            weights=fixtures.put_weights(machine, tmp_path / f"{weights}.safetensors"),
            tail=tail,
            image_size=32,
            batch_size=8,
        )
        assert main(folder.spec) == DONE, folder.events.read_text()
        return metrics_of(folder.result).counters.forwarded

    assert forwarded("aaaa", 1, (0, 1200)) == 16
    assert forwarded("bbbb", 1, (0, 1200)) == 0
    assert forwarded("cccc", 2, (0, 1200)) == 16
    assert forwarded("dddd", 1, (0, 900)) == 16
    assert forwarded("eeee", 1, (0, 1200)) == 0  # what the others left is beside it, not in its place


def test_views_and_copies_of_an_image_are_held_out_together(machine: MachineHome, tmp_path: Path) -> None:
    images = draw(tmp_path / "images", {"train": (8, 8), "val": (2, 2)})
    for name in CLASSES:
        shutil.copyfile(images / "train" / name / "00.png", images / "train" / name / "copy.png")
    with opened(put(machine, images, "fixed-extractor", "aaaa", views=3)) as task:
        network, source = load_backbone(task)
        backbones.freeze(network.module)
        seen = frozen.look(task, network, input_spec(task, source), wanted=[])
        train = frozen.training_rows(task, seen, task.images("train"))
    rows = [seen.rows[row] for row in train.rows]
    folds_of: dict[str, set[int]] = {}
    for row, fold in zip(rows, train.fold_of.tolist(), strict=True):
        folds_of.setdefault(row.image.sha256, set()).add(fold)
    assert len(rows) == 3 * 18 and len(folds_of) == 16
    assert all(len(found) == 1 for found in folds_of.values())
    assert len(set(train.fold_of.tolist())) == 5
    assert [row.view == CENTRE for row in rows] == train.judges.tolist()
    assert train.usual == 18
