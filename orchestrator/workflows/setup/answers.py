"""What `tlvm init` asks and is told: who is asked, what was given, what goes into the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from orchestrator.providers.rented import QuotaRequest, Standing


class Asking(Protocol):
    """Somebody at a terminal."""

    def choose(self, question: str, choices: Mapping[str, str]) -> str:
        """The key of the chosen one."""

    def text(self, question: str, default: str) -> str: ...

    def yes(self, question: str) -> bool: ...

    def say(self, text: str) -> None: ...


@dataclass(frozen=True)
class Answers:
    """What was given; None and "" are asked for, or take their default where nobody can be asked."""

    provider: str | None = None
    store: str | None = None
    project: str | None = None
    zones: str | None = None
    accelerator: str | None = None
    accelerator_count: int | None = None
    machine_type: str | None = None
    spot: bool | None = None
    disk_gb: int | None = None
    image_family: str | None = None
    max_hours: float | None = None
    budget: float | None = None
    create_bucket: bool = False


@dataclass(frozen=True)
class Chosen:
    """What goes into the file."""

    provider: str
    values: Mapping[str, object]  # by dotted key: {"machine.max_hours": 4.0}
    standing: Standing | None = None
    bucket: str = ""
    notes: list[str] = field(default_factory=list)
    requests: list[QuotaRequest] = field(default_factory=list)
