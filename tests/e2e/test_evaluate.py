"""`tlvm evaluate RUN --on DATASET` as a user types it: a model that was trained here, on images that came later."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.e2e.command import Tlvm

MODEL = ("--model", "squeezenet1_1", "--weights", "none", "--set", "image_size=32")


@pytest.fixture
def tlvm(tmp_path: Path) -> Iterator[Tlvm]:
    tlvm = Tlvm(tmp_path)
    try:
        yield tlvm
    finally:
        tlvm("down", "--force", "--yes")


def draw(folder: Path, counts: dict[str, int], *, seed: int) -> Path:
    """Reddish and bluish noise, so many of each below each of these folders."""
    generator = np.random.default_rng(seed)
    for below, count in counts.items():
        for channel, name in ((0, "red"), (2, "blue")):
            (folder / below / name).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 120, (40, 40, 3), dtype=np.uint8)
                pixels[..., channel] += 120
                Image.fromarray(pixels).save(folder / below / name / f"{seed}-{number}.png")
    return folder


def test_a_model_is_measured_on_images_that_came_later(tlvm: Tlvm) -> None:
    first = draw(tlvm.home / "colours", {"train": 8, "val": 4, "test": 4}, seed=1)
    tlvm("upload", first)
    run = tlvm("run", "fixed-extractor", *MODEL, "--dataset", "colours", "--json").document

    later = draw(tlvm.home / "later", {"": 5}, seed=2)
    for split in (
        "train",
        "val",
        "test",
    ):  # images that the run knows: two that it was fitted on, one that judged
        shutil.copyfile(first / split / "red" / "1-0.png", later / "red" / f"{split}.png")
    tlvm("upload", later)
    said = tlvm("evaluate", run["run_id"][-4:], "--on", "later", "--json")
    result = said.document
    assert (result["run_id"], result["dataset"], result["split"]) == (run["run_id"], "later", "all")
    assert result["measured_by"] != run["run_id"]
    found = result["metrics"]
    (figures,) = found["evaluations"]
    assert (figures["n"], result["left_out"], figures["chose"]) == (11, 2, "nothing")
    assert figures["accuracy"] > 0.8
    low, high = figures["accuracy_interval"]
    assert low < figures["accuracy"] <= high
    assert (found["counters"]["decoded"], found["evaluates"]) == (11, run["run_id"])
    assert found["frozen"]["equal"] == found["frozen"]["tensors"] > 0
    rows = (Path(result["folder"]) / "predictions.csv").read_text().splitlines()
    assert len(rows) == 12
    assert json.loads((Path(result["folder"]) / "metrics.json").read_text()) == found
