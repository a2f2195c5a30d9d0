"""`from-scratch` learns small images quickly, and its network serves other classes afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from remote.contract import document, events
from remote.contract.metrics import Metrics
from remote.job.outcome import judged
from remote.job.record import read_spec
from remote.job.training_process import End, Limits
from remote.predict import predict
from remote.train import main
from tests.remote import fixtures


def _digits(folder: Path, digits: range, *, each: int) -> Path:
    """Handwritten digits of 8 x 8 pixels, a fifth of them for val."""
    data = load_digits()
    for digit in digits:
        for index, image in enumerate(data.images[data.target == digit][:each]):
            path = folder / ("val" if index % 5 == 0 else "train") / f"digit {digit}" / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.round(image * 255 / 16).astype(np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("digits")


def test_a_network_learns_some_digits_and_knows_others_by_their_features(digits: Path) -> None:
    machine = fixtures.home(digits / "home")
    known = fixtures.pack_folder(machine, _digits(digits / "known", range(4), each=70), flips="none")
    first = fixtures.put_run(
        machine,
        known,
        scenario="from-scratch",
        model="resnet18",
        image_size=32,
        epochs=3,
        batch_size=32,
        augmentation="light",
    )
    assert main(first.spec) == 0
    metrics = document.decode(Metrics, (first.result / "metrics.json").read_bytes(), what="metrics.json")
    assert (metrics.reported, metrics.result.chose) == ("val", "nothing")
    assert metrics.result.accuracy > 0.8
    told = [event for event in map(events.parse, first.events.read_bytes().splitlines()) if event is not None]
    assert [(event["epoch"], event["of"]) for event in told if event["type"] == "epoch"][-1] == (3, 3)
    steps = [event["name"] for event in told if event["type"] == "step"]
    assert list(dict.fromkeys(steps)) == list(events.STEPS)

    new = fixtures.pack_folder(machine, _digits(digits / "new", range(4, 8), each=50), flips="none")
    source = fixtures.put_weights(machine, first.result / "model" / "model.safetensors", "run ...-k3qz")
    second = fixtures.put_run(machine, new, model="resnet18", weights=source)
    assert main(second.spec) == 0
    metrics = document.decode(Metrics, (second.result / "metrics.json").read_bytes(), what="metrics.json")
    assert metrics.result.accuracy > 0.8
    card = json.loads((second.result / "model" / "model.json").read_text())
    assert card["preprocessing"]["crop"] == 32  # as the source was trained, not as ImageNet weights would be
    line = next(predict(second.result / "model", [next((digits / "new" / "val" / "digit 5").iterdir())]))
    assert sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_hours_that_do_not_last_for_all_epochs_lose_nothing(digits: Path) -> None:
    machine = fixtures.home(digits / "home3")
    dataset = fixtures.pack_folder(machine, _digits(digits / "few", range(2), each=20), flips="none")
    run = fixtures.put_run(
        machine, dataset, scenario="from-scratch", model="squeezenet1_1", image_size=32, epochs=9
    )
    assert main(run.spec, left_s=lambda: 0.0) == 0
    metrics = document.decode(Metrics, (run.result / "metrics.json").read_bytes(), what="metrics.json")
    assert [epoch["epoch"] for epoch in metrics.training["epochs"]] == [1]
    assert metrics.training["ended_by"] == "max_hours"
    end = End(exit_code=0, why="", out_of_memory=False, peak_memory_mb=0.0)
    outcome = judged(end, read_spec(run.spec), run, Limits(), error="")
    assert (outcome.state, outcome.message) == ("SUCCEEDED", "its max_hours were over after 1 of 9 epochs")
    said = run.events.read_text()
    told = [event for event in map(events.parse, said.encode().splitlines()) if event is not None]
    assert {event["epoch"] for event in told if event["type"] == "progress" and event["step"] == "train"} == {
        1
    }
    assert "Stopped after epoch 1 of 9: 0 s of max_hours are left" in said
    assert "\nIts hours were over after 1 of 9 epochs.\n" in (run.result / "model" / "README.md").read_text()
    assert "1 epoch kept" in said and "its hours did not last for more" in said


def test_val_steers_only_where_test_is_the_result(digits: Path) -> None:
    machine = fixtures.home(digits / "home2")
    folder = _digits(digits / "three", range(2), each=30)
    (folder / "test").mkdir()
    for name in ("digit 0", "digit 1"):
        images = sorted((folder / "train" / name).iterdir())[:5]
        (folder / "test" / name).mkdir()
        for image in images:
            image.rename(folder / "test" / name / image.name)
    dataset = fixtures.pack_folder(machine, folder, flips="none")
    run = fixtures.put_run(
        machine, dataset, scenario="from-scratch", model="squeezenet1_1", image_size=32, epochs=1
    )
    assert main(run.spec) == 0
    metrics = document.decode(Metrics, (run.result / "metrics.json").read_bytes(), what="metrics.json")
    by_split = {evaluation.split: evaluation.chose for evaluation in metrics.evaluations}
    assert "stop" in by_split["val"]
    assert by_split["test"] == "nothing"
    assert metrics.reported == "test"
