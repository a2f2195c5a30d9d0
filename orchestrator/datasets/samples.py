"""Sample images for `tlvm demo`: handwritten digits, written by a process of their own that may load scikit-learn."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import remote.contract
from orchestrator.errors import CloudError, ConfigError

_NOT_INSTALLED = 3  # what remote.samples exits with
_TIMEOUT_S = 120


def write_digits(folder: Path, digits: str, *, each: int) -> int:
    """Write `<folder>/<class>/*.png`, 32 x 32 pixels, and return how many.

    digits        the first and the last, like "0-4": a class each
    each          at most so many images a digit
    ConfigError   scikit-learn, which carries them, is not installed
    """
    packages = str(Path(remote.contract.__file__).parents[2])
    inherited = os.environ.get("PYTHONPATH")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "remote.samples", str(folder), "--digits", digits, "--each", str(each)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join([packages, *([inherited] if inherited else [])])},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CloudError(
            "The sample images could not be written", detail=str(error), next="Try again."
        ) from None
    if done.returncode == _NOT_INSTALLED:
        raise ConfigError(
            "The sample images come with scikit-learn, which is not installed",
            next="pip install 'tlvm[train]', then tlvm demo.",
        )
    if done.returncode != 0:
        raise CloudError(
            "The sample images could not be written",
            detail=done.stderr[-1000:],
            next=f"Check the disk of {folder.parent}.",
        )
    return int(done.stdout)
