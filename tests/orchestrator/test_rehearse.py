"""Before a rehearsal makes anything: where it is done, and whether what it needs is whole."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest

from orchestrator.config import load
from orchestrator.errors import CloudError, DataError
from orchestrator.progress import Silent
from orchestrator.workflows.data.upload import upload
from orchestrator.workflows.runs.rehearse import rehearse
from orchestrator.workflows.runs.wish import Wish, resolve
from orchestrator.workflows.workspace import Workspace
from remote.contract import layout
from remote.contract.run_spec import DatasetRef, WeightsRef
from tests.e2e.test_wheel import few_photos
from tests.orchestrator.finished_runs import put

KEY = "weights/mine.pth"


class Warned(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    few_photos(tmp_path / "photos")
    return tmp_path


def opened(folder: Path, provider: str = "local") -> Workspace:
    return Workspace(
        load({"provider": provider}, environ={"TLVM_DATA_DIR": str(folder / "data")}, folder=folder), Warned()
    )


def wish(workspace: Workspace, folder: Path) -> Wish:
    (uploaded,) = upload(workspace, folder / "photos")
    weights = WeightsRef("file mine.pth", hashlib.sha256(b"weights").hexdigest(), KEY)
    parameters = resolve(workspace, "fixed-extractor", {})
    dataset = DatasetRef(uploaded.name, uploaded.version)
    return Wish("fixed-extractor", parameters, dataset, weights, "resnet18", 0, 1.0)


def left(folder: Path) -> list[Path]:
    return [*(folder / "data").glob("machines/*"), *(folder / "data").glob("records/machines/**/*.json")]


def test_weights_that_are_damaged_are_said_before_there_is_a_machine(folder: Path) -> None:
    workspace = opened(folder)
    wanted = wish(workspace, folder)
    put(workspace, KEY, b"not the weights")
    with pytest.raises(CloudError, match=f"{KEY} in .* is damaged"):
        rehearse(workspace, [wanted], next="tlvm run fixed-extractor")
    assert left(folder) == []


def test_images_that_are_damaged_are_said_before_there_is_a_machine(folder: Path) -> None:
    workspace = opened(folder)
    wanted = wish(workspace, folder)
    put(workspace, KEY, b"weights")
    (pack,) = [blob.key for blob in workspace.store.blobs(layout.PACKS)]
    put(workspace, pack, b"damaged")
    with pytest.raises(DataError, match="is damaged"):
        rehearse(workspace, [wanted], next="tlvm run fixed-extractor")
    assert left(folder) == []


def test_without_docker_it_is_done_on_this_computer_and_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{folder}/nobody.sock")
    workspace = opened(folder, "docker")
    wanted = dataclasses.replace(wish(workspace, folder), weights=WeightsRef("x", "a" * 64, KEY))
    put(workspace, KEY, b"weights")
    with pytest.raises(CloudError, match="is damaged"):
        rehearse(workspace, [wanted], next="tlvm run fixed-extractor")
    assert isinstance(workspace.progress, Warned)
    (said,) = workspace.progress.warnings
    assert "the rehearsal is done on this computer itself, not in Docker" in said
