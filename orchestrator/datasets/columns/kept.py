"""Files in which this computer keeps rows for the next time. Deleting one, or damage to it, changes only time.

A file begins with a digest of all that follows and of `form`, what the rows look like: one that another version of tlvm
wrote is not read.
"""

from __future__ import annotations

import hashlib
import io
import marshal
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

_DIGEST_BYTES = 32


def write(path: Path, pieces: Iterable[Any], *, form: str) -> None:
    """Beside, then replaced. A disk that is full costs time the next time, no more."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with beside.open("w+b") as file:
                file.write(bytes(_DIGEST_BYTES))
                for piece in pieces:
                    marshal.dump(piece, file)
                digest = _digest(file, form)
                file.seek(0)
                file.write(digest)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)


def read(path: Path | None, *, form: str) -> Iterator[Any] | None:
    """The pieces, one after the other; None where there is no such file, or not of this form."""
    try:
        file = path.open("rb") if path is not None else None
    except OSError:
        return None
    if file is None:
        return None
    with suppress(OSError):
        if file.read(_DIGEST_BYTES) == _digest(file, form):
            return _pieces(file)
    file.close()
    return None


def _pieces(file: io.BufferedReader) -> Iterator[Any]:
    with file:
        file.seek(_DIGEST_BYTES)
        while file.peek(1):
            yield marshal.load(file)


def _digest(file: BinaryIO, form: str) -> bytes:
    file.seek(_DIGEST_BYTES)
    # Another Python writes other bytes.
    digest = hashlib.sha256(f"{sys.implementation.cache_tag} {form}".encode())
    while data := file.read(io.DEFAULT_BUFFER_SIZE * 16):
        digest.update(data)
    return digest.digest()
