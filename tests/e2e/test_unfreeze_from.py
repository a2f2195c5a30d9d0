"""`tlvm run fine-tune-top --unfreeze-from NAME` as a user types it: the layers from there on train, no others do.

With weights that were pushed into the store before and are asked for by their name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.e2e.command import Tlvm
from tests.e2e.test_evaluate import draw
from tests.shared_data import shared

WEIGHTS = "weights/squeezenet1_1-onnxzoo-fp32.pth"
TRAINED = ("features.11.", "features.12.", "classifier.")


@pytest.fixture
def tlvm(tmp_path: Path) -> Iterator[Tlvm]:
    tlvm = Tlvm(tmp_path)
    try:
        yield tlvm
    finally:
        tlvm("down", "--force", "--yes")


def test_the_layers_from_there_on_train_and_no_others(tlvm: Tlvm) -> None:
    weights = shared(WEIGHTS)
    photos = draw(tlvm.home / "colours", {"train": 8, "val": 2, "test": 2}, seed=1)
    tlvm("weights", "push", weights)
    (kept,) = tlvm("weights", "list", "--json").document["files"]
    run = tlvm(
        *("run", "fine-tune-top", "--data", photos, "--model", "squeezenet1_1", "--weights", weights.name),
        *("--unfreeze-from", "features.11", "--set", "image_size=64", "--set", "batch_size=8"),
        *("--set", "learning_rate=0.0003", "--set", "epochs=2", "--set", "warmup_epochs=0", "--json"),
    ).document
    result = Path(run["folder"])
    assert (kept["origin"], run["weights"]) == (f"file {weights.name}",) * 2
    told = json.loads((result / "metrics.json").read_text())
    assert told["training"]["unfreeze_from"] == "features.11"
    assert told["training"]["best_epoch"] > 0, "the classifier alone was kept"

    given = torch.load(weights, weights_only=True)
    found = load_file(result / "model" / "model.safetensors")
    moved = {name for name, value in found.items() if not torch.equal(value, given[name])}
    assert moved == {name for name in found if name.startswith(TRAINED)}
