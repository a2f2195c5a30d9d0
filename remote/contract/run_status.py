"""What the machine says of a run: replaced whole whenever it changes, on the machine and in the bucket."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

SCHEMA = 1

State = Literal["QUEUED", "STARTING", "RUNNING", "INTERRUPTED", "SUCCEEDED", "FAILED", "CANCELLED"]
FINAL = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})
PUBLISHING = "sending the result to the store"  # the message meanwhile: its status is written all the same
PUBLISHES_SILENTLY = "publishing the result"  # the same of older bundles, which say no word until it is there
LOST = "LOST"  # what the laptop calls a run whose machine is gone without a final status


@dataclass(frozen=True)
class AttemptTimes:
    """What the machine knows of one attempt: each start of the run's supervisor is one."""

    number: int
    machine: str
    began: str  # ISO 8601, UTC, by the machine's clock
    ended: str | None = None  # None: it is active, or was killed
    how: str = ""  # the state in which it ended, or KILLED; "" as long as it has not
    used_s: float = 0.0  # of the run's max_hours
    events_from: int = (
        0  # the byte of the stream where it goes on: what a reader has beyond never left the machine
    )
    log_from: int = 0


@dataclass(frozen=True)
class Resources:
    """What the last attempt of a run has used on its machine."""

    peak_memory_mb: float = 0.0  # of its largest process
    processor_s: float = 0.0  # of the training, all its processes, user and system
    gpu_memory_mb: float | None = None  # the most that was seen in use; None: no GPU
    disk_free_mb: float = 0.0  # left when it was looked at last


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
    attempts: list[AttemptTimes] = field(default_factory=list)  # the oldest first
    resources: Resources | None = None  # None: no training has ended yet
    place: int = 0  # in the line of its machine: 1 is the next; 0 when it does not wait
    waits_for: str = ""  # the run that uses what it waits for, or waits before it
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
