"""A folder for what is about to be sent, gone afterwards."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.errors import CloudError


@contextmanager
def scratch() -> Iterator[Path]:
    """Holds one pack at a time. CloudError when what is written there does not fit."""
    try:
        with tempfile.TemporaryDirectory(prefix="tlvm-") as folder:
            yield Path(folder)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise CloudError(
            f"The disk is full: {tempfile.gettempdir()}"
            if full
            else f"The folder {tempfile.gettempdir()} can't be used",
            detail=str(error.strerror or error),
            next="A pack takes about 64 MiB there; TMPDIR names another place. Then run it again: it goes on.",
        ) from None
