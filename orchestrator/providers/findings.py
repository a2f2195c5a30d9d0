"""What a look at something found, for `tlvm doctor`: good, a warning or a failure, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    level: Level
    name: str
    text: str
    next: str = ""  # what to do about it; "" for ok
    code: int = 7  # of a failure: the exit code that it asks for
    script: str = ""  # what `next` runs, as text: for somebody else to read, and to run
