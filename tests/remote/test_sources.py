"""Another source of models is one file and a line: every scenario runs on its architectures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from remote import sources
from remote.contract import document, events
from remote.contract.metrics import Metrics
from remote.contract.scenarios import SCENARIOS
from remote.errors import CannotRun
from remote.networks import backbones
from remote.predict import predict
from remote.sources import Source, torchvision
from remote.train import main
from tests.remote import fixtures, toy_source

MODEL = "toy:tiny"


@pytest.fixture
def another(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setitem(sources.SOURCES, "toy", toy_source.__name__)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        for label, name in enumerate(("birch", "oak")):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 120, (40, 40, 3))
                pixels[:, :, label] += 100
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / name / f"{number}.png")
    return folder


def test_a_module_is_a_source() -> None:
    found: list[Source] = [torchvision, toy_source]
    assert sources.source_of("resnet18") is found[0]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_each_scenario_runs_on_a_model_of_another_source(
    tmp_path: Path, images: Path, another: None, scenario: str
) -> None:
    machine = fixtures.home(tmp_path / "home")
    state = backbones.build(MODEL, 5, seed=1).module.state_dict()
    save_file({name.replace("classes.", "last."): tensor for name, tensor in state.items()}, tmp_path / "w")
    weights = None if scenario == "from-scratch" else fixtures.put_weights(machine, tmp_path / "w", "Toys")
    trained: dict[str, Any] = (
        {} if scenario in ("fixed-extractor", "initial-layers") else {"epochs": 1, "holdout": 0.3}
    )
    folder = fixtures.put_run(
        machine,
        fixtures.pack_folder(machine, images),
        scenario=scenario,
        model=MODEL,
        weights=weights,
        **trained,
    )
    assert main(folder.spec) == 0, folder.events.read_text()
    metrics = document.decode(Metrics, (folder.result / "metrics.json").read_bytes(), what="metrics.json")
    assert (metrics.model, metrics.frozen.equal) == (MODEL, metrics.frozen.tensors)
    told = [events.parse(line) for line in folder.events.read_bytes().splitlines()]
    steps = [event["name"] for event in told if event and event["type"] == "step"]
    assert list(dict.fromkeys(steps)) == list(events.STEPS)
    if scenario == "fixed-extractor":
        early = load_file(folder.result / "model" / "model.safetensors")["early.0.weight"]
        assert torch.equal(early, state["early.0.weight"])
        assert [depth.name for depth in metrics.by_depth] == ["early", "late", "features"]
    readme = (folder.result / "model" / "README.md").read_text(encoding="utf-8")
    assert "import toys\n" in readme and 'toys.create(card["model"], len(card["classes"]))' in readme
    photo = images / "val" / "oak" / "0.png"
    (said,) = predict(folder.result / "model", [photo])
    rows = (folder.result / "predictions.csv").read_text().splitlines()
    (row,) = [row for row in rows if row.startswith("val/oak/0.png")]
    assert said["probabilities"]["oak"] == pytest.approx(float(row.split(",")[-1]), abs=2e-6)


def test_what_no_source_has_is_an_error() -> None:
    with pytest.raises(CannotRun, match=r"'timm:resnet18' is of no source of models: there is torchvision"):
        backbones.build("timm:resnet18", 2, seed=0)
    with pytest.raises(CannotRun, match="'resnet19' is not a classification model of torchvision"):
        backbones.build("resnet19", 2, seed=0)
