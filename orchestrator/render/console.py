"""The two streams of a command: the result on stdout, everything on the way on stderr."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.text import Text

from orchestrator.datasets.folder.names import printable
from orchestrator.render.progress import Plain, Terminal
from orchestrator.render.text import clean

SCHEMA = 1  # of every JSON object on stdout


class Screen:
    """Where a command writes. `line` is for the result; progress and notes go through `progress`."""

    def __init__(self, out: IO[str], err: IO[str], *, json: bool = False) -> None:
        self.json = json
        self._stream = out
        self._out = _console(out)
        self.err = _console(err)
        self.progress: Plain | Terminal = Terminal(self.err) if self.err.is_terminal else Plain(err)

    @staticmethod
    def of_process(*, json: bool = False) -> Screen:
        return Screen(sys.stdout, sys.stderr, json=json)

    @property
    def colours(self) -> bool:
        return self._out.is_terminal

    @property
    def width(self) -> int | None:
        """How many characters fit into a line; None where there is no terminal, and every line is complete."""
        return self._out.width if self._out.is_terminal else None

    def line(self, text: str = "", *, style: str = "") -> None:
        """One line of the result; escape sequences and control characters in it are removed."""
        self._out.print(Text(clean(text).rstrip(), style=style), soft_wrap=True)

    def lines(self, texts: Iterable[str], *, style: str = "") -> None:
        for text in texts:
            self.line(text, style=style)

    def log(self, text: str) -> None:
        """One line of a log, which may have millions: straight to stdout."""
        self._stream.write(clean(text) + "\n")

    def raw(self, text: str) -> None:
        """Text for programs, unchanged: names of files keep their very bytes, UTF-8 or not."""
        binary = getattr(self._stream, "buffer", None)
        if binary is None:
            self._stream.write(text)
        else:
            self._stream.flush()
            binary.write(text.encode("utf-8", "surrogateescape"))
            binary.flush()

    def flush(self) -> None:
        self._stream.flush()

    def note(self, text: str, *, style: str = "") -> None:
        """One line on stderr."""
        self.progress.line(text, style=style)

    def next(self, text: str) -> None:
        """What to do now; the last line of an output."""
        self.line(f"next: {text}", style="dim")

    def document(self, command: str, result: object) -> None:
        """The result as one JSON object: {"schema": 1, "command": "status", ...the fields of the result}."""
        fields = plain(result)
        body = fields if isinstance(fields, dict) else {"items": fields}
        self._write({"schema": SCHEMA, "command": command} | body)

    def event(self, event: Mapping[str, Any]) -> None:
        """One JSON object a line, for what has no end."""
        self._stream.write(json.dumps(plain(event), ensure_ascii=True) + "\n")
        self._stream.flush()

    def _write(self, document: object) -> None:
        self._stream.write(json.dumps(document, indent=1, ensure_ascii=True) + "\n")
        self._stream.flush()


def plain(value: object) -> Any:
    """A dataclass, and whatever it holds, as what JSON knows: times as ISO 8601, paths and enums as text.

    Text that is not whole Unicode, as of names that are not UTF-8, is percent-encoded. NaN and infinities, which a
    machine may write into its figures and strict readers refuse, are null.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {_whole(str(key)): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, Path):
        return _whole(os.fspath(value))
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return _whole(value) if isinstance(value, str) else value


def _whole(text: str) -> str:
    """Halves of characters, which stand for bytes of names that are not UTF-8, are no JSON for strict readers."""
    return text if text.isascii() or not any("\ud800" <= one <= "\udfff" for one in text) else printable(text)


class _Piped(Console):
    """Rich would end with 1 when nobody reads any more."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def _console(stream: IO[str]) -> Console:
    return _Piped(
        file=stream,
        markup=False,
        highlight=False,
        emoji=False,
        soft_wrap=True,
        force_terminal=None if stream.isatty() else False,
        no_color=None if stream.isatty() else True,
    )
