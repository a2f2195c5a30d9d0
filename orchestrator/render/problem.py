"""An error as people read it: what failed, with which thing, what to do next."""

from __future__ import annotations

from typing import IO

from orchestrator.errors import TlvmError
from orchestrator.render.text import clean, clean_lines


def show(error: TlvmError, stream: IO[str]) -> None:
    """Three parts, each on lines of its own; colours on a terminal. Loads no rich: errors are to be quick."""
    bold, red, plain = ("\x1b[1m", "\x1b[31m", "\x1b[0m") if stream.isatty() else ("", "", "")
    lines = [f"{red}{bold}error{plain}   {bold}{clean(error.what)}{plain}"]
    if error.detail:
        lines += [f"        {line}" for line in clean_lines(error.detail).splitlines()]
    if error.next:
        lines += [f"next    {line}" for line in clean_lines(error.next).splitlines()]
    stream.write("\n".join(lines) + "\n")
    stream.flush()
