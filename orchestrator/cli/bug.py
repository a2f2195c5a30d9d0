"""An unexpected error, written down so that it can be reported: nothing is sent anywhere."""

from __future__ import annotations

import os
import platform
import re
import shlex
import sys
import traceback
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from orchestrator import __version__
from orchestrator.cli.complete import data_dir
from orchestrator.cli.logs import redact

_VALUE = re.compile(r"^(--env=[^=]*=).*", re.DOTALL)
_REPORT = "This is a bug of tlvm. Please report it to whoever maintains it for you"


def shown(error: Exception) -> None:
    """The traceback on stderr, secrets removed."""
    sys.stderr.write(redact("".join(traceback.format_exception(error))))


def written(argv: Sequence[str], error: Exception) -> str:
    """What to do, naming the file that holds the traceback; where none can be written, what to copy."""
    now = datetime.now(UTC)
    file = data_dir() / "bugs" / f"{now:%Y%m%d-%H%M%S}-{os.getpid()}.txt"
    try:
        _write(file, _text(argv, error, now))
    except OSError:
        return f"{_REPORT}, with the lines above and what you did."
    return (
        f"{_REPORT}: send {file} and say what you did. It holds the traceback, the versions and the command line; "
        "keys and tokens are removed, names of files and folders are not."
    )


def _text(argv: Sequence[str], error: Exception, now: datetime) -> str:
    lines = [
        f"tlvm {__version__}, Python {platform.python_version()}, {platform.platform()}",
        f"{now.isoformat(timespec='seconds')}  {shlex.join(['tlvm', *_without_values(argv)])}",
        "",
        "".join(traceback.format_exception(error)),
    ]
    return redact("\n".join(lines))


def _without_values(argv: Sequence[str]) -> list[str]:
    """The command line, without the values of `--env NAME=VALUE`."""
    return [_VALUE.sub(r"\1[removed]", word) for word in _joined(argv)]


def _joined(argv: Sequence[str]) -> Iterator[str]:
    """With `--env` and what follows it as one word."""
    words = iter(argv)
    for word in words:
        yield f"--env={next(words, '')}" if word == "--env" else word


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file.touch(mode=0o600)
    file.write_text(text, encoding="utf-8", errors="backslashreplace")
