"""The sample images are the digits that scikit-learn carries, the same bytes every time."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from orchestrator.datasets.samples import write_digits
from orchestrator.errors import CloudError
from remote.samples import NAMES, write


def test_digits_are_written_one_folder_a_class(tmp_path: Path) -> None:
    assert write_digits(tmp_path / "digits", "3-4", each=5) == 10
    assert sorted(path.name for path in (tmp_path / "digits").iterdir()) == ["four", "three"]
    files = sorted((tmp_path / "digits").glob("*/*.png"))
    assert len(files) == 10
    with Image.open(files[0]) as image:
        assert (image.mode, image.size) == ("L", (32, 32))


def test_the_pictures_are_the_digits_that_they_are_said_to_be(tmp_path: Path) -> None:
    images, labels = load_digits(return_X_y=True)
    write(tmp_path, range(10), each=3)
    for digit, name in enumerate(NAMES):
        for path in (tmp_path / name).iterdir():
            assert labels[int(path.stem)] == digit
            with Image.open(path) as image:
                small = 255 - np.asarray(image.resize((8, 8), Image.Resampling.BOX), dtype=float)
            ink = images[int(path.stem)]
            assert np.corrcoef(small.ravel(), ink)[0, 1] > 0.95


def test_the_same_call_writes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, range(2), each=4)
    one, other = (
        [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((tmp_path / name).rglob("*.png"))]
        for name in ("a", "b")
    )
    assert one == other and len(set(one)) == 8


def test_a_folder_that_cannot_be_written_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CloudError, match="could not be written"):
        write_digits(tmp_path / "file" / "digits", "0-1", each=1)
