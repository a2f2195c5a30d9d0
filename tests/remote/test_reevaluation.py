"""A finished model on other images: those that trained it are left out, and classes that it does not know are named."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from remote import train
from remote.contract import document, layout
from remote.contract.dataset_manifest import encode
from remote.contract.layout import MachineHome, RunFolder
from remote.contract.metrics import Metrics
from remote.contract.run_spec import DatasetRef, EvaluatedRun, RunSpec, WeightsRef
from tests.remote import fixtures
from tests.remote.fixtures import Dataset

EVALUATION = "evaluate-20260808-142530-ev4l"


def draw(folder: Path, split: str, names: tuple[str, ...], count: int, *, seed: int) -> None:
    """Reddish and bluish noise: any network tells them apart."""
    generator = np.random.default_rng(seed)
    for number, name in enumerate(names):
        (folder / split / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            pixels = generator.integers(0, 120, (40, 48, 3), dtype=np.uint8)
            pixels[..., number] += 110
            Pillow.fromarray(pixels).save(folder / split / name / f"{seed}-{index}.png")


@dataclasses.dataclass(frozen=True)
class Trained:
    machine: MachineHome
    folder: RunFolder
    dataset: Dataset
    images: Path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    base = tmp_path_factory.mktemp("trained")
    machine, images = fixtures.home(base / "tlvm"), base / "images"
    draw(images, "train", ("blue", "red"), 6, seed=1)
    draw(images, "val", ("blue", "red"), 3, seed=2)
    dataset = fixtures.pack_folder(machine, images)
    folder = fixtures.put_run(machine, dataset, image_size=64)
    assert train.main(folder.spec) == 0
    return Trained(machine, folder, dataset, images)


def evaluated(
    trained: Trained, dataset: Dataset, split: str = "all", *, val_trained: bool = False
) -> tuple[int, RunFolder]:
    """Carry out the job on this dataset, everything fetched."""
    machine, model = trained.machine, trained.folder.result / "model"
    spec = document.decode(RunSpec, trained.folder.spec.read_bytes(), what="spec")
    metrics = document.decode(Metrics, (trained.folder.result / "metrics.json").read_bytes(), what="metrics")
    digests = {}
    for name in ("model.json", "model.safetensors"):
        digests[name] = hashlib.sha256((model / name).read_bytes()).hexdigest()
        shutil.copyfile(model / name, machine.weights(digests[name]))
    folder = machine.run(EVALUATION)
    shutil.rmtree(folder.root, ignore_errors=True)
    folder.root.mkdir()
    folder.manifest.write_bytes(dataset.data)
    folder.trained_on.write_bytes(trained.dataset.data)
    changed = dataclasses.replace(
        spec,
        run_id=EVALUATION,
        dataset=DatasetRef(dataset.manifest.dataset, dataset.version),
        weights=WeightsRef(
            f"run {spec.run_id}",
            digests["model.safetensors"],
            layout.run_key(spec.run_id, "model/model.safetensors"),
        ),
        job="evaluate",
        evaluates=EvaluatedRun(
            run_id=spec.run_id,
            card_sha256=digests["model.json"],
            trained_on=spec.dataset,
            split=split,  # type: ignore[arg-type]
            val_chose="when training stopped",
            trained_parameters=metrics.trained_parameters,
            frozen_parameters=metrics.frozen.parameters,
            trained_s=12.5,
            val_trained=val_trained,
        ),
    )
    document.write(folder.spec, changed)
    return train.main(folder.spec), folder


def metrics_of(folder: RunFolder) -> Metrics:
    return document.decode(Metrics, (folder.result / "metrics.json").read_bytes(), what="metrics.json")


def test_the_same_images_give_the_same_figures(trained: Trained) -> None:
    code, folder = evaluated(trained, trained.dataset, "val")
    found, before = metrics_of(folder), metrics_of(trained.folder)
    assert code == 0
    assert found.result.chose == "when training stopped"
    # Of the same images in other batches: the same to the last digits that are kept.
    assert found.result.confusion == before.result.confusion
    assert found.result.log_loss == pytest.approx(before.result.log_loss, abs=1e-4)
    assert (found.evaluates, found.trained_s) == (before.run_id, 12.5)
    assert found.frozen.equal == found.frozen.tensors > 0
    rows = (folder.result / "predictions.csv").read_text().splitlines()
    assert rows[0] == "path,split,label,predicted,p_blue,p_red" and len(rows) == 7
    assert not (folder.result / "model").exists()


def test_images_that_trained_the_model_are_left_out(trained: Trained, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(trained.images / "train", images / "test")
    draw(images, "test", ("blue", "red"), 4, seed=9)
    code, folder = evaluated(trained, fixtures.pack_folder(trained.machine, images))
    found = metrics_of(folder)
    assert code == 0
    assert (found.result.n, found.excluded, found.reported) == (8, 12, "all")
    assert found.result.chose == "nothing" and found.counters.decoded == 8


def test_a_class_that_the_model_does_not_know_is_named(trained: Trained, tmp_path: Path) -> None:
    draw(tmp_path, "test", ("blue", "green"), 2, seed=3)
    code, folder = evaluated(trained, fixtures.pack_folder(trained.machine, tmp_path))
    assert code == 3
    assert "does not know the classes 'green'" in folder.events.read_text()


def test_classes_that_the_dataset_lacks_do_no_harm(trained: Trained, tmp_path: Path) -> None:
    draw(tmp_path, "test", ("blue",), 3, seed=4)
    code, folder = evaluated(trained, fixtures.pack_folder(trained.machine, tmp_path))
    found = metrics_of(folder)
    assert code == 0
    assert found.classes == ["blue", "red"] and [one.n for one in found.result.classes] == [3, 0]


def test_val_images_that_the_model_was_fitted_on_are_left_out_too(trained: Trained) -> None:
    code, folder = evaluated(trained, trained.dataset, "val", val_trained=True)
    assert code == 3 and "the model was trained on all of them" in folder.events.read_text()


@pytest.mark.parametrize("split", ["test", "train"])
def test_no_image_to_measure_on(trained: Trained, split: str) -> None:
    code, folder = evaluated(trained, trained.dataset, split)
    assert code == 3 and "no image to measure the model on" in folder.events.read_text()


def test_another_intensity_window_is_not_used(trained: Trained) -> None:
    """The model was trained with the window of its own dataset: that one counts."""
    manifest = dataclasses.replace(trained.dataset.manifest, intensity_window=[0.0, 4095.0])
    code, folder = evaluated(trained, Dataset(manifest, *encode(manifest)), "val")
    assert code == 0
    assert metrics_of(folder).result.confusion == metrics_of(trained.folder).result.confusion
