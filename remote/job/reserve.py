"""Room of the disk that a run keeps back while it trains, for what its supervisor has to say once the disk is full.

Status, events and the pieces of them that go to the store take some: on a disk with not one byte free, a run that waits
for room could tell nobody.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from remote.contract.full_disk import is_full
from remote.contract.layout import SEGMENT_BYTES

RESERVE_BYTES = SEGMENT_BYTES + 1024 * 1024  # the largest piece, and all that is small


@contextmanager
def reserved(folder: Path, *, beyond_bytes: int) -> Iterator[None]:
    """As long as this lasts, where the disk has more than that to spare. Whoever was killed has left it there."""
    path = folder / ".reserve"
    try:
        if shutil.disk_usage(folder).free >= RESERVE_BYTES + beyond_bytes:
            path.write_bytes(bytes(RESERVE_BYTES))
    except OSError as error:
        if not is_full(error):
            raise
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
