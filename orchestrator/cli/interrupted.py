"""What Ctrl-C leaves: what may exist or go on now, and the command that shows it; a line on stderr, with --json an object."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from orchestrator.errors import Interruption

EXIT_CODE = 130
_LEAVES = {
    "upload": "What was sent is kept: the same command goes on from there.",
    "run": "Nothing of it goes on; tlvm status shows what exists, tlvm down ends a machine.",
    "evaluate": "Nothing of it goes on; tlvm status shows what exists, tlvm down ends a machine.",
    "attach": "A run that is at work goes on; tlvm attach comes back to it.",
    "cancel": "Whether the run has ended is not known: tlvm status shows it.",
    "logs": "The run goes on if it has not ended: tlvm status shows it.",
    "pull": "Files that are whole are kept: the same command goes on from there.",
    "predict": "Nothing was written.",
    "ssh": "The machine goes on: tlvm status shows it.",
}


@contextmanager
def by_sigterm() -> Iterator[None]:
    """Whoever ends the process politely, as CI does, gets what Ctrl-C gives: what goes on is said before the end."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def line(command: str, error: KeyboardInterrupt) -> str:
    """What a command that was interrupted leaves; a workflow that knows more says it in an `Interruption`."""
    if isinstance(error, Interruption):
        return f"Interrupted. {error.what}: {error.next}"
    return f"Interrupted. {_leaves(command)}"


def document(command: str, error: KeyboardInterrupt) -> dict[str, object]:
    """The fields of the object on stdout: those of the run that goes on, else of an error."""
    from orchestrator.workflows.runs.launch import Detached  # loaded already where one was raised

    if isinstance(error, Detached):
        return dataclasses.asdict(error.run)
    what, next = (
        (error.what, error.next) if isinstance(error, Interruption) else ("Interrupted", _leaves(command))
    )
    return {"error": {"class": "Interrupt", "exit_code": EXIT_CODE, "what": what, "detail": "", "next": next}}


def _leaves(command: str) -> str:
    return _LEAVES.get(command, "The same command does it again; tlvm status shows what exists.")
