"""The one line that Ctrl-C leaves on stderr: what may exist or go on now, and the command that shows it."""

from __future__ import annotations

from orchestrator.errors import Interruption

EXIT_CODE = 130
_LEAVES = {
    "upload": "What was sent is kept: the same command goes on from there.",
    "run": "Nothing of it goes on; tlvm status shows what exists, tlvm down ends a machine.",
    "evaluate": "Nothing of it goes on; tlvm status shows what exists, tlvm down ends a machine.",
    "logs": "The run goes on if it has not ended: tlvm status shows it.",
    "pull": "Files that are whole are kept: the same command goes on from there.",
    "predict": "Nothing was written.",
    "ssh": "The machine goes on: tlvm status shows it.",
}


def line(command: str, error: KeyboardInterrupt) -> str:
    """What a command that was interrupted leaves; a workflow that knows more says it in an `Interruption`."""
    if isinstance(error, Interruption):
        return f"Interrupted. {error.what}: {error.next}"
    return f"Interrupted. {_LEAVES.get(command, 'The same command does it again; tlvm status shows what exists.')}"
