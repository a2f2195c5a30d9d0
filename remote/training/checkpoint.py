"""What a run needs to go on: written whole or not at all, checked when it is read, and read without running code.

checkpoints/checkpoint-<number>.pt   the last two; each holds its schema, run, parameters and the hash of its content
"""

from __future__ import annotations

import hashlib
import os
import pickle
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

SCHEMA = 3
_KEPT = 2

State = dict[str, Any]  # tensors, numbers, text, None, lists and dicts of these


@dataclass(frozen=True)
class Rhythm:
    """How much time passes between two checkpoints: at least so much, and so many times what the last one cost.

    All of them, those at changes of phase and the one at the end included, are held to one part in `times_cost` of the
    training too: a large network would go past it with those that no clock delays.
    """

    least_s: float
    times_cost: float


class Refused(Exception):
    """A file that is no checkpoint to go on from; the text says why."""


class Checkpoints:
    """Those of one run."""

    def __init__(
        self,
        folder: Path,
        run_id: str,
        parameters: Mapping[str, Any],
        *,
        rhythm: Rhythm,
        tell: Callable[[str], None] = lambda text: None,
        wrote: Callable[[int, int, float], None] = lambda number, size, seconds: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        parameters  resolved; a checkpoint that was made with others is refused
        tell        is given a line for people: which file was refused and why, that a disk is full
        wrote       is given the number, the bytes and the seconds of each that was written
        """
        self._folder = folder
        self._about = {"schema": SCHEMA, "run_id": run_id, "parameters": dict(parameters)}
        self.rhythm = rhythm
        self._tell = tell
        self._wrote = wrote
        self._clock = clock
        self._began = self._saved_at = clock()
        self._cost_s = self._spent_s = 0.0
        self._refused: set[Path] = set()

    def latest(self) -> State | None:
        """The state to go on from; None where there is none. What can't be used is named, the one before is tried."""
        for path in reversed(self._files()):
            try:
                return self._read(path)
            except Refused as refused:
                self._refused.add(path)
                self._tell(f"{path.name} is refused: {refused}")
        return None

    def due(self) -> bool:
        """Whether enough time has passed since the last one, and the next one and the one at the end can be afforded."""
        now = self._clock()
        least_s = max(self.rhythm.least_s, self.rhythm.times_cost * self._cost_s)
        after_both_s = self._spent_s + 2 * self._cost_s
        return now - self._saved_at >= least_s and now - self._began >= self.rhythm.times_cost * after_both_s

    def save(self, state: State) -> bool:
        """Write the state and forget all but the last two that can be gone on from. False, having said so, when the disk takes no more."""
        began = self._clock()
        files = self._files()
        number = _number(files[-1]) + 1 if files else 1
        beside = self._folder / ".checkpoint"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with beside.open("wb") as file:
                torch.save({**self._about, "sha256": digest(state), "state": state}, file)
                file.flush()
                os.fsync(file.fileno())
            size = beside.stat().st_size
            beside.replace(self._folder / f"checkpoint-{number:08d}.pt")
            _sync(self._folder)
        except (OSError, RuntimeError) as error:  # the second is what torch makes of a write that failed
            with suppress(OSError):
                beside.unlink(missing_ok=True)
            self._tell(f"No checkpoint could be written ({error}). The run goes on; later it is tried again.")
            return False
        finally:
            self._saved_at = self._clock()
            self._cost_s = self._saved_at - began
            self._spent_s += self._cost_s
        usable = [path for path in files if path not in self._refused]
        for path in (*self._refused, *usable[: 1 - _KEPT]):
            path.unlink(missing_ok=True)
        self._wrote(number, size, self._cost_s)
        return True

    def _read(self, path: Path) -> State:
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
            why = (str(error) or type(error).__name__).splitlines()[0][:200]
            raise Refused(f"it can't be read ({why})") from None
        if not isinstance(found, dict) or found.get("schema") != SCHEMA:
            raise Refused(f"it is not of schema {SCHEMA}, but of another version of tlvm")
        if found.get("run_id") != self._about["run_id"]:
            raise Refused(f"it is of another run, {str(found.get('run_id'))[:80]}")
        if found.get("parameters") != self._about["parameters"]:
            raise Refused("it was made with other parameters")
        state = found.get("state")
        if not isinstance(state, dict) or found.get("sha256") != digest(state):
            raise Refused("its content does not have the hash that it names")
        return state

    def _files(self) -> list[Path]:
        """The oldest first."""
        return sorted((path for path in self._folder.glob("checkpoint-*.pt") if _number(path)), key=_number)


def digest(value: Any) -> str:
    """The sha256 of a state: of every tensor's bytes, and of everything else as text."""
    found = hashlib.sha256()
    _feed(found.update, value)
    return found.hexdigest()


def _feed(update: Callable[[Any], None], value: Any) -> None:
    if isinstance(value, torch.Tensor):
        update(f"tensor {value.dtype} {tuple(value.shape)}".encode())
        update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    elif isinstance(value, dict):
        update(f"dict {len(value)}".encode())
        for key, item in value.items():
            update(repr(key).encode())
            _feed(update, item)
    elif isinstance(value, (list, tuple)):
        update(f"list {len(value)}".encode())
        for item in value:
            _feed(update, item)
    else:
        update(repr(value).encode())


def _number(path: Path) -> int:
    """0 for a name that is not ours."""
    digits = path.stem.partition("-")[2]
    return int(digits) if digits.isascii() and digits.isdigit() else 0


def _sync(folder: Path) -> None:
    """So that the new name survives a machine that loses its power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
