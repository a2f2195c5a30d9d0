"""One stay of a run on one machine: written by the laptop when it starts it, `runs/<run id>/attempts/<number>.json`.

A run keeps its id and its spec; `spec.machine` names the first machine only. The machine of now is that of the last
attempt. What the machine knows of an attempt (when it began and ended, how, for how long it computed) is in RunStatus.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .document import LATER, ContractError

SCHEMA = 2


@dataclass(frozen=True)
class Attempt:
    """Above every number that `attempts/` and the run's status have, which counts restarts on the machine too."""

    number: int  # from 1
    machine: str
    provider: str
    place: str  # "us-central1-a"
    price_per_hour: float  # dollars, an estimate; 0 where nothing is paid
    asked: str  # ISO 8601, UTC
    spot: bool = False
    # Of several machines of one name, which; "" when not told.
    machine_id: str = field(default="", metadata=LATER)
    schema: int = field(default=SCHEMA)

    def __post_init__(self) -> None:
        if self.number < 1:
            raise ContractError(f"attempt {self.number} is none: they count from 1")
