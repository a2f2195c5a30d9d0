"""The files of this machine that a store sends, summed."""

from __future__ import annotations

from pathlib import Path

import google_crc32c

from remote.contract.folder import crc32c_of


def checksum_of(path: Path) -> tuple[int, str]:
    """Size in bytes and crc32c (base64) of a file."""
    with path.open("rb") as file:
        checksum = crc32c_of(file, google_crc32c.Checksum())
        return file.tell(), checksum
