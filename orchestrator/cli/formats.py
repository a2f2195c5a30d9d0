"""`--format`: what a result is drawn as, on the commands whose results a CI job shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.options import one_of

if TYPE_CHECKING:
    from orchestrator.render.console import Screen

Format = Annotated[
    str, typer.Option("--format", metavar="text|markdown", help="markdown: for the summary of a CI job.")
]
MARKDOWN = "markdown"


def drawn(
    format: str, text: Callable[[Screen, Any], None], markdown: Callable[[Any], str]
) -> Callable[[Screen, Any], None]:
    """What `Common.show` draws a result with."""
    if one_of("--format", format, ("text", MARKDOWN)) == MARKDOWN:
        return lambda screen, result: screen.raw(markdown(result))
    return text


def is_markdown(words: list[str]) -> bool:
    """Whether a command line asks for it, also one that can't be parsed."""
    pairs = zip(words, [*words[1:], ""], strict=True)
    return any(
        word == f"--format={MARKDOWN}" or (word, then) == ("--format", MARKDOWN) for word, then in pairs
    )
