"""What the machine says of a run: replaced whole whenever it changes, on the machine and in the bucket."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

SCHEMA = 1

State = Literal["QUEUED", "STARTING", "RUNNING", "INTERRUPTED", "SUCCEEDED", "FAILED", "CANCELLED"]
FINAL = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})
LOST = "LOST"  # what the laptop calls a run whose machine is gone without a final status


@dataclass(frozen=True)
class RunStatus:
    run_id: str
    state: State
    updated: str  # ISO 8601, UTC
    started: str | None = None
    finished: str | None = None
    attempt: int = 1
    step: int = 0  # 1 to 8, see events.STEPS; 0 before the first
    message: str = ""  # why it is in this state, for people
    log_tail: list[str] = field(default_factory=list)  # of a failed run, at most 20 lines
    exit_code: int | None = None  # of the training process
    published: bool = False  # MANIFEST.json is in the store
    schema: int = SCHEMA


@dataclass(frozen=True)
class ResultFile:
    path: str  # below the folder of the run
    size: int  # bytes
    sha256: str
    crc32c: str  # base64, as the store lists it


@dataclass(frozen=True)
class ResultManifest:
    """MANIFEST.json, written last: only what it names is a result."""

    run_id: str
    state: State
    created: str
    files: list[ResultFile]
    schema: int = SCHEMA
