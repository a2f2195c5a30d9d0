"""Real images and weights, kept beside the checkout in `shared/`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

_SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared(path: str) -> Path:
    """A file or folder of the shared material; skips the test only where there is no such material at all."""
    if not _SHARED.is_dir():
        pytest.skip(f"no folder {_SHARED}")
    found = _SHARED / path
    assert found.exists(), f"{found} is missing"
    return found


def unpacked(path: str, folder: Path) -> Path:
    """The files of a shared archive, under their names, byte for byte. (Python 3.11.2's tarfile knows no filters yet.)"""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["tar", "-xf", shared(path), "-C", folder], check=True)
    return folder
