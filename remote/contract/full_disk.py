"""A disk that is full costs lines for people and remarks of the supervisor, never the run."""

from __future__ import annotations

import errno
from typing import TextIO

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def is_full(error: OSError) -> bool:
    """Whether it says that the disk, or our share of it, takes no more."""
    return error.errno in _FULL


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
