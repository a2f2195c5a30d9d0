"""A batch of files: what a worker is asked of it, how the answer is found, and what it says."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from orchestrator.datasets.checks.cache import Cache
from orchestrator.datasets.checks.convert import Conversion, prepared
from orchestrator.datasets.checks.judge import Unusable, Verdict
from orchestrator.datasets.folder.reading import Missed, read
from orchestrator.datasets.packs.member import HASH_BYTES, Member, Members, members

_FILES_MAX = 512
_BYTES = 4 * 1024**2
_FILES_MIN = 16
_BATCHES_EACH = 16  # at least, for every worker, where there are so many files

Said = Unusable | Missed


class File(NamedTuple):
    """A file as the scan saw it."""

    path: bytes
    size: int
    mtime_ns: int
    inode: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Files and what is known of them, in columns: a message of few objects. Numbers have 8 bytes, hashes 32.

    Without numpy, which workers load for few images only.
    """

    paths: bytes  # with a zero byte between two
    sizes: bytes
    mtimes_ns: bytes
    inodes: bytes
    known: bytes  # hashes of contents that need no judging; zeros where there is none
    extensions: list[str]  # of these
    expected: bytes | None  # contents are wanted unless their hash is this; None: none is

    def __len__(self) -> int:
        return len(self.extensions)

    def files(self) -> Iterator[File]:
        numbers = (memoryview(column).cast("q") for column in (self.sizes, self.mtimes_ns, self.inodes))
        return map(File, self.paths.split(b"\0"), *numbers)

    def one_by_one(self) -> Iterator[Batch]:
        """A batch for each file."""
        for at, path in enumerate(self.paths.split(b"\0")):
            yield Batch(
                path,
                _part(self.sizes, at, 8),
                _part(self.mtimes_ns, at, 8),
                _part(self.inodes, at, 8),
                _part(self.known, at),
                [self.extensions[at]],
                None if self.expected is None else _part(self.expected, at),
            )


class Answers(NamedTuple):
    """What was found, by the place of a file in its batch."""

    known: list[int]  # whose content is what the batch says
    usable: list[int]
    contents: list[str]  # of the usable ones, sha256 of the file's bytes
    verdicts: list[Sequence[Any]]  # of these, a column for each field of `Verdict`
    others: dict[int, tuple[str, Said]]  # hash of the content, "" where it could not be read
    members: Members  # for packs: contents that are wanted


def batches(sizes: Sequence[int], workers: int) -> Iterator[slice]:
    """Neighbours that make one message: many small files or a few large ones, and enough batches for all workers."""
    most = max(_FILES_MIN, min(_FILES_MAX, len(sizes) // (_BATCHES_EACH * max(1, workers))))
    start = size = 0
    for end, file_size in enumerate(sizes, 1):
        size += file_size
        if end - start == most or size >= _BYTES:
            yield slice(start, end)
            start, size = end, 0
    if start < len(sizes):
        yield slice(start, len(sizes))


def answer(root: bytes, batch: Batch, cache: Cache) -> Answers:
    """Read every file, and judge those whose content the cache does not know."""
    return _answers(batch, _looked_up(root, batch, cache), Conversion.of(cache.how))


def answer_known(root: bytes, batch: Batch, cache: Cache) -> Answers | None:
    """The same, without decoding: None where one of them is not known."""
    found = _looked_up(root, batch, cache)
    return _answers(batch, found, Conversion.of(cache.how)) if found.is_complete else None


class _LookedUp(NamedTuple):
    contents: list[bytes | Said]
    hashes: list[str]  # "" where it could not be read
    same: list[bool]  # whether it is what the batch says
    verdicts: dict[str, Verdict | Unusable]  # of others, by hash, where they are known
    is_complete: bool


def _looked_up(root: bytes, batch: Batch, cache: Cache) -> _LookedUp:
    contents = [read(root, file) for file in batch.files()]
    hashes = [hashlib.sha256(data).hexdigest() if isinstance(data, bytes) else "" for data in contents]
    same = _equal(hashes, batch.known)
    others = [sha256 for sha256, is_same in zip(hashes, same, strict=True) if sha256 and not is_same]
    verdicts = cache.verdicts(others)
    return _LookedUp(contents, hashes, same, verdicts, verdicts.keys() >= set(others))


def _answers(batch: Batch, found: _LookedUp, conversion: Conversion) -> Answers:
    known: list[int] = []
    usable: dict[int, Verdict] = {}
    others: dict[int, tuple[str, Said]] = {}
    images: dict[int, Member] = {}
    files = zip(found.contents, found.hashes, found.same, strict=True)
    for at, (data, sha256, is_same) in enumerate(files):
        if not isinstance(data, bytes):
            others[at] = ("", data)
        elif is_same:
            known.append(at)
            images[at] = Member(sha256, batch.extensions[at], data)
        else:
            travels, judged = _judged(data, sha256, found.verdicts.get(sha256), conversion)
            if isinstance(judged, Unusable):
                others[at] = (sha256, judged)
            else:
                usable[at] = judged
                images[at] = Member(judged.sha256, judged.extension, travels)
    return Answers(
        known,
        list(usable),
        [found.hashes[at] for at in usable],
        list(zip(*usable.values(), strict=True)) or [()] * len(Verdict._fields),
        others,
        members(_wanted(images, batch.expected)),
    )


def _equal(hashes: Sequence[str], others: bytes) -> list[bool]:
    text = others.hex()
    return [bool(sha256) and _is_at(sha256, at, text) for at, sha256 in enumerate(hashes)]


def _is_at(sha256: str, at: int, hashes: str) -> bool:
    return hashes.startswith(sha256, 2 * HASH_BYTES * at)


def _judged(
    data: bytes, sha256: str, known: Verdict | Unusable | None, conversion: Conversion
) -> tuple[bytes, Verdict | Unusable]:
    """The bytes that travel, and what they are."""
    if known is None:
        return prepared(data, conversion, sha256=sha256)
    if isinstance(known, Verdict) and known.size:
        return prepared(data, conversion)[0], known
    return data, known


def _wanted(images: Mapping[int, Member], expected: bytes | None) -> list[Member]:
    if expected is None:
        return []
    text = expected.hex()
    return [image for at, image in images.items() if not _is_at(image.sha256, at, text)]


def _part(column: bytes, at: int, width: int = HASH_BYTES) -> bytes:
    return column[at * width : (at + 1) * width]
