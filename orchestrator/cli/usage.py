"""A command line that can't be used, as an error like every other: what is wrong, the nearest word, whose help to read."""

from __future__ import annotations

import difflib
from typing import Any

import typer

from orchestrator.errors import ConfigError

_HINT = " Did you mean "
# Some versions of typer carry click's classes with them, others import click: of both, this is what all errors derive from.
_REFUSED = typer.BadParameter.__mro__[2]


class UsageError(ConfigError):
    """Words that are missing, unknown or too many."""


def is_help(error: Exception) -> bool:
    """`tlvm` alone: no error to speak of, its help is shown."""
    return type(error).__name__ == "NoArgsIsHelpError"


def read(error: Exception, command: str) -> UsageError | None:
    """What the parser refused; None when it was not the parser.

    command     the first words, where the error does not say whose option it was: "up"
    """
    if not isinstance(error, _REFUSED):
        return None
    refused: Any = error
    context = getattr(refused, "ctx", None)
    path = context.command_path if context else f"tlvm {command}".strip()
    possible = list(getattr(refused, "possibilities", None) or [])
    said, _, named = str(refused.message if possible else refused.format_message()).partition(_HINT)
    near = f"Did you mean {named}" if named else _near(refused, possible)
    holds_commands = hasattr(getattr(context, "command", None), "list_commands")
    usage = "" if near or holds_commands or context is None else str(context.get_usage())
    lists = f"{path} --help {'lists the commands' if holds_commands else 'explains it'}."
    return UsageError(said.rstrip("."), detail=usage, next=f"{near} {lists}".strip())


def _near(refused: Any, possible: list[str]) -> str:
    if not possible:
        return ""
    option = str(getattr(refused, "option_name", ""))
    close = difflib.get_close_matches(option, possible, n=1) or sorted(possible)
    return f"Did you mean {close[0]}?"
