"""What a run needs to go on, written whole or not at all, and read without running code from it."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

_FILE = "latest.pt"


def save(folder: Path, run_id: str, state: dict[str, Any]) -> None:
    """Replace the checkpoint of this run. `state` holds tensors, numbers, text, lists and dicts of these."""
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f".{_FILE}"
    with beside.open("wb") as file:
        torch.save({"run_id": run_id, "state": state}, file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(folder / _FILE)


def load(folder: Path, run_id: str) -> dict[str, Any] | None:
    """The checkpoint of this run; None where there is none that can be used."""
    try:
        found = torch.load(folder / _FILE, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError):
        return None
    if (
        not isinstance(found, dict)
        or found.get("run_id") != run_id
        or not isinstance(found.get("state"), dict)
    ):
        return None
    state: dict[str, Any] = found["state"]
    return state
