"""The list of a dataset version: a header line, then one line an image, as JSON lines in a gzip file.

The version is the sha256 of the uncompressed text, which is canonical: sorted keys, no spaces, images sorted by path.
The header is {"schema", "dataset", "classes", "split_source", "flips", "intensity_window", "pack_bytes",
"pack_crc32c"}. The last two are missing in versions that were written before there were any: a pack's name, its hash,
can be verified only by reading all of it; its size and crc32c are what a store tells without.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import itertools
import json
import math
import operator
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from json.encoder import encode_basestring_ascii
from typing import Any, Literal, Protocol, get_args, runtime_checkable

from . import layout
from .document import ContractError, decode

SCHEMA = 1
BYTES_MAX = 4 * 1024**3  # uncompressed; a million images are about 400 MB

Split = Literal["train", "val", "test"]
Flips = Literal["none", "horizontal", "all"]


@dataclass(frozen=True, slots=True)
class Image:
    """One image of a dataset version."""

    path: str  # below the dataset's folder, "/"-separated, bytes percent-encoded
    split: Split
    class_name: str
    label_source: str  # "folder", or the name of the table that said it
    group: str | None  # patient, slide, video: never on two sides of a split
    size: int  # bytes of the file
    sha256: str
    mtime_ns: int
    width: int  # pixels, as stored: before the orientation is applied
    height: int
    orientation: int  # EXIF, 1 to 8
    pages: int
    page: int  # the one that counts, from 0
    mode: str  # of Pillow: "RGB", "L", "I;16" ...
    pack: str  # sha256 of the pack
    offset: int  # of the file's first byte in the pack
    excluded: str | None = None  # why a train image is left out of training ("equal to val/bees/1.jpg")


@dataclass(frozen=True)
class DatasetManifest:
    dataset: str
    classes: list[str]  # sorted; the index is the label
    split_source: Literal["folders", "hash"]
    flips: Flips  # which ones leave the meaning of an image alone
    intensity_window: list[float] | None  # of 16-bit and float images: what becomes black and white
    images: Sequence[Image]
    schema: int = SCHEMA
    pack_bytes: dict[str, int] = field(default_factory=dict)  # by pack: the size of the whole tar
    pack_crc32c: dict[str, str] = field(default_factory=dict)  # of the same packs, as stores spell it

    def packs(self) -> set[str]:
        return {pack for (pack,) in values(self.images, "pack")}

    def least_bytes(self) -> dict[str, int]:
        """Of each pack: it reaches to the end of its last image at least."""
        least: dict[str, int] = {}
        for pack, offset, size in values(self.images, "pack", "offset", "size"):
            if offset + size > least.get(pack, -1):
                least[pack] = offset + size
        return least

    def sums(self) -> dict[str, tuple[int, str]]:
        """Size and crc32c of its packs, as far as it tells them."""
        return {pack: (size, self.pack_crc32c[pack]) for pack, size in self.pack_bytes.items()}


@runtime_checkable
class Tabled(Protocol):
    """Images that are kept in columns, in path order."""

    def tuples(self, *names: str) -> Iterator[tuple[Any, ...]]: ...


def values(images: Sequence[Image], *names: str) -> Iterable[tuple[Any, ...]]:
    """These fields of each image."""
    if isinstance(images, Tabled):
        return images.tuples(*names)
    return zip(*[map(operator.attrgetter(name), images) for name in names], strict=True)


_FIELDS = frozenset(field.name for field in fields(Image))
_TEXTS = ("path", "split", "class_name", "label_source", "sha256", "mode", "pack")
_NUMBERS = ("size", "mtime_ns", "width", "height", "orientation", "pages", "page", "offset")
_VALUES = operator.itemgetter(*_TEXTS, *_NUMBERS, "group", "excluded")
_KINDS = frozenset(  # that these may have together
    (*[str] * len(_TEXTS), *[int] * len(_NUMBERS), group, excluded)
    for group, excluded in itertools.product((str, type(None)), repeat=2)
)
_SUMS = ("pack_bytes", "pack_crc32c")
_CRC32C = re.compile(r"[A-Za-z0-9+/]{6}==")
_KEPT_ONCE = ("split", "class_name", "label_source", "mode", "pack")
_SPLITS = frozenset(get_args(Split))
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_DECODER = json.JSONDecoder()
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True)
_IN_LINE = tuple(sorted(_FIELDS))  # as a line has them
_LEVEL = 3  # most of the text is hashes, which no level makes shorter
_LINES_AT_ONCE = 10_000
_PARTS_KEPT = 10_000  # of lines, which are the same in many
_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True)
class _Header:
    """The first line: a DatasetManifest without its images."""

    dataset: str
    classes: list[str]
    split_source: Literal["folders", "hash"]
    flips: Flips
    intensity_window: list[float] | None
    schema: int = SCHEMA
    pack_bytes: dict[str, int] = field(default_factory=dict)
    pack_crc32c: dict[str, str] = field(default_factory=dict)


def encode(manifest: DatasetManifest) -> tuple[bytes, str]:
    """The file's bytes (gzip, reproducible) and the version."""
    packed = io.BytesIO()
    digest = hashlib.sha256()
    lines = _lines(manifest)
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=_LEVEL, mtime=0, filename="") as file,
        ThreadPoolExecutor(1, thread_name_prefix="manifest") as pool,
    ):

        def take(text: bytes) -> None:
            digest.update(text)
            file.write(text)

        taken = pool.submit(take, b"")
        while text := b"".join(itertools.islice(lines, _LINES_AT_ONCE)):
            taken.result()
            taken = pool.submit(take, text)
        taken.result()
    return packed.getvalue(), digest.hexdigest()


def decode_manifest(data: bytes, *, version: str) -> DatasetManifest:
    """Read a manifest and verify that it is the version it is called. ContractError otherwise."""
    what = f"dataset manifest {version[:12]}"
    _verify(data, version, what)
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        rows = map(_without_end, file)
        header = decode(_Header, next(rows, b""), what=f"{what}, line 1")
        shared: dict[str, str] = {}
        images = [_image(row, shared, f"{what}, line {number}") for number, row in enumerate(rows, 2)]
    manifest = DatasetManifest(**vars(header), images=images)
    _check_header(manifest, what)
    for pack in manifest.packs():
        layout.sha256(pack)
    _check_sums(manifest, what)
    classes = frozenset(manifest.classes)
    for image in images:
        _check(image, classes, what)
    if len({image.path for image in images}) < len(images):
        raise ContractError(f"{what}: a path stands in it twice")
    return manifest


def _verify(data: bytes, version: str, what: str) -> None:
    digest = hashlib.sha256()
    size = 0
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            while text := file.read(_CHUNK_BYTES):
                digest.update(text)
                size += len(text)
                if size > BYTES_MAX:
                    raise ContractError(f"{what}: larger than {BYTES_MAX} bytes")
    except (OSError, EOFError, zlib.error) as error:
        raise ContractError(f"{what}: not a gzip file ({error})") from None
    if digest.hexdigest() != version:
        raise ContractError(f"{what}: its content has another hash; it was damaged")


def _without_end(line: bytes) -> bytes:
    return line[:-1] if line.endswith(b"\n") else line


def _image(row: bytes, shared: dict[str, str], what: str) -> Image:
    """One line. What is repeated from line to line is kept once: a million images stay below a gigabyte."""
    try:
        data: Any = _DECODER.decode(row.decode())
    except (ValueError, RecursionError):
        data = None
    if not (type(data) is dict and data.keys() == _FIELDS and _kinds(data) in _KINDS):
        return decode(Image, row, what=what)  # which says what is wrong
    if data["split"] not in _SPLITS:
        return decode(Image, row, what=what)
    for name in _KEPT_ONCE:
        value = data[name]
        data[name] = shared.setdefault(value, value)
    return Image(**data)


def _kinds(data: dict[str, Any]) -> tuple[type, ...]:
    return tuple(map(type, _VALUES(data)))


def _lines(manifest: DatasetManifest) -> Iterator[bytes]:
    yield _canonical(_header(manifest))
    images = manifest.images
    if not isinstance(images, Tabled):
        images = sorted(images, key=operator.attrgetter("path"))
    yield from itertools.starmap(_line, values(images, *_IN_LINE))


def _header(manifest: DatasetManifest) -> dict[str, Any]:
    """What is empty of the sums is left out: a version that was written before there were any keeps its name."""
    header = {name: value for name, value in vars(manifest).items() if name != "images"}
    return {name: value for name, value in header.items() if value or name not in _SUMS}


def _canonical(line: dict[str, Any]) -> bytes:
    return _ENCODER.encode(line).encode() + b"\n"


def _line(
    class_name: str,
    excluded: str | None,
    group: str | None,
    height: int,
    label_source: str,
    mode: str,
    mtime_ns: int,
    offset: int,
    orientation: int,
    pack: str,
    page: int,
    pages: int,
    path: str,
    sha256: str,
    size: int,
    split: str,
    width: int,
) -> bytes:
    """What `_canonical` makes of these fields, in a sixth of the time: there may be a million images.

    They come in the order of `_IN_LINE`.
    """
    return (
        f'{_first(class_name, excluded, group, height, label_source, mode)}"mtime_ns":{mtime_ns},"offset":{offset},'
        f'{_second(orientation, pack, page, pages)}"path":{encode_basestring_ascii(path)},'
        f'"sha256":{encode_basestring_ascii(sha256)},"size":{size},{_last(split, width)}'
    ).encode()


@functools.lru_cache(maxsize=_PARTS_KEPT)
def _first(
    class_name: str, excluded: str | None, group: str | None, height: int, label_source: str, mode: str
) -> str:
    return (
        f'{{"class_name":{_text(class_name)},"excluded":{_text(excluded)},"group":{_text(group)},'
        f'"height":{height},"label_source":{_text(label_source)},"mode":{_text(mode)},'
    )


@functools.lru_cache(maxsize=_PARTS_KEPT)
def _second(orientation: int, pack: str, page: int, pages: int) -> str:
    return f'"orientation":{orientation},"pack":{_text(pack)},"page":{page},"pages":{pages},'


@functools.lru_cache(maxsize=_PARTS_KEPT)
def _last(split: str, width: int) -> str:
    return f'"split":{_text(split)},"width":{width}}}\n'


def _text(text: str | None) -> str:
    return "null" if text is None else encode_basestring_ascii(text)


def _check_header(manifest: DatasetManifest, what: str) -> None:
    layout.dataset_name(manifest.dataset)
    if manifest.classes != sorted(set(manifest.classes)):
        raise ContractError(f"{what}: its classes are not sorted, or one stands there twice")
    window = manifest.intensity_window
    if window is not None and not (
        len(window) == 2 and all(map(math.isfinite, window)) and window[0] < window[1]
    ):
        raise ContractError(f"{what}: its intensity window is not two rising numbers")


def _check_sums(manifest: DatasetManifest, what: str) -> None:
    sizes, sums = manifest.pack_bytes, manifest.pack_crc32c
    if not sizes and not sums:
        return
    least = manifest.least_bytes()
    if sizes.keys() != sums.keys() or not sizes.keys() <= least.keys():
        raise ContractError(f"{what}: its sizes and checksums are not of packs that it names")
    if any(size < least[pack] for pack, size in sizes.items()):
        raise ContractError(f"{what}: a pack ends before what it names in it")
    if not all(map(_CRC32C.fullmatch, sums.values())):
        raise ContractError(f"{what}: a checksum is none")


def _check(image: Image, classes: frozenset[str], what: str) -> None:
    if not _PLAIN_PATH.fullmatch(image.path):
        layout.inside(image.path)
    layout.sha256(image.sha256)
    if image.class_name not in classes:
        raise ContractError(
            f"{what}: {image.path}: class {image.class_name[:80]!r} is not in its list of classes"
        )
    if min(image.size, image.offset, image.width, image.height) < 0:
        raise ContractError(f"{what}: {image.path}: a negative size")
    if not (0 <= image.page < image.pages and 1 <= image.orientation <= 8):
        raise ContractError(f"{what}: {image.path}: no such page or orientation")
