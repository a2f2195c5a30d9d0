"""What `upload` says does not depend on how it came to know: --strict on an unchanged folder, hints of a mere check."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from orchestrator.config import load
from orchestrator.datasets.checks.offer import Offer
from orchestrator.errors import DataError
from orchestrator.progress import Silent
from orchestrator.workflows.data.upload import upload
from orchestrator.workflows.workspace import Workspace
from tests.orchestrator.pictures import fill, picture
from tests.shared_data import shared

LONG_AGO = 1_600_000_000  # a file that was just written may still change unseen: it is looked at again


def equal(folder: Path) -> None:
    (folder / "val/ants/copy.png").write_bytes((folder / "train/ants/0000.png").read_bytes())


def near(folder: Path) -> None:
    photo = next(iter(sorted(shared("data/hymenoptera/train/ants").glob("*.jpg"))))
    (folder / "train/ants/photo.jpg").write_bytes(photo.read_bytes())
    again = io.BytesIO()
    Image.open(photo).save(again, "JPEG", quality=60)
    (folder / "val/ants/again.jpg").write_bytes(again.getvalue())


def grouped(folder: Path) -> None:
    for split in ("train", "val"):
        old = next(iter(sorted((folder / split / "ants").glob("*.png"))))
        old.rename(old.with_name(f"p7-{old.name}"))


@pytest.mark.parametrize("leak", [equal, near, grouped])
def test_strict_says_the_same_of_an_unchanged_folder(tmp_path: Path, leak: Callable[[Path], None]) -> None:
    folder = fill(tmp_path / "bugs", {"train/ants": 4, "train/bees": 4, "val/ants": 2, "val/bees": 2})
    leak(folder)
    for file in folder.rglob("*.*"):
        os.utime(file, (LONG_AGO, LONG_AGO))
    workspace = Workspace(load({}, environ={"TLVM_DATA_DIR": str(tmp_path / "data")}, folder=tmp_path))
    group_by = r"(p7|\d+)" if leak is grouped else None

    def strictly(*, check_only: bool = False) -> str:
        with pytest.raises(DataError) as error:
            upload(workspace, folder, strict=True, group_by=group_by, check_only=check_only, processes=1)
        return str(error.value)

    first = strictly()
    assert first.startswith("1 image of bugs on two sides of the split\n")
    (sent,) = upload(workspace, folder, group_by=group_by, processes=1)
    (again,) = upload(workspace, folder, group_by=group_by, processes=1)
    assert not sent.unchanged and again.unchanged and again.leaks == sent.leaks
    assert [strictly(), strictly(), strictly(check_only=True)] == [first] * 3


class Said(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, label: str, text: str) -> None:
        self.lines.append(f"{label} {text}")


def heavy(folder: Path) -> Path:
    """Photos as heavy as of a good camera."""
    for number in range(6):
        path = folder / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number, "JPEG", (1200, 900)) + bytes(9_000_000))
    return folder


def test_a_check_gives_the_hint_of_the_upload_and_asks_nothing(tmp_path: Path) -> None:
    def never(_: Offer) -> bool:
        raise AssertionError

    folder = heavy(tmp_path / "bugs")
    settings = load({}, environ={"TLVM_DATA_DIR": str(tmp_path / "data")}, folder=tmp_path)
    checked, asked, sent = Said(), Said(), Said()
    upload(Workspace(settings, checked), folder, check_only=True, processes=1)
    upload(Workspace(settings, asked), folder, check_only=True, processes=1, ask=never)
    upload(Workspace(settings, sent), folder, processes=1)
    (hint,) = [line for line in sent.lines if "--resize" in line]
    assert re.fullmatch(
        r"size 54 MB \(43 s at 10 Mbit/s\) as they are, or about \d+ kB \(.* s at 10 Mbit/s\) at 512 px; "
        r"most models see 224: --resize 512",
        hint,
    )
    assert hint in checked.lines and hint in asked.lines
