"""`checkpoints/<run id>/LATEST.json`, written last: only what it names is a checkpoint to go on from."""

from __future__ import annotations

from dataclasses import dataclass, field

from . import layout

SCHEMA = 1


@dataclass(frozen=True)
class StoredCheckpoint:
    name: str  # below the prefix
    size: int  # bytes
    sha256: str
    crc32c: str  # base64, as the store lists it
    attempt: int  # that made it
    step: int  # 1 to 8, see events.STEPS
    epoch: int  # that were over when it was found; 0 in steps without any

    def __post_init__(self) -> None:
        layout.inside(self.name)


@dataclass(frozen=True)
class LatestCheckpoints:
    run_id: str
    attempt: int  # that wrote this
    files: list[StoredCheckpoint]  # the newest first
    schema: int = field(default=SCHEMA)
