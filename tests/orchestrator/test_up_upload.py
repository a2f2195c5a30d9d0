"""`up --upload`: both at once, and what becomes of one when the other fails."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from orchestrator.config import load
from orchestrator.errors import CapacityError, ConfigError, DataError, Interruption, NotFoundError
from orchestrator.providers.base import MachineSpec
from orchestrator.workflows.data.datasets import resolve
from orchestrator.workflows.data.up_upload import Stored, up_and_upload
from orchestrator.workflows.data.upload import UploadResult, upload
from orchestrator.workflows.machines.up import UpResult
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


def test_an_option_that_only_upload_has_is_named_with_that_command(
    tmp_path: Path, workspace: Workspace
) -> None:
    folder = fill(tmp_path / "my bugs", BUGS)
    upload(workspace, folder, group_by=r"/(\d+)\.")
    with pytest.raises(ConfigError, match="was made with groups") as error:
        up_and_upload(workspace, folder, bring_up=lambda _: ready())
    assert error.value.next == (
        f"Upload it first: tlvm upload '{folder}' takes what up does not, then tlvm up goes on without --upload. "
        "Give --group-by as before; or --group-by none, if they no longer count."
    )


def test_no_machine_is_asked_for_where_there_is_no_folder(tmp_path: Path, workspace: Workspace) -> None:
    def rent(_: Workspace) -> UpResult:
        raise AssertionError("a machine was asked for")

    with pytest.raises(NotFoundError, match="no folder"):
        up_and_upload(workspace, tmp_path / "phtos", bring_up=rent)


def test_ctrl_c_waits_for_no_slow_line(tmp_path: Path, workspace: Workspace) -> None:
    line = threading.Event()

    def slow(_: Workspace, folder: Path, stored: Stored) -> list[UploadResult]:
        line.wait(60)
        return []

    def asked(_: Workspace) -> UpResult:
        raise Interruption("The machine m may exist", next="tlvm status shows it.")

    def early(_: Workspace) -> UpResult:
        raise KeyboardInterrupt

    folder = fill(tmp_path / "my bugs", BUGS)
    for bring_up, machine in ((asked, "The machine m may exist"), (early, "No machine was asked for")):
        with pytest.raises(Interruption) as raised:
            up_and_upload(workspace, folder, bring_up=bring_up, send=slow, patience_s=0)
        assert raised.value.what == f"{machine}; the upload is not finished"
        assert raised.value.next.startswith(f"tlvm upload '{tmp_path}/my bugs' goes on with it; tlvm status")
    assert not line.is_set()
    line.set()


def test_ctrl_c_ends_the_upload_before_anything_is_published(tmp_path: Path, workspace: Workspace) -> None:
    said = threading.Event()

    def sending(own: Workspace, folder: Path, stored: Stored) -> list[UploadResult]:
        with own.progress.bar("check", 2, "images") as bar:
            bar.advance()
            said.wait(60)
            while True:  # until it is told to stop
                bar.advance()

    def boot(_: Workspace) -> UpResult:
        said.set()
        raise KeyboardInterrupt

    with pytest.raises(Interruption, match="the upload is not finished"):
        up_and_upload(workspace, tmp_path, bring_up=boot, send=sending, patience_s=60)
    assert not [thread for thread in threading.enumerate() if thread.name == "upload"]


def test_ctrl_c_after_the_upload_says_what_is_published(tmp_path: Path, workspace: Workspace) -> None:
    def boot(_: Workspace) -> UpResult:
        while not [*(tmp_path / "data/store/datasets/bugs").glob("HEAD")]:
            threading.Event().wait(0.01)
        raise Interruption("The machine m may exist", next="tlvm status shows it.")

    with pytest.raises(Interruption) as raised:
        up_and_upload(workspace, fill(tmp_path / "bugs", BUGS), bring_up=boot, patience_s=60)
    assert raised.value.what == "The machine m may exist; the upload is done: bugs"
