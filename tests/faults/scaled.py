"""A copy of the code in which time passes faster, for both sides of the hop: a minute of the product is six seconds.

Waits, patience and silence are divided; what bounds work that is really done (ending a process, booting) is not. The
product has no switch for it: numbers are replaced in the copy, and a name that is not found any more fails here. And
training waits where a test wants it to (`held`).
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

RATE = 10

_CHECKOUT = Path(__file__).resolve().parents[2]
_PARTS = ("orchestrator", "remote", "infra", "configs")
_DIVIDED = (
    "orchestrator/workflows/runs/following.py",
    "remote/contract/attempts.py",
    "remote/contract/frames.py",
    "remote/job/fetch.py",
    "remote/job/pace.py",
    "remote/job/publish.py",
    "remote/storage/gcs.py",
)
_CHECKPOINTS = {"checkpoint_least_s": "0.3", "checkpoint_times_cost": "1.0"}  # often, in a run of seconds
_HELD_BEFORE = "        if trainee.due():\n"  # between two batches
_HELD = """\
        from remote.training.held import hold

        hold(position.epoch, position.step, lambda: _save(trainee, settings, training), trainee.should_stop)
"""
_SECONDS = re.compile(r"\b(?P<name>[A-Z_]*_S = |[a-z]+_s: float = )(?P<number>[0-9.]+)\b(?! \*)")


def scaled(folder: Path) -> Path:
    """The folder, holding the packages and what they ship."""
    for part in _PARTS:
        shutil.copytree(_CHECKOUT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name in _DIVIDED:
        path = folder / name
        text, count = _SECONDS.subn(_divided, path.read_text())
        assert count, f"no seconds in {name} any more"
        path.write_text(text)
    _replace(folder / "remote/train.py", _CHECKPOINTS)
    _hold(folder / "remote/training")
    return folder


def _divided(found: re.Match[str]) -> str:
    """Parts of a second are how often something looks, and stay."""
    seconds = float(found["number"])
    return f"{found['name']}{seconds / RATE if seconds >= 1 else seconds:g}"


def _replace(path: Path, numbers: dict[str, str]) -> None:
    text = path.read_text()
    for name, number in numbers.items():
        text, count = re.subn(rf"\b({name}: float = )[0-9.]+", rf"\g<1>{number}", text)
        assert count == 1, f"{path.name} has {count} places that set {name}"
    path.write_text(text)


def _hold(folder: Path) -> None:
    shutil.copy(Path(__file__).with_name("held.py"), folder)
    text = (folder / "loop.py").read_text()
    before, mark, after = text.partition(f"\n{_HELD_BEFORE}")
    assert mark and "def train_one_epoch" in before, "training looks nowhere between two batches any more"
    (folder / "loop.py").write_text(f"{before}\n{_HELD}{mark[1:]}{after}")
