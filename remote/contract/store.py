"""The contract of a store: the bucket, or the folder that stands in for it. The same on both halves, errors aside.

Keys are "/"-separated, relative, UTF-8, without empty, "." or ".." parts. A blob is visible whole or not at all. The
errors of a half say `retryable` where another try is worth it. A store never tries again by itself: `Retrying` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .attempts import Attempts, retryable


@dataclass(frozen=True)
class Blob:
    key: str
    size: int  # bytes
    crc32c: str  # base64 of the big-endian checksum, as Google Cloud Storage writes it
    generation: int  # changes whenever the content is replaced; never 0


@dataclass
class Begun:
    """What a transfer that broke off leaves for the next try, so that no byte travels twice."""

    session: str = ""  # of an upload: the address where it goes on
    part: Path | None = None  # of a download: the bytes that came, beside their place
    keep: Callable[[str], None] | None = None  # told each session, in case of a kill; "": it has ended

    def go_on_at(self, session: str) -> None:
        self.session = session
        if self.keep is not None:
            self.keep(session)


def _ask_nobody() -> None:
    pass


def _tell_nobody(count: int) -> None:
    pass


@dataclass(frozen=True)
class Way:
    """Of an upload: who is asked before it, and told on it.

    gate            called in each try when all is ready, before the first byte; what it raises ends the upload
    passed          told how many bytes of the file have travelled; only of one that is sent in a stream
    """

    gate: Callable[[], None] = _ask_nobody
    passed: Callable[[int], None] = _tell_nobody


FREE = Way()


class Begin(Protocol):
    """Where an upload may go on that was begun before."""

    def __call__(self, path: Path, key: str, if_generation: int | None) -> AbstractContextManager[Begun]: ...


class Store(Protocol):
    url: str  # "gs://bucket" or the absolute path of a folder

    def get(self, key: str) -> Blob | None:
        """What is known of a blob, None when there is none."""

    def blobs(self, prefix: str, *, delimiter: str | None = None, match: str | None = None) -> Iterator[Blob]:
        """Every blob whose key starts with `prefix`, in key order, every page.

        With `delimiter`, only blobs that have none after the prefix. With `match`, only those whose key goes on so behind
        the prefix: "*/MANIFEST.json", where * stands for anything but "/"; whatever else lies there costs little.
        """

    def folders(self, prefix: str) -> Iterator[str]:
        """The names between `prefix` and the next "/", in order, of all blobs that have one there: each name once.

        `prefix` is empty or ends with "/". What lies below is not looked at, so this is quick where `blobs` is not.
        """

    def upload(self, path: Path, key: str, *, if_generation: int | None = None, way: Way = FREE) -> Blob:
        """Copy a file into the store: all of it, checksum verified, or nothing.

        if_generation   0: only if there is no such blob; N: only if it still is generation N. Else the half's error
                        for a conflict.
        way             its gate is passed before the first byte travels
        """

    def download(self, key: str, path: Path, *, start: int = 0, begun: Begun | None = None) -> None:
        """Copy a blob into a file: `path` appears (or is replaced) whole and with its checksum verified, or not at all.

        start           fetch only the bytes from there on (their checksum is not known, so it is not verified);
                        past the end gives an empty file.
        begun           where an earlier one of the same blob broke off; after an error its part is kept for the next

        The half's error for what is missing when there is no such blob.
        """

    def delete(self, key: str, *, if_generation: int | None = None) -> None:
        """Remove a blob; missing is success. A conflict when `if_generation` is not its generation."""


class Resumable(Protocol):
    """A store that takes transfers up where a try before broke off. One that can't ignores `begun`."""

    url: str

    def get(self, key: str) -> Blob | None: ...

    def blobs(
        self, prefix: str, *, delimiter: str | None = None, match: str | None = None
    ) -> Iterator[Blob]: ...

    def folders(self, prefix: str) -> Iterator[str]: ...

    def upload(
        self,
        path: Path,
        key: str,
        *,
        if_generation: int | None = None,
        way: Way = FREE,
        begun: Begun | None = None,
    ) -> Blob: ...

    def download(self, key: str, path: Path, *, start: int = 0, begun: Begun | None = None) -> None: ...

    def delete(self, key: str, *, if_generation: int | None = None) -> None: ...


class Retrying:
    """A store that tries again what may succeed a moment later: the one place where this is done.

    changed         the half's error for a conflict
    checksum_of     size in bytes and crc32c (base64) of a file
    begin           how uploads begin; default: anew
    """

    def __init__(
        self,
        store: Resumable,
        attempts: Attempts,
        *,
        changed: type[Exception],
        checksum_of: Callable[[Path], tuple[int, str]],
        begin: Begin = lambda path, key, if_generation: nullcontext(Begun()),
    ) -> None:
        self.url = store.url
        self._store = store
        self._attempts = attempts
        self._changed = changed
        self._checksum_of = checksum_of
        self._begin = begin

    def get(self, key: str) -> Blob | None:
        return self._attempts.call(lambda: self._store.get(key))

    def blobs(self, prefix: str, *, delimiter: str | None = None, match: str | None = None) -> Iterator[Blob]:
        """Goes on behind the last blob that was seen; each blob that comes through makes the count start anew."""
        last = ""
        waits = self._attempts.waits()
        while True:
            try:
                for blob in self._store.blobs(prefix, delimiter=delimiter, match=match):
                    if blob.key > last:
                        last, waits = blob.key, self._attempts.waits()
                        yield blob
            except Exception as error:
                wait_s = next(waits, None)
                if wait_s is None or not retryable(error):
                    raise
                self._attempts.wait(error, wait_s)
            else:
                return

    def folders(self, prefix: str) -> Iterator[str]:
        yield from self._attempts.call(lambda: list(self._store.folders(prefix)))

    def upload(self, path: Path, key: str, *, if_generation: int | None = None, way: Way = FREE) -> Blob:
        """A try that failed may have been accepted all the same: then the next one meets our own blob, a success.

        "Our own" means the same size and checksum: what two writers must not both win has to differ in content.
        """
        failed = False

        def attempt(begun: Begun) -> Blob:
            nonlocal failed
            try:
                return self._store.upload(path, key, if_generation=if_generation, way=way, begun=begun)
            except self._changed:
                ours = self._same(path, key) if failed else None
                if ours is None or ours.generation == if_generation:
                    raise
                return ours
            except Exception:
                failed = True
                raise

        with self._begin(path, key, if_generation) as begun:
            return self._attempts.call(lambda: attempt(begun))

    def download(self, key: str, path: Path, *, start: int = 0, begun: Begun | None = None) -> None:
        ours = begun or Begun()
        try:
            self._attempts.call(lambda: self._store.download(key, path, start=start, begun=ours))
        finally:
            if begun is None and ours.part is not None:
                ours.part.unlink(missing_ok=True)

    def delete(self, key: str, *, if_generation: int | None = None) -> None:
        self._attempts.call(lambda: self._store.delete(key, if_generation=if_generation))

    def _same(self, path: Path, key: str) -> Blob | None:
        """The blob, if it holds what the file holds."""
        blob = self._store.get(key)
        return blob if blob is not None and (blob.size, blob.crc32c) == self._checksum_of(path) else None
