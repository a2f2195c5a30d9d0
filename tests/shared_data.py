"""Real images and weights, kept beside the checkout in `shared/`."""

from __future__ import annotations

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
