"""`fixed-extractor` from the manifest to the files of the result, through the entry that the supervisor calls."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from remote.contract import document, events
from remote.contract.layout import MachineHome, RunFolder
from remote.contract.metrics import Metrics
from remote.predict import predict
from remote.torchvision_guard import models
from remote.train import main
from tests.remote import fixtures
from tests.shared_data import shared


@dataclass(frozen=True)
class Run:
    folder: RunFolder
    dataset: fixtures.Dataset
    images: Path

    @property
    def metrics(self) -> Metrics:
        return document.decode(
            Metrics, (self.folder.result / "metrics.json").read_bytes(), what="metrics.json"
        )

    @property
    def events(self) -> list[dict[str, Any]]:
        lines = self.folder.events.read_bytes().splitlines() if self.folder.events.exists() else []
        found = [events.parse(line) for line in lines]
        return [event for event in found if event is not None]

    @property
    def predictions(self) -> list[dict[str, str]]:
        with (self.folder.result / "predictions.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def file(self, path: str) -> Path:
        return self.images / os.fsdecode(unquote_to_bytes(path))


@pytest.fixture(scope="module")
def hymenoptera(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Ants and bees with real weights: all 397 photos."""
    folder = shared("data/hymenoptera")
    machine = fixtures.home(tmp_path_factory.mktemp("home"))
    dataset = fixtures.pack_folder(machine, folder)
    weights = fixtures.put_weights(machine, shared("weights/squeezenet1_1-onnxzoo-fp32.pth"))
    run = fixtures.put_run(machine, dataset, weights=weights)
    assert main(run.spec) == 0
    return Run(run, dataset, folder)


def test_ants_and_bees_are_told_apart_as_well_as_by_scikit_learn(hymenoptera: Run) -> None:
    """On the same features, computed here by torchvision alone, the penalty chosen inside train."""
    features = _features_by_torchvision(hymenoptera)
    labels = np.array([image.class_name for image in hymenoptera.dataset.manifest.images])
    train = np.array([image.split == "train" for image in hymenoptera.dataset.manifest.images])
    peer = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
        {"logisticregression__C": np.logspace(-6, 3, 13)},
        cv=StratifiedKFold(5, shuffle=True, random_state=0),
    ).fit(features[train], labels[train])
    theirs = int((peer.predict(features[~train]) == labels[~train]).sum())
    result = hymenoptera.metrics.result
    assert (result.split, result.chose, result.n) == ("val", "nothing", 153)
    assert result.correct >= theirs - 1
    assert result.correct >= 140


def test_frozen_is_frozen_to_the_bit(hymenoptera: Run) -> None:
    stored = torch.load(shared("weights/squeezenet1_1-onnxzoo-fp32.pth"), weights_only=True)
    result = load_file(hymenoptera.folder.result / "model" / "model.safetensors")
    frozen = [name for name in result if not name.startswith("classifier.1.")]
    assert (
        len(frozen)
        == len(result) - 2
        == hymenoptera.metrics.frozen.tensors
        == hymenoptera.metrics.frozen.equal
    )
    assert all(torch.equal(result[name], stored[name]) for name in frozen)


def test_the_eight_steps_are_named_in_their_order(hymenoptera: Run) -> None:
    steps = [event["name"] for event in hymenoptera.events if event["type"] == "step"]
    assert list(dict.fromkeys(steps)) == list(events.STEPS)
    network = next(event for event in hymenoptera.events if event["type"] == "network")
    assert [stage["frozen"] for stage in network["stages"]] == [True] * (len(network["stages"]) - 1) + [False]
    progress = [event for event in hymenoptera.events if event["type"] == "progress"]
    assert (progress[0]["step"], progress[0]["total"], progress[0]["unit"]) == ("extract", 397, "images")
    assert hymenoptera.events[-1]["metrics"] == json.loads(
        (hymenoptera.folder.result / "metrics.json").read_text()
    )


def test_the_predictions_are_those_of_the_figures_and_of_predict(hymenoptera: Run) -> None:
    rows = hymenoptera.predictions
    assert Counter(row["split"] for row in rows) == {"val": 153}
    assert sum(row["label"] == row["predicted"] for row in rows) == hymenoptera.metrics.result.correct
    some = rows[::20]
    paths = [hymenoptera.file(row["path"]) for row in some]
    for row, line in zip(some, predict(hymenoptera.folder.result / "model", paths), strict=True):
        assert line["predicted"] == row["predicted"]
        for name, share in line["probabilities"].items():
            assert share == pytest.approx(float(row[f"p_{name}"]), abs=5e-6)


def test_the_snippet_of_the_readme_gives_the_same(
    hymenoptera: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = hymenoptera.folder.result / "model"
    snippet = re.search(r"```python\n(.*?)```", (model / "README.md").read_text(encoding="utf-8"), re.S)
    assert snippet is not None
    row = hymenoptera.predictions[40]
    for name in ("model.json", "model.safetensors"):
        (tmp_path / name).symlink_to(model / name)
    (tmp_path / "photo.jpg").symlink_to(hymenoptera.file(row["path"]))
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet[1], "README.md", "exec"), {})
    said = re.findall(r"'(\w+)': ([\d.e-]+)", capsys.readouterr().out)
    assert {name: float(share) for name, share in said} == pytest.approx(
        {name: float(row[f"p_{name}"]) for name in ("ants", "bees")}, abs=1e-4
    )


def _features_by_torchvision(run: Run) -> NDArray[np.float32]:
    network = models.squeezenet1_1().eval().to(memory_format=torch.channels_last)  # a third quicker
    network.load_state_dict(torch.load(shared("weights/squeezenet1_1-onnxzoo-fp32.pth"), weights_only=True))
    transform = models.SqueezeNet1_1_Weights.IMAGENET1K_V1.transforms()
    parts = []
    images = run.dataset.manifest.images
    with torch.inference_mode():
        for start in range(0, len(images), 32):
            photos = [Image.open(run.file(image.path)).convert("RGB") for image in images[start : start + 32]]
            batch = torch.stack([transform(photo) for photo in photos]).to(memory_format=torch.channels_last)
            parts.append(network.features(batch).mean((2, 3)).numpy())
    return np.concatenate(parts)


def _tiny(
    folder: Path, *, per_class: int = 5, names: tuple[str, ...] = ("birch", "oak"), splits: str = "train val"
) -> Path:
    """Small images, each class of its own brightness, every one different."""
    generator = np.random.default_rng(0)
    for split in splits.split():
        for label, name in enumerate(names):
            for index in range(per_class):
                pixels = generator.integers(0, 100, (40, 40, 3)) + 100 * label / max(1, len(names) - 1)
                path = folder / split / name / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(path)
    return folder


@pytest.fixture
def machine(tmp_path: Path) -> MachineHome:
    return fixtures.home(tmp_path / "home")


def _run(machine: MachineHome, images: Path, **options: Any) -> Run:
    dataset = fixtures.pack_folder(machine, images, **options.pop("dataset", {}))
    return Run(fixtures.put_run(machine, dataset, **{"image_size": 64, **options}), dataset, images)


@pytest.mark.parametrize("model", ["resnet18", "vgg16", "efficientnet_b0", "mobilenet_v2", "mnasnet0_5"])
def test_any_network_gives_a_plain_model_of_torchvision(
    model: str, machine: MachineHome, tmp_path: Path
) -> None:
    run = _run(machine, _tiny(tmp_path / "images"), model=model)
    assert main(run.folder.spec) == 0
    metrics = run.metrics
    assert (metrics.counters.images, metrics.counters.decoded, metrics.counters.forwarded) == (20, 20, 20)
    assert metrics.frozen.tensors == metrics.frozen.equal > 0
    file = run.folder.result / "model" / "model.safetensors"
    plain = models.get_model(model, num_classes=2).eval()
    state = plain.state_dict()
    loaded = load_file(file)
    file.unlink()  # half a gigabyte for VGG16
    assert set(state) == set(loaded)
    state.update(loaded)
    plain.load_state_dict(state)
    assert [row["label"] for row in run.predictions] == ["birch"] * 5 + ["oak"] * 5


def test_each_image_is_decoded_and_passed_through_the_network_exactly_once(
    machine: MachineHome, tmp_path: Path
) -> None:
    """Counted from outside: calls of Pillow's `open`, and images that reach the first convolution."""
    run = _run(machine, _tiny(tmp_path / "images", per_class=10), model="resnet18")
    opened: list[int] = []
    passed: list[int] = []

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code is Image.open.__code__:
            opened.append(1)

    def hook(module: torch.nn.Module, given: tuple[torch.Tensor, ...], _: object) -> None:
        if isinstance(module, torch.nn.Conv2d) and module.in_channels == 3 and given[0].device.type != "meta":
            passed.append(len(given[0]))

    handle = torch.nn.modules.module.register_module_forward_hook(hook)
    threading.setprofile(profile)
    try:
        assert main(run.folder.spec) == 0
    finally:
        threading.setprofile(None)
        handle.remove()
    assert (sum(opened), sum(passed)) == (40, 40)
    assert run.metrics.counters.decoded == run.metrics.counters.forwarded == 40


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    images = _tiny(tmp_path / "images")
    written = []
    for workers in (1, 4):
        machine = fixtures.home(tmp_path / f"home {workers}")  # of its own: nothing is cached
        run = _run(machine, images, decode_workers=workers, model="squeezenet1_1")
        assert main(run.folder.spec) == 0
        written.append((run.folder.result / "model" / "model.safetensors").read_bytes())
    assert written[0] == written[1]


def test_awkward_images_are_predicted_as_they_were_in_the_run(machine: MachineHome, tmp_path: Path) -> None:
    folder = _tiny(tmp_path / "images", splits="train")
    photo = Image.open(folder / "train" / "birch" / "0.png").resize((90, 60))
    exif = Image.Exif()
    exif[274] = 6
    (folder / "val" / "birch").mkdir(parents=True)
    stored: list[tuple[str, Image.Image, dict[str, Any]]] = [
        ("grey.png", photo.convert("L"), {}),
        ("palette.png", photo.convert("P"), {}),
        ("glass.png", Image.merge("RGBA", (*photo.split(), photo.convert("L"))), {}),
        ("cmyk.tif", photo.convert("CMYK"), {}),
        ("turned.jpg", photo, {"exif": exif}),
        (os.fsdecode(b"latin \xe9.png"), photo, {}),
        ("deep.png", Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 9 + 300), {}),
        ("bits.png", photo.convert("1"), {}),
        ('a b\n,"ü=1.png', photo, {}),
    ]
    for name, image, options in stored:
        image.save(folder / "val" / "birch" / name, **options)
    run = _run(machine, folder, model="squeezenet1_1", dataset={"window": [300, 2600]})
    assert main(run.folder.spec) == 0
    rows = run.predictions
    assert len(rows) == 9
    lines = list(predict(run.folder.result / "model", [run.file(row["path"]) for row in rows]))
    for row, line in zip(rows, lines, strict=True):
        assert line["probabilities"]["oak"] == pytest.approx(float(row["p_oak"]), abs=5e-6), row["path"]


def test_predict_goes_on_after_what_it_cannot_read(hymenoptera: Run, tmp_path: Path) -> None:
    (tmp_path / "no.jpg").write_text("no image")
    good = hymenoptera.file(hymenoptera.predictions[0]["path"])
    lines = list(
        predict(hymenoptera.folder.result / "model", [tmp_path / "no.jpg", good, tmp_path / "gone.jpg"])
    )
    assert ["error" in line for line in lines] == [True, False, True]
    assert [line["path"] for line in lines] == [
        str(tmp_path / "no.jpg"),
        str(good),
        str(tmp_path / "gone.jpg"),
    ]


def _refused(run: Run, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(run.folder.spec) == 3
    last = run.events[-1]
    assert (last["type"], last["level"]) == ("log", "error")
    assert last["text"] in capsys.readouterr().out
    assert not (run.folder.result / "metrics.json").exists()
    return str(last["text"])


def test_what_cannot_be_used_ends_the_run_with_its_reason(
    machine: MachineHome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = _tiny(tmp_path / "one", names=("birch",))
    assert "1 class" in _refused(_run(machine, images, tail="aaaa"), capsys)
    images = _tiny(tmp_path / "two")
    _tiny(images, names=("elm",), splits="val")
    assert "no image to train on of: 'elm'" in _refused(_run(machine, images, tail="bbbb"), capsys)
    images = _tiny(tmp_path / "three")
    weights = fixtures.put_weights(machine, shared("weights/resnet20-12fca82f.th"))
    assert "training checkpoint" in _refused(_run(machine, images, tail="cccc", weights=weights), capsys)
    run = _run(machine, images, tail="dddd", penalty_max=1e-3, penalty_min=1.0)
    assert "penalty_min" in _refused(run, capsys)
    run = _run(machine, images, tail="eeee")
    spec = json.loads(run.folder.spec.read_text())
    spec["parameters"]["bach_size"] = 3
    run.folder.spec.write_text(json.dumps(spec))
    assert "Did you mean 'batch_size'" in _refused(run, capsys)
    run = _run(machine, images, tail="ffff")
    run.folder.manifest.write_bytes(b"damaged")
    assert "not a gzip file" in _refused(run, capsys)


def test_a_damaged_pack_ends_the_run_with_the_name_of_the_image(
    machine: MachineHome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _run(machine, _tiny(tmp_path / "images"))
    pack = machine.pack(run.dataset.manifest.images[0].pack)
    pack.write_bytes(bytes(pack.stat().st_size))
    assert "train/birch/0.png can't be read" in _refused(run, capsys)


def test_images_left_out_of_training_are_not_read(machine: MachineHome, tmp_path: Path) -> None:
    images = _tiny(tmp_path / "images")
    run = _run(machine, images, dataset={"exclude": ["train/oak/0.png"]})
    assert main(run.folder.spec) == 0
    assert (run.metrics.excluded, run.metrics.images, run.metrics.counters.decoded) == (
        1,
        {"train": 9, "val": 10},
        19,
    )


def test_test_images_are_the_result_where_there_are_some(machine: MachineHome, tmp_path: Path) -> None:
    run = _run(machine, _tiny(tmp_path / "images", splits="train val test"))
    assert main(run.folder.spec) == 0
    assert [evaluation.split for evaluation in run.metrics.evaluations[1:]] == ["val", "test"]
    assert run.metrics.result.chose == "nothing"
    assert run.metrics.result.split == "test"


def test_without_val_and_test_held_out_images_are_the_result(machine: MachineHome, tmp_path: Path) -> None:
    run = _run(machine, _tiny(tmp_path / "images", splits="train"))
    assert main(run.folder.spec) == 0
    assert run.metrics.result.chose != "nothing"
    assert run.predictions == []


def test_sigterm_ends_it_with_an_exit_code_of_its_own(machine: MachineHome, tmp_path: Path) -> None:
    run = _run(
        machine, _tiny(tmp_path / "images", per_class=40), model="squeezenet1_1", image_size=512, batch_size=1
    )
    command = [
        sys.executable,
        "-c",
        "import sys, pathlib, remote.train; sys.exit(remote.train.main(pathlib.Path(sys.argv[1])))",
    ]
    process = subprocess.Popen(
        [*command, str(run.folder.spec)], cwd=Path(__file__).parents[2], stdout=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 120
        while not any(event["type"] == "progress" and event["done"] > 0 for event in run.events):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 12
    finally:
        process.kill()
        process.wait()
    assert run.events[-1]["text"] == "Stopped while features were extracted, as it was told to"
