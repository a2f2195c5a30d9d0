"""How blobs are kept in a folder: what laptop and machine must agree on when both write into the same one.

    <folder>/<key>          the blobs, and nothing else
    <folder>/<top>/.tmp/    the lock, and files that are still being written: never listed; <top> is the key's first
                            part, because in a container runs/ and checkpoints/ are mounts of their own, and a file
                            can't be renamed from one mount to another

Whole or not at all: a blob is written in `.tmp/`, flushed to the disk and renamed to its place.
Generation: the modification time in nanoseconds, set by the writer, under the lock, to a time after the one of the
blob that is replaced. A file that somebody edits by hand gets a new one too.
Preconditions hold between processes: they are checked, and the rename done, under one exclusive `flock` on
`.tmp/lock`, which a crash frees.
No key leaves the folder: each part is opened relative to the one before, and links are never followed.
A shared folder stays shared: what is made in it has the group and the permission bits of the folder it is made in.

Plain OSErrors come out of here; the stores of the two halves translate them.
"""

from __future__ import annotations

import base64
import errno
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from .folder_parts import enter, generation_of, locked, scratch_file, share, stamp
from .keys import HIDDEN, begins, checked_key, fits, is_key, pattern_of
from .store import Begun, Blob

_CHUNK_BYTES = 1024 * 1024


class Checksum(Protocol):
    """A running crc32c: `google_crc32c.Checksum`, which is not part of the standard library and so comes from outside."""

    def update(self, data: bytes) -> None: ...

    def digest(self) -> bytes: ...


class Changed(Exception):
    """The blob is not of the generation that the caller expected."""


class Missing(Exception):
    """There is no such blob."""


class Damaged(Exception):
    """What was written is not what was read, or the source became shorter meanwhile. Another try may succeed."""


@contextmanager
def replacing(path: Path, begun: Begun | None = None) -> Iterator[BinaryIO]:
    """A file beside `path` that takes its place, flushed to the disk, when the block ends without an error.

    begun       keeps it after an error, and the next time it is at its end again
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = begun.part if begun else None
    beside = kept or path.parent / f".{secrets.token_hex(8)}.part"
    try:
        with beside.open("r+b" if kept else "x+b") as file:
            if begun:
                begun.part = beside
            file.seek(0, os.SEEK_END)
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        if begun is None:
            beside.unlink(missing_ok=True)
        raise


def crc32c_of(file: BinaryIO, checksum: Checksum) -> str:
    """The checksum of a file from where it stands to its end."""
    while chunk := file.read(_CHUNK_BYTES):
        checksum.update(chunk)
    return base64.b64encode(checksum.digest()).decode()


class Folder:
    """Blobs below `root`, which is made when the first one is written. May be used by many threads."""

    def __init__(self, root: Path, checksum: Callable[[], Checksum]) -> None:
        self.root = root
        self._checksum = checksum
        # Checksums of files seen before, so that a pack is not read again for each question about it.
        self._known: dict[str, tuple[tuple[int, int, int], str]] = {}

    def get(self, key: str) -> Blob | None:
        """What is known of a blob, None when there is none. A link, a pipe or a device is no blob."""
        file = self._open(checked_key(key))
        if file is None:
            return None
        with file:
            return self._entry(key, file)

    def entries(self, prefix: str, delimiter: str | None, match: str | None = None) -> Iterator[Blob]:
        """The blobs whose key starts with `prefix`, in key order; those that vanish meanwhile are left out.

        With `delimiter`, only those that have none after the prefix; with `match`, only those that go on so. Files
        whose names are no keys are left out.
        """
        folder = prefix.rpartition("/")[0]
        if folder and not is_key(folder):
            return
        pattern = pattern_of(prefix, match) if match is not None else []
        for key in self._keys(folder, prefix, pattern, deep=delimiter != "/"):
            if (delimiter is None or delimiter not in key[len(prefix) :]) and (
                not pattern or fits(key, pattern)
            ):
                entry = self.get(key)
                if entry is not None:
                    yield entry

    def folders(self, prefix: str) -> Iterator[str]:
        """The names of the folders in the one that `prefix` names, in the order of keys. Empty ones are folders, too."""
        if prefix and not is_key(prefix.removesuffix("/")):
            return
        for name in self._names(prefix.removesuffix("/")):
            if name.endswith("/") and is_key(name[:-1]):
                yield name[:-1]

    def put(self, source: BinaryIO, key: str, if_generation: int | None) -> Blob:
        """Keep a copy of a file, as long as it is now. Changed, Damaged; nothing is left of a failed one."""
        *folders, name = checked_key(key).split("/")
        with (
            self._folder([*folders[:1], HIDDEN], create=True) as hidden,
            scratch_file(hidden) as (scratch, file),
        ):
            size = os.fstat(source.fileno()).st_size
            checksum = self._copy(source, file, size)
            file.flush()
            os.fsync(file.fileno())
            with locked(hidden), self._folder(folders, create=True) as folder:
                now = generation_of(name, folder)
                if if_generation is not None and now != if_generation:
                    raise Changed(key)
                share(file.fileno(), folder, mask=0o666)
                generation = stamp(file.fileno(), after=now)
                os.replace(scratch, name, src_dir_fd=hidden, dst_dir_fd=folder)
                os.fsync(folder)
        return Blob(key, size, checksum, generation)

    def opened(self, key: str) -> BinaryIO:
        """A blob, to be read. Missing."""
        source = self._open(checked_key(key))
        if source is None:
            raise Missing(key)
        return source

    def fetch(self, source: BinaryIO, path: Path, start: int) -> None:
        """Copy what was `opened`, from byte `start` on, to `path`: whole or not at all. Damaged."""
        with replacing(path) as file:
            size = os.fstat(source.fileno()).st_size
            source.seek(min(start, size))
            self._copy(source, file, max(0, size - start))

    def remove(self, key: str, if_generation: int | None) -> None:
        """Remove a blob, and the folders that it leaves empty, except those at the top. Missing is success. Changed."""
        *folders, name = checked_key(key).split("/")
        if not self.root.joinpath(*folders[:1]).is_dir():
            return
        with self._folder([*folders[:1], HIDDEN], create=True) as hidden, locked(hidden):
            try:
                with self._folder(folders) as folder:
                    now = generation_of(name, folder)
                    if now and if_generation is not None and now != if_generation:
                        raise Changed(key)
                    if now:
                        os.unlink(name, dir_fd=folder)
            except (FileNotFoundError, NotADirectoryError):
                return
            self._prune(folders)

    def _open(self, key: str) -> BinaryIO | None:
        *folders, name = key.split("/")
        try:
            with self._folder(folders) as folder:
                # O_NONBLOCK: opening a pipe that somebody put there must not wait for its other end.
                descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.ENXIO}:  # a link, a socket
                return None
            raise
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            return None
        return os.fdopen(descriptor, "rb")

    def _entry(self, key: str, file: BinaryIO) -> Blob:
        found = os.fstat(file.fileno())
        seen = (found.st_ino, found.st_size, found.st_mtime_ns)
        known = self._known.get(key)
        if known is None or known[0] != seen:
            known = (seen, crc32c_of(file, self._checksum()))
            self._known[key] = known
        return Blob(key, found.st_size, known[1], max(1, found.st_mtime_ns))

    def _keys(self, folder: str, prefix: str, pattern: list[re.Pattern[str]], *, deep: bool) -> Iterator[str]:
        for name in self._names(folder):
            key = f"{folder}/{name}" if folder else name
            if not is_key(key.removesuffix("/")):
                continue
            if not key.endswith("/"):
                if key.startswith(prefix):
                    yield key
            elif prefix.startswith(key) or (
                deep and key.startswith(prefix) and begins(key[:-1].split("/"), pattern)
            ):
                yield from self._keys(key[:-1], prefix, pattern, deep=deep)

    def _names(self, folder: str) -> list[str]:
        """The names in a folder, those of folders with a "/", which is what makes the order that of the keys."""
        try:
            with (
                self._folder(folder.split("/") if folder else []) as descriptor,
                os.scandir(descriptor) as found,
            ):
                return sorted(
                    entry.name + "/" * entry.is_dir(follow_symlinks=False)
                    for entry in found
                    if entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)
                )
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _copy(self, source: BinaryIO, target: BinaryIO, size: int) -> str:
        """Copy `size` bytes, read them back, and return their checksum."""
        begin, checksum = target.tell(), self._checksum()
        left = size
        while left:
            chunk = source.read(min(left, _CHUNK_BYTES))
            if not chunk:
                raise Damaged(f"it became {left} bytes shorter while it was copied")
            checksum.update(chunk)
            target.write(chunk)
            left -= len(chunk)
        expected = base64.b64encode(checksum.digest()).decode()
        target.seek(begin)
        if crc32c_of(target, self._checksum()) != expected:
            raise Damaged("the copy has another checksum")
        return expected

    def _prune(self, folders: list[str]) -> None:
        for depth in range(len(folders) - 1, 0, -1):
            with self._folder(folders[:depth]) as above:
                try:
                    os.rmdir(folders[depth], dir_fd=above)
                except OSError:  # not empty, most often; an empty folder that stays does no harm
                    return

    @contextmanager
    def _folder(self, parts: Sequence[str], *, create: bool = False) -> Iterator[int]:
        """A descriptor of the folder at `parts` below the root. FileExistsError where the root is something else."""
        if create:
            self.root.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        except NotADirectoryError as error:  # below the root that says that a blob is missing
            raise FileExistsError(errno.EEXIST, "it is no folder", str(self.root)) from error
        try:
            for part in parts:
                deeper = enter(part, descriptor, create=create)
                os.close(descriptor)
                descriptor = deeper
            yield descriptor
        finally:
            os.close(descriptor)
