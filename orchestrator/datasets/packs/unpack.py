"""From packs back to files: byte for byte, with their times, and never outside the folder that was named.

A manifest and a pack may be hostile. A path is one only if it is the canonical spelling of bytes that stay inside;
folders are opened one below the other and links are never followed; what is written has the hash that was promised.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from orchestrator.datasets.folder import names
from orchestrator.errors import ConflictError, DataError
from remote.contract import layout
from remote.contract.dataset_manifest import Image
from remote.contract.document import ContractError
from remote.contract.wording import count, listed_in_lines

_TIME_MAX_NS = 2**63 - 1
_SHOWN = 10
_ENDINGS = tuple(names.IMAGE_ENDINGS)


def require_safe(images: Sequence[Image]) -> None:
    """DataError when an image could not be the file of a dataset: its path leads elsewhere, or is another's folder."""
    paths = {_parts(image) for image in images}
    folders = {path[:length] for path in paths for length in range(1, len(path))}
    if both := sorted(paths & folders):
        raise _hostile(b"/".join(both[0]), "is a file and a folder")
    for image in images:
        if abs(image.mtime_ns) > _TIME_MAX_NS:
            raise _hostile(image.path.encode(), "has no such time")


def require_no_others(images: Sequence[Image], folder: Path) -> None:
    """ConflictError when `folder` holds images that are none of these: together they would be another dataset.

    Files that no upload takes for images, by their names, and hidden ones are nobody's business.
    """
    wanted = {image.path for image in images}
    others = [path for path in _images_in(folder) if path not in wanted]
    if others:
        raise ConflictError(
            f"{folder} holds {count(len(others), 'image')} that this version does not have",
            detail=listed_in_lines(sorted(others), _SHOWN),
            next="Give a folder that does not exist yet, or move these out of this one.",
        )


def missing(images: Sequence[Image], folder: Path) -> list[Image]:
    """Those that are not in `folder` yet; the others get the times of their images.

    ConflictError when something else is in the place of one: no file is touched.
    """
    wanted, found, others = [], [], []
    for image in images:
        try:
            there = _there(image, folder)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            there = False
        if there is None:
            wanted.append(image)
        elif there:
            found.append(image)
        else:
            others.append(image.path)
    if others:
        raise ConflictError(
            f"{folder} holds other files than the dataset, at {len(others)} of its paths",
            detail=listed_in_lines(others, _SHOWN),
            next="Give a folder that does not exist yet.",
        )
    for image in found:
        _set_time(image, folder)
    return wanted


def unpack(pack: Path, digest: str, images: Sequence[Image], folder: Path) -> None:
    """Write the images of a pack into `folder`, in the place of what was there. OSError when they can't be written.

    digest          the hash that the pack is named by
    DataError       it is not that pack: nothing was written; or an image is not where the manifest says
    """
    with pack.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            raise damaged(digest, "its content has another hash")
        if not os.fstat(file.fileno()).st_size:
            raise damaged(digest, "it is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            for image in images:
                data = mapped[image.offset : image.offset + image.size]
                if len(data) != image.size or hashlib.sha256(data).hexdigest() != image.sha256:
                    raise damaged(digest, f"{image.path} is not where the manifest says")
                _write(image, data, folder)


def damaged(pack: str, why: str) -> DataError:
    """Of a pack that the store does not give back as it was sent."""
    return DataError(
        f"Pack {pack[:12]} in the store is damaged: {why}",
        next="tlvm upload --verify DIR repairs it, from a folder that holds these images.",
    )


def _images_in(folder: Path) -> Iterator[str]:
    """The paths of what an upload might take for images; links to folders are not followed."""
    top = os.fsencode(folder)
    for place, inner, files in os.walk(top):
        inner[:] = [name for name in inner if not name.startswith(b".")]
        below = place[len(top) :].lstrip(b"/")
        for name in files:
            if name.lower().endswith(_ENDINGS) and not name.startswith(b"."):
                yield names.encode(below + b"/" + name if below else name)


def _there(image: Image, folder: Path) -> bool | None:
    """Whether a file is this image; None when there is none."""
    try:
        with _below(folder, _parts(image)[:-1], create=False) as place:
            name = _parts(image)[-1]
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=place)
            with os.fdopen(descriptor, "rb") as file:
                if os.fstat(file.fileno()).st_size != image.size:
                    return False
                return hashlib.file_digest(file, "sha256").hexdigest() == image.sha256
    except FileNotFoundError:
        return None
    except IsADirectoryError:
        return False


def _set_time(image: Image, folder: Path) -> None:
    *folders, name = _parts(image)
    with _below(folder, folders, create=False) as place:
        os.utime(name, ns=(image.mtime_ns, image.mtime_ns), dir_fd=place, follow_symlinks=False)


def _write(image: Image, data: bytes, folder: Path) -> None:
    *folders, name = _parts(image)
    with _below(folder, folders, create=True) as place:
        beside = f".{secrets.token_hex(8)}.part".encode()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        try:
            with os.fdopen(os.open(beside, flags, 0o666, dir_fd=place), "wb") as file:
                file.write(data)
                file.flush()
                os.utime(file.fileno(), ns=(image.mtime_ns, image.mtime_ns))
            os.rename(beside, name, src_dir_fd=place, dst_dir_fd=place)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(beside, dir_fd=place)
            raise


@contextmanager
def _below(folder: Path, folders: Sequence[bytes], *, create: bool) -> Iterator[int]:
    """A folder below `folder`, opened step by step: no link leads out of it."""
    flags = os.O_RDONLY | os.O_DIRECTORY
    place = os.open(folder, flags)
    try:
        for name in folders:
            if create:
                with suppress(FileExistsError):
                    os.mkdir(name, dir_fd=place)
            inner = os.open(name, flags | os.O_NOFOLLOW, dir_fd=place)
            os.close(place)
            place = inner
        yield place
    finally:
        os.close(place)


def _parts(image: Image) -> tuple[bytes, ...]:
    """The names of folders and file, as bytes."""
    path = names.decode(image.path)
    try:
        layout.inside(image.path)
    except ContractError as error:
        raise _hostile(path, str(error)) from None
    parts = tuple(path.split(b"/"))
    if names.encode(path) != image.path or b"\0" in path or {b"", b".", b".."} & set(parts):
        raise _hostile(path, "is not a path inside its folder")
    return parts


def _hostile(path: bytes, why: str) -> DataError:
    return DataError(
        f"The manifest names a file that can't be one: {names.shown(path)[:200]}",
        detail=why,
        next="Ask who uploaded this version; nothing was written.",
    )
