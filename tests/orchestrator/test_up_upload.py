"""`up --upload`: both at once, and what becomes of one when the other fails."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from orchestrator.config import load
from orchestrator.errors import CapacityError, DataError
from orchestrator.providers.base import MachineSpec
from orchestrator.workflows.datasets import resolve
from orchestrator.workflows.up import UpResult
from orchestrator.workflows.up_upload import up_and_upload
from orchestrator.workflows.workspace import Workspace
from remote.contract.run_spec import StoreRef
from tests.orchestrator.pictures import fill

BUGS = {"train/ants": 4, "train/bees": 3, "val/ants": 2, "val/bees": 2}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(load({}, environ={"TLVM_DATA_DIR": str(tmp_path / "data")}, folder=tmp_path))


def ready() -> UpResult:
    spec = MachineSpec(
        name="m", owner="ana", project="bees", public_key="", store=StoreRef("/store"), max_hours=1
    )  # fmt: skip
    return UpResult(None, True, spec)


def test_the_images_travel_while_the_machine_boots(tmp_path: Path, workspace: Workspace) -> None:
    folder = fill(tmp_path / "bugs", BUGS)
    arrived = threading.Event()

    def boot(_: Workspace) -> UpResult:
        while not (tmp_path / "data/store/datasets/bugs/HEAD").exists():
            assert not arrived.wait(0.01)
        return ready()

    made, (uploaded,) = up_and_upload(workspace, folder, bring_up=boot)
    assert made.uploaded == {"bugs": uploaded.version}
    assert resolve(workspace, "bugs")[1] == uploaded.version


def test_a_machine_that_is_not_to_be_had_says_that_the_images_are_there(
    tmp_path: Path, workspace: Workspace
) -> None:
    def refuse(_: Workspace) -> UpResult:
        raise CapacityError("No place has the machine now", detail="zone a", next="Try later.")

    with pytest.raises(CapacityError, match="No place has the machine") as error:
        up_and_upload(workspace, fill(tmp_path / "bugs", BUGS), bring_up=refuse)
    assert error.value.detail == "zone a\nThe upload is done: bugs"
    assert resolve(workspace, "bugs")[0] == "bugs"
    with pytest.raises(CapacityError) as both:
        up_and_upload(workspace, fill(tmp_path / "poor", {"ants": 3}), bring_up=refuse)
    assert both.value.detail.endswith("The upload failed too: The dataset poor has one class only: ants")


def test_images_that_can_not_be_used_say_that_the_machine_is_up(tmp_path: Path, workspace: Workspace) -> None:
    with pytest.raises(DataError, match="one class only") as error:
        up_and_upload(workspace, fill(tmp_path / "poor", {"ants": 3}), bring_up=lambda _: ready())
    assert error.value.detail == "The machine is up; tlvm down ends it."
