"""The files of this computer that a store reads and writes: opened, summed, and what goes wrong with them told."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import google_crc32c

from orchestrator.errors import AuthError, CloudError, NotFoundError, TlvmError
from remote.contract.folder import crc32c_of


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file to upload. NotFoundError, AuthError, CloudError, each naming it."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise NotFoundError(f"There is no file {path} to upload") from None
    except PermissionError:
        raise AuthError(
            f"You may not read {path}", next=f"Look at its owner and permissions: ls -l {path}"
        ) from None
    except OSError as error:
        raise CloudError(f"{path} can't be read", detail=str(error)) from error
    with file:
        yield file


def checksum_of(path: Path) -> tuple[int, str]:
    """Size in bytes and crc32c (base64) of a file."""
    with opened(path) as file:
        checksum = crc32c_of(file, google_crc32c.Checksum())
        return file.tell(), checksum


def refused(error: OSError, key: str, folder: Path) -> TlvmError:
    """Our error for the system's, met when `key` was read from or written to `folder`."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return CloudError(
            f"The disk of the folder {folder} is full: no room for {key}",
            next="Free some space there and run it again.",
        )
    if error.errno in {errno.EACCES, errno.EPERM}:
        return AuthError(
            f"You may not do this with {key} in the folder {folder}",
            detail=str(error),
            next=f"Look at its owner and permissions: ls -ld {folder}",
        )
    if error.errno in {errno.ENOTDIR, errno.EISDIR, errno.ELOOP}:
        return CloudError(
            f"{key} can't be in the folder {folder}: a file, a folder or a link is in its way",
            detail=str(error),
            next="Move that away, then run it again.",
        )
    return CloudError(
        f"The folder {folder} refused {key}", detail=str(error), next="Name another one: store.url."
    )
