"""What was asked of `tlvm run`, as data: what is a line, what is repeated, and the command that does it in earnest."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config import load
from orchestrator.errors import ConfigError
from orchestrator.progress import Silent
from orchestrator.workflows.runs.request import Request, fulfil, in_earnest
from orchestrator.workflows.runs.wish import data_and_weights, dataset_of
from orchestrator.workflows.workspace import Workspace
from tests.orchestrator.pictures import fill


def test_several_scenarios_or_all_are_a_line() -> None:
    assert not Request(["fixed-extractor"]).is_line
    assert not Request(spec="k3qz").is_line
    assert Request(["all"]).is_line
    assert Request(["fixed-extractor", "from-scratch"]).is_line


def test_what_is_said_beside_a_run_that_is_repeated_wins() -> None:
    assert Request(["from-scratch"]).repeat is None
    repeat = Request(spec="k3qz", model="resnet50", seed=0, machine="tlvm-a").repeat
    assert repeat and (repeat.run, sorted(repeat.instead)) == ("k3qz", ["model", "seed"])


def test_the_command_in_earnest_says_all_that_was_asked_but_the_rehearsal_and_values_of_variables() -> None:
    request = Request(
        ["fixed-extractor", "fine-tune-all"],
        rehearse=True,
        data=Path("my photos"),
        model="squeezenet1_1",
        weights="none",
        parameters={"folds": "3", "epochs": "2"},
        seed=0,
        max_hours=1.5,
        recover=False,
        ephemeral=True,
        machine="tlvm-a",
        provider="gce",
        env=["HF_HOME", "LAB_TOKEN=s3cret=="],
        env_files=[Path("secrets.env")],
    )
    words = (
        "tlvm run fixed-extractor fine-tune-all --data 'my photos' --model squeezenet1_1 --weights none --seed 0 "
        "--max-hours 1.5 --machine tlvm-a --provider gce --set folds=3 --set epochs=2 --env HF_HOME "
        "--env LAB_TOKEN=... --env-file secrets.env --no-recover --ephemeral"
    )
    assert in_earnest(request) == words
    assert (
        in_earnest(Request(spec="k3qz", rehearse=True, dataset="photos"))
        == "tlvm run --spec k3qz --dataset photos"
    )


class Said(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def test_a_run_on_a_folder_says_what_is_wrong_in_it(tmp_path: Path) -> None:
    folder = fill(tmp_path / "bugs", {"train/ants": 4, "train/bees": 3, "val/ants": 2, "val/bees": 2})
    (folder / "train" / "ants" / "broken.jpg").write_bytes(b"\xff\xd8\xff no photo")
    said = Said()
    dataset_of(
        Workspace(load({}, environ={"TLVM_DATA_DIR": str(tmp_path / "data")}, folder=tmp_path), said), folder
    )
    assert any(text.startswith("Fewer than 10 images in train") for text in said.warnings)
    assert f"1 image can't be used: tlvm upload {folder} --check-only lists them" in said.warnings


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model": "resnet81"}, "Unknown model 'resnet81'"),
        ({"weights": "mine.pth"}, "there is no such file"),
        ({"parameters": {"lr": "1"}}, "lr"),
    ],
)
@pytest.mark.parametrize("scenarios", [["fixed-extractor"], ["fixed-extractor", "from-scratch"]])
def test_nothing_is_uploaded_for_a_run_that_can_not_be(
    tmp_path: Path, scenarios: list[str], given: dict[str, Any], said: str
) -> None:
    folder = fill(tmp_path / "bugs", {"train/ants": 2, "train/bees": 2})
    flags = {f"run.{name}": value for name, value in given.items() if name != "parameters"}
    settings = load(flags, environ={"TLVM_DATA_DIR": str(tmp_path / "data")}, folder=tmp_path)
    workspace, parameters = Workspace(settings), given.get("parameters", {})
    with pytest.raises(ConfigError, match=said):
        fulfil(workspace, Request(scenarios=scenarios, data=folder, parameters=parameters))
    assert list(workspace.store.blobs("")) == []


def test_a_computer_that_can_not_train_says_so_before_anything_is_uploaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fill(tmp_path / "bugs", {"train/ants": 2, "train/bees": 2, "val/ants": 1, "val/bees": 1})
    settings = {"store.url": str(tmp_path / "store")}
    workspace = Workspace(load(settings, environ={"TLVM_DATA_DIR": str(tmp_path / "d")}, folder=tmp_path))
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ConfigError, match=r"can't train: torchvision is missing\n"):
        data_and_weights(workspace, folder, lambda: None)
    assert not (tmp_path / "store").exists()
    elsewhere = Workspace(
        load(
            settings | {"provider": "docker"}, environ={"TLVM_DATA_DIR": str(tmp_path / "d")}, folder=tmp_path
        )
    )
    assert data_and_weights(elsewhere, folder, lambda: None)[0].name == "bugs"
