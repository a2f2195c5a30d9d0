"""What a command said while it was at work, for tests."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from orchestrator.progress import Bar


@dataclass
class Heard:
    """Progress that remembers."""

    said: list[str] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)

    def say(self, label: str, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warned.append(text)

    def bar(self, label: str, total: int, unit: str) -> AbstractContextManager[Bar]:
        return nullcontext(_Nothing())


class _Nothing:
    def advance(self, amount: int = 1, size_bytes: int = 0) -> None: ...
