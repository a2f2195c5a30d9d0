"""What the last start of a run asked for, beside its spec: number and machine of the attempt, and the machine's hard end.

The hard end is kept by the clock that only counts, so a machine whose clock is an hour wrong is right about it. That
clock begins anew at each boot: an end that was noted before the last one is not known any more, and whoever starts the
run again says it again.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from remote.contract import document
from remote.contract.document import ContractError
from remote.contract.layout import RunFolder
from remote.contract.start_request import StartRequest

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Asked:
    attempt: int | None = None  # at least
    machine: str = ""
    ends_s: float | None = None  # of the clock that counts since `boot`
    boot: str = ""
    schema: int = 1

    def seconds_left(self) -> float | None:
        """Until the machine's hard end; None when it is not known."""
        if self.ends_s is None or self.boot != _boot():
            return None
        return self.ends_s - _counted_s()


def read_asked(folder: RunFolder) -> Asked:
    """What nobody has asked for is all at its default."""
    try:
        text = _path(folder).read_bytes()
    except FileNotFoundError:
        return Asked()
    return document.decode(Asked, text, what=f"what the start asked for {_path(folder)}")


def keep_request(folder: RunFolder, request: StartRequest) -> None:
    """For the supervisor that is about to start, and for those after it. What is not said stays as it was."""
    asked = read_asked(folder)
    if request.attempt is not None:
        asked = dataclasses.replace(asked, attempt=request.attempt)
    if request.machine:
        asked = dataclasses.replace(asked, machine=request.machine)
    _write(folder, asked, request.seconds_left)
    if request.environment:
        text = json.dumps(request.environment, sort_keys=True)
        document.write_text(folder.environment, text, mode=0o600)


def keep_hard_end(folder: RunFolder, seconds_left: float) -> None:
    """The machine has booted since, or its end has become known."""
    _write(folder, read_asked(folder), seconds_left)


def environment(folder: RunFolder) -> Mapping[str, str]:
    """The variables that the run was given; empty when there are none."""
    try:
        found = json.loads(folder.environment.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError:
        raise ContractError(
            f"{folder.environment} is damaged; start the run again with its variables"
        ) from None
    return {str(name): str(value) for name, value in found.items()}


def forget_environment(folder: RunFolder) -> None:
    """A run that is over needs no secrets."""
    folder.environment.unlink(missing_ok=True)


def _write(folder: RunFolder, asked: Asked, seconds_left: float | None) -> None:
    if seconds_left is not None:
        asked = dataclasses.replace(asked, ends_s=_counted_s() + seconds_left, boot=_boot())
    document.write(_path(folder), asked)


def _path(folder: RunFolder) -> Path:
    return folder.root / "asked.json"


def _counted_s() -> float:
    """Seconds that passed, those of a suspended machine among them where the system counts them."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


def _boot() -> str:
    with suppress(OSError):
        return _BOOT_ID.read_text().strip()
    return ""  # systems that don't say; none of them is a rented machine
