"""How a workflow tells what it is doing, without knowing who looks: a terminal, a log, a test."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Bar(Protocol):
    def advance(self, amount: int = 1, size_bytes: int = 0) -> None:
        """`size_bytes` is how much these were, where that is worth telling beside their number."""


class Progress(Protocol):
    """Where progress goes (stderr in the CLI). Called from one thread, except `Bar.advance`, which any may call."""

    def say(self, label: str, text: str) -> None:
        """One thing that has happened: `label` is one short word ("boot"), `text` the rest of the line."""

    def warn(self, text: str) -> None:
        """Something the user should know, although the work goes on."""

    def bar(self, label: str, total: int, unit: str) -> AbstractContextManager[Bar]:
        """Work of known size; `unit` is "bytes", "files" or "images"."""


class Silent:
    """Nobody looks."""

    def say(self, label: str, text: str) -> None: ...

    def warn(self, text: str) -> None: ...

    def bar(self, label: str, total: int, unit: str) -> AbstractContextManager[Bar]:
        return nullcontext(_SilentBar())


class _SilentBar:
    def advance(self, amount: int = 1, size_bytes: int = 0) -> None: ...
