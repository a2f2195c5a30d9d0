"""A disk that is full costs lines for people and remarks of the supervisor, never the run."""

from __future__ import annotations

import errno
import re
from typing import TextIO

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_OF_RUST = re.compile(r"\(os error (\d+)\)")


def is_full(error: OSError) -> bool:
    """Whether it says that the disk, or our share of it, takes no more."""
    return error.errno in _FULL


def is_from_full_disk(error: BaseException) -> bool:
    """Whether a full disk is the cause, however it was wrapped. What is written in Rust tells it in its text only."""
    cause: BaseException | None = error
    while cause is not None:
        said = _OF_RUST.search(str(cause))
        if (isinstance(cause, OSError) and is_full(cause)) or (said and int(said[1]) in _FULL):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


class ForgivingLog:
    """Standard output that leaves out what a full disk does not take."""

    def __init__(self, log: TextIO) -> None:
        self._log = log

    def write(self, text: str) -> int:
        try:
            return self._log.write(text)
        except OSError as error:
            if not is_full(error):
                raise
            return len(text)

    def flush(self) -> None:
        try:
            self._log.flush()
        except OSError as error:
            if not is_full(error):
                raise
