"""One walk over a folder, `stat` only: the tree of folders, files that may be images, and what is neither.

Links to files are followed. Links to folders are followed only where datasets, splits and classes stand (three
levels), and never into a folder that holds the link.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from orchestrator.datasets.columns.numbers import Numbers
from orchestrator.datasets.columns.rows import Form, Rows
from orchestrator.datasets.columns.texts import Blobs
from orchestrator.datasets.folder.names import IMAGE_ENDINGS, SetAside, encode

_LINKED_LEVELS = 3
_LEVELS_MAX = 64
_NOT_READ = {
    b".gif": "GIF is not taken as a photo",
}
_SYSTEM_FILES = frozenset({b"thumbs.db", b"desktop.ini", b"ehthumbs.db", b"icon\r"})
_TOOL_FOLDERS = frozenset(
    b".git .hg .svn .dvc .tlvm .idea .vscode .cache .ipynb_checkpoints .thumbnails .trash .trashes .fseventsd"
    b" .spotlight-v100 .appledouble __macosx @eadir __pycache__ lost+found".split()
)


class File(NamedTuple):
    """A file whose name says that it is an image, as `stat` saw it. Tuples are made fast: there may be a million."""

    name: bytes
    path: bytes  # below the folder that was walked
    size: int  # bytes
    mtime_ns: int
    inode: int


FILES = Form(File, name=Blobs, path=Blobs, size=Numbers, mtime_ns=Numbers, inode=Numbers)


@dataclass(frozen=True, slots=True)
class Folder:
    name: bytes
    path: bytes  # below the folder that was walked; b"" is that folder
    files: Rows[File] = field(default_factory=FILES.rows)
    folders: list[Folder] = field(default_factory=list)
    set_aside: list[SetAside] = field(default_factory=list)
    mtime_ns: int = 0  # before it was listed
    unlisted: list[SetAside] = field(default_factory=list)  # folders of which nobody knows what they hold

    @property
    def hidden(self) -> bool:
        return self.name.startswith(b".")

    def everything(self) -> Iterator[Folder]:
        """This folder and all below it."""
        yield self
        for folder in self.folders:
            yield from folder.everything()

    def holds_images(self) -> bool:
        """Directly or in a folder that is not hidden."""
        return bool(self.files) or any(f.holds_images() for f in self.folders if not f.hidden)


def walk(root: Path, name: bytes) -> Folder:
    """The tree below `root`, called `name`; names sorted. OSError when `root` itself can't be listed."""
    seen = root.stat()
    top = Folder(name, b"", mtime_ns=seen.st_mtime_ns)
    _fill(top, _entries(os.fsencode(root)), ((seen.st_dev, seen.st_ino),))
    return top


def _entries(place: bytes) -> list[os.DirEntry[bytes]]:
    with os.scandir(place) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _fill(folder: Folder, entries: list[os.DirEntry[bytes]], above: tuple[tuple[int, int], ...]) -> None:
    files: list[File] = []
    for entry in entries:
        path = folder.path + b"/" + entry.name if folder.path else entry.name
        if reason := _add(folder, files, entry, path, above):
            folder.set_aside.append(SetAside(encode(path), reason))
    folder.files.extend(files)


def _add(
    folder: Folder,
    files: list[File],
    entry: os.DirEntry[bytes],
    path: bytes,
    above: tuple[tuple[int, int], ...],
) -> str | None:
    """Put one entry into `folder`, or among its `files`; why it is set aside, if it is."""
    try:
        seen = entry.stat()
    except OSError as error:
        if entry.is_symlink():
            return f"a link that leads nowhere ({error.strerror})"
        if error.errno != errno.ENOENT and not _is_hidden(path):
            _say_closed(folder, entry, str(error.strerror))
        return str(error.strerror)
    if stat.S_ISDIR(seen.st_mode):
        return _add_folder(folder, entry, path, seen.st_mtime_ns, (*above, (seen.st_dev, seen.st_ino)))
    if not stat.S_ISREG(seen.st_mode):
        return "not a plain file"
    if reason := _foreign(entry.name):
        return reason
    files.append(File(entry.name, path, seen.st_size, seen.st_mtime_ns, seen.st_ino))
    return None


def _add_folder(
    parent: Folder,
    entry: os.DirEntry[bytes],
    path: bytes,
    mtime_ns: int,
    line: tuple[tuple[int, int], ...],
) -> str | None:
    """`line` is the device and inode of every folder from the top to this one."""
    if entry.name.lower() in _TOOL_FOLDERS:
        return "a folder of another program"
    if line[-1] in line[:-1]:
        return "a link back to a folder that holds it"
    if entry.is_symlink() and len(line) - 1 > _LINKED_LEVELS:
        return "a link to a folder"
    if len(line) > _LEVELS_MAX:
        return f"more than {_LEVELS_MAX} folders deep"
    try:
        entries = _entries(entry.path)
    except OSError as error:
        reason = f"can't be listed ({error.strerror})"
        if _is_hidden(path):
            return reason
        parent.unlisted.append(SetAside(encode(path), reason))
        return None
    folder = Folder(entry.name, path, mtime_ns=mtime_ns)
    _fill(folder, entries, line)
    parent.folders.append(folder)
    return None


def _say_closed(folder: Folder, entry: os.DirEntry[bytes], why: str) -> None:
    """Its names can be listed, but not what they stand for: it may hold images."""
    if not folder.unlisted and (entry.is_dir() or _foreign(entry.name) is None):
        folder.unlisted.append(
            SetAside(encode(folder.path or b"."), f"what it holds can't be looked at ({why})")
        )


def _is_hidden(path: bytes) -> bool:
    return b"/." in b"/" + path


def _foreign(name: bytes) -> str | None:
    """Why a file of this name is not an image; None where it may be one."""
    _, dot, ending = name.lower().rpartition(b".")
    extension = dot + ending
    if extension in IMAGE_ENDINGS and not name.startswith(b"."):
        return None
    if name.startswith(b"._"):
        return "a side file of macOS"
    if name.lower() in _SYSTEM_FILES or name == b".DS_Store":
        return "a file of the operating system"
    if name.startswith(b"."):
        return "a hidden file"
    return _NOT_READ.get(extension, "not an image, by its name")
