"""The files of this computer that a store reads and writes: opened, summed, and what goes wrong with them told."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import google_crc32c

from remote.contract.folder import crc32c_of

from .faults import Fault, Kind, Say


@contextmanager
def opened(path: Path, say: Say) -> Iterator[BinaryIO]:
    """A file to upload. NO_FILE, DENIED, REFUSED, each naming it."""
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise say(Fault(Kind.NO_FILE, f"There is no file {path} to upload")) from error
    except PermissionError as error:
        raise say(Fault(Kind.DENIED, f"No permission to read {path}", place=str(path))) from error
    except OSError as error:
        raise say(Fault(Kind.REFUSED, f"{path} can't be read", str(error))) from error
    with file:
        yield file


def checksum_of(path: Path, say: Say) -> tuple[int, str]:
    """Size in bytes and crc32c (base64) of a file."""
    with opened(path, say) as file:
        checksum = crc32c_of(file, google_crc32c.Checksum())
        return file.tell(), checksum


def refused(error: OSError, key: str, folder: Path) -> Fault:
    """What the system said when `key` was read from or written to `folder`."""
    detail, place = str(error), str(folder)
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return Fault(Kind.FULL, f"The disk of the folder {folder} is full: no room for {key}", detail, place)
    if error.errno in {errno.EACCES, errno.EPERM}:
        return Fault(Kind.DENIED, f"No permission for {key} in the folder {folder}", detail, place)
    if error.errno in {errno.ENOTDIR, errno.EISDIR, errno.ELOOP}:
        what = f"{key} can't be in the folder {folder}: a file, a folder or a link is in its way"
        return Fault(Kind.IN_THE_WAY, what, detail, place)
    if error.errno == errno.EEXIST:
        return Fault(
            Kind.DISK, f"There is a file where the folder {error.filename or folder} should be", detail, place
        )
    return Fault(Kind.DISK, f"The folder {folder} refused {key}", detail, place)
