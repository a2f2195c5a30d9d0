"""Data, settings and disks as they should not be: what still runs, and what is said where it can't."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from remote.contract import document
from remote.contract.layout import MachineHome, RunFolder
from remote.contract.metrics import Metrics
from remote.contract.scenarios import SCENARIOS
from remote.networks import backbones
from remote.train import DONE, UNUSABLE, main
from tests.remote import fixtures

FEW: dict[str, Any] = {"model": "squeezenet1_1", "image_size": 32, "batch_size": 8}
TRAINED = ("fine-tune-top", "fine-tune-all", "from-scratch")


@pytest.fixture
def machine(tmp_path: Path) -> MachineHome:
    return fixtures.home(tmp_path / "home")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def draw(folder: Path, counts: Mapping[str, Sequence[int]], size: tuple[int, int] = (40, 40)) -> Path:
    """So many images in train, val (and test) of each class, each class of its own colour."""
    generator = np.random.default_rng(0)
    for label, (name, wanted) in enumerate(counts.items()):
        for split, count in zip(("train", "val", "test"), wanted, strict=False):
            for number in range(count):
                (folder / split / name).mkdir(parents=True, exist_ok=True)
                pixels = generator.integers(0, 120, (size[1], size[0], 3))
                pixels[:, :, label % 3] += 100
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / name / f"{split}{number}.png")
    return folder


def put(
    machine: MachineHome, images: Path, scenario: str = "fixed-extractor", **parameters: Any
) -> RunFolder:
    wanted = FEW | ({"epochs": 1} if scenario in TRAINED else {}) | parameters
    return fixtures.put_run(machine, fixtures.pack_folder(machine, images), scenario=scenario, **wanted)


def done(folder: RunFolder, **options: Any) -> Metrics:
    assert main(folder.spec, **options) == DONE, folder.events.read_text()
    return document.decode(Metrics, (folder.result / "metrics.json").read_bytes(), what="metrics.json")


def refused(folder: RunFolder) -> str:
    """What the user is told: the last event."""
    assert main(folder.spec) == UNUSABLE
    last = json.loads(folder.events.read_bytes().splitlines()[-1])
    assert (last["type"], last["level"]) == ("log", "error")
    return str(last["text"])


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_class_with_one_image_is_learned(machine: MachineHome, tmp_path: Path, scenario: str) -> None:
    """It is in every training part, and never held out."""
    metrics = done(put(machine, draw(tmp_path / "images", {"birch": (1, 2), "oak": (4, 2)}), scenario))
    assert (metrics.classes, metrics.images, metrics.train_images) == (
        ["birch", "oak"],
        {"train": 5, "val": 4},
        [1, 4],
    )
    held_out = next(one for one in metrics.evaluations if one.split == "train, held out")
    assert next(one.n for one in held_out.classes) == 0


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_two_classes_of_three_images(machine: MachineHome, tmp_path: Path, scenario: str) -> None:
    metrics = done(put(machine, draw(tmp_path / "images", {"birch": (3, 3), "oak": (3, 3)}), scenario))
    assert (metrics.result.n, metrics.reported, metrics.result.chose) == (6, "val", "nothing")
    low, high = metrics.result.accuracy_interval
    assert high - low > 0.3  # six images say little, and that is said


@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if name != "from-scratch"])
def test_one_image_of_each_class_chooses_nothing(machine: MachineHome, tmp_path: Path, scenario: str) -> None:
    images = draw(tmp_path / "images", {"birch": (1, 2), "oak": (1, 2)})
    text = refused(put(machine, images, scenario))
    assert text.startswith("No class has two different images") and text.endswith("Add some.")


def test_a_thousand_classes(machine: MachineHome, tmp_path: Path) -> None:
    """Through the fit of the classifier to the predictions: two images of each class to train on, one of some to judge."""
    counts = {f"species {number:04}": (2, int(number % 20 == 0)) for number in range(1000)}
    images = draw(tmp_path / "images", counts, size=(8, 8))
    folder = put(machine, images, batch_size=256, folds=2, penalties=1, penalty_min=10.0, stages="features.2")
    metrics = done(folder)
    assert (len(metrics.classes), metrics.result.n) == (1000, 50)
    assert metrics.result.guessing == pytest.approx(0.02)
    header = (folder.result / "predictions.csv").read_text().splitlines()[0]
    assert header.count(",p_") == 1000


@pytest.mark.parametrize("scenario", ["fixed-extractor", "from-scratch"])
@pytest.mark.parametrize("framing", ["crop", "whole"])
def test_images_smaller_than_the_crop_are_enlarged(
    machine: MachineHome, tmp_path: Path, scenario: str, framing: str
) -> None:
    images = draw(tmp_path / "images", {"birch": (4, 2), "oak": (4, 2)}, size=(11, 3))
    Image.new("RGB", (1, 1)).save(images / "train" / "oak" / "dot.png")
    assert done(put(machine, images, scenario, framing=framing, image_size=64)).result.n == 4


def test_a_class_of_val_that_train_lacks_is_named(machine: MachineHome, tmp_path: Path) -> None:
    images = draw(tmp_path / "images", {"birch": (3, 2), "elm": (0, 2), "oak": (3, 2)})
    for tail, scenario in (("aaaa", "fixed-extractor"), ("bbbb", "from-scratch")):
        text = refused(put(machine, images, scenario, tail=tail))
        assert "no image to train on of: 'elm'. Each class of val and test needs some in train." in text


def test_a_parameter_out_of_range_is_refused_on_the_machine_too(machine: MachineHome, tmp_path: Path) -> None:
    folder = put(machine, draw(tmp_path / "images", {"birch": (3, 2), "oak": (3, 2)}))
    spec = json.loads(folder.spec.read_text())
    spec["parameters"]["folds"] = 1
    folder.spec.write_text(json.dumps(spec))
    assert refused(folder) == "fixed-extractor: folds is '1', not in the range 2 to 20"


def test_weights_of_another_architecture_are_refused_by_name(machine: MachineHome, tmp_path: Path) -> None:
    images = draw(tmp_path / "images", {"birch": (3, 2), "oak": (3, 2)})
    state = dict(backbones.build("squeezenet1_0", 2, seed=0).module.state_dict())
    save_file(state, tmp_path / "plain")
    save_file(state, tmp_path / "ours", metadata={"tlvm": '{"model": "squeezenet1_0"}'})
    plain, ours = (fixtures.put_weights(machine, tmp_path / name, name) for name in ("plain", "ours"))
    text = refused(put(machine, images, tail="aaaa", weights=plain))
    assert "not those of a squeezenet1_1" in text and "of another shape: features.0.weight" in text
    text = refused(put(machine, images, tail="bbbb", weights=ours))
    assert text == "The weights (ours) are of a squeezenet1_0, not of a squeezenet1_1."


def _cut(path: Path, other: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5000])


def _of_another_run(path: Path, other: Path) -> None:
    shutil.copyfile(other, path)


def _older(path: Path, other: Path) -> None:
    torch.save({**torch.load(path, weights_only=True), "schema": 1}, path)


def _other_content(path: Path, other: Path) -> None:
    held = torch.load(path, weights_only=True)
    held["state"]["position"]["step"] += 1
    torch.save(held, path)


def test_a_checkpoint_that_is_none_is_refused_by_name_and_the_one_before_is_gone_on_from(
    machine: MachineHome, tmp_path: Path
) -> None:
    images = draw(tmp_path / "images", {"birch": (9, 2), "oak": (9, 2)})
    often: dict[str, float] = {"checkpoint_least_s": 0.0, "checkpoint_times_cost": 0.0}
    whole, other = (
        put(machine, images, "from-scratch", tail=tail, epochs=2, seed=seed)
        for tail, seed in (("aaaa", 0), ("bbbb", 1))
    )
    for folder in (whole, other):
        done(folder, **often)
    model = whole.result / "model" / "model.safetensors"
    expected = model.read_bytes()
    spoilers: list[tuple[Callable[[Path, Path], None], str]] = [
        (_cut, "it can't be read"),
        (_of_another_run, "it is of another run, from-scratch-20260807-142530-bbbb"),
        (_older, "it is not of schema 3, but of another version of tlvm"),
        (_other_content, "its content does not have the hash that it names"),
    ]
    for spoil, says in spoilers:
        newest = max(whole.checkpoints.glob("checkpoint-*.pt"))
        spoil(newest, max(other.checkpoints.glob("checkpoint-*.pt")))
        model.unlink()
        whole.events.write_bytes(b"")
        done(whole, **often)
        told = [json.loads(line) for line in whole.events.read_bytes().splitlines()]
        (warning,) = [event["text"] for event in told if event["type"] == "log"]
        assert warning.startswith(f"{newest.name} is refused: {says}")
        assert model.read_bytes() == expected
