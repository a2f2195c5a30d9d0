"""Features that this machine has computed before, kept so that nothing is decoded or forwarded twice.

cache/features/<key>/<hash>.safetensors     rows of some images: one tensor a block, and which image each row is of

The key holds all that the numbers depend on besides the image: weights, preprocessing, layers, code. Files are written
whole and never changed; each carries checksums of its blocks. Which of them are worth keeping is told by the time of
their last use: past a limit the ones unused for longest go first. All of it may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

Floats32 = NDArray[np.float32]
Numbers = NDArray[np.generic]

CODE = 1  # to be raised whenever the same image would give other numbers
_ABOUT = "about"
_LEFTOVER_S = 3600.0  # a half-written file of this age has no writer any more


def key_of(about: Mapping[str, Any]) -> str:
    """The name of the folder for features that depend on `about`: plain values, which JSON can hold."""
    text = json.dumps({**about, "code": CODE}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:40]


@dataclass
class FeatureCache:
    """The features under one key.

    root         the folder of all keys
    bytes_max    of all keys together; 0 keeps nothing, and finds nothing
    """

    root: Path
    key: str
    bytes_max: int
    _place: dict[str, tuple[Path, int]] = field(default_factory=dict)  # of each image: its file and its row

    @staticmethod
    def nowhere() -> FeatureCache:
        """Keeps nothing."""
        return FeatureCache(Path(), "", 0)

    def find(self, images: Sequence[str], blocks: Mapping[str, int]) -> set[str]:
        """Which of these images are here with all these blocks (name and width)."""
        self._place = {}
        if not self.bytes_max:
            return set()
        for path in sorted(self._folder.glob("[0-9a-f]*.safetensors")):
            about = _about(path, blocks)
            if about is not None:
                self._place.update({image: (path, row) for row, image in enumerate(about["images"])})
        return {image for image in images if image in self._place}

    def read(self, images: Sequence[str], into: Mapping[str, Numbers], rows: Sequence[int]) -> set[str]:
        """Copy what was found of `images` to these rows of `into`'s arrays; returns the images that were copied.

        A file that has gone or was damaged meanwhile gives nothing; a damaged one is deleted.
        """
        wanted: dict[Path, list[tuple[str, int, int]]] = {}
        for image, row in zip(images, rows, strict=True):
            path, place = self._place[image]
            wanted.setdefault(path, []).append((image, place, row))
        copied: set[str] = set()
        for path, places in wanted.items():
            loaded = _load(path, list(into))
            if loaded is None:
                continue
            theirs, ours = [place for _, place, _ in places], [row for _, _, row in places]
            for name, array in into.items():
                array[ours] = loaded[name][theirs]
            copied.update(image for image, _, _ in places)
        return copied

    def write(self, images: Sequence[str], blocks: Mapping[str, Numbers]) -> None:
        """Keep these rows. OSError when the disk does not take them."""
        if not self.bytes_max or not images:
            return
        size = sum(array.nbytes for array in blocks.values())
        if size > self.bytes_max:
            return
        self._make_room(size)
        self._folder.mkdir(parents=True, exist_ok=True)
        arrays = {name: np.ascontiguousarray(array) for name, array in blocks.items()}
        about = {"images": list(images), "crc32": {name: _crc32(array) for name, array in arrays.items()}}
        name = hashlib.sha256("\n".join(images).encode()).hexdigest()[:40]
        beside = self._folder / f".{name}.{os.getpid()}"
        try:
            save_file(arrays, beside, metadata={_ABOUT: json.dumps(about)})
            beside.replace(self._folder / f"{name}.safetensors")
        except SafetensorError as error:  # what it makes of a full disk
            raise OSError(str(error)) from None
        finally:
            beside.unlink(missing_ok=True)

    @property
    def _folder(self) -> Path:
        return self.root / self.key

    def _make_room(self, size: int) -> None:
        """Delete what was unused for longest until `size` more bytes fit."""
        files = sorted(_files(self.root), key=lambda found: found[1])
        total = size + sum(length for _, _, length in files)
        for path, _, length in files:
            if total <= self.bytes_max:
                return
            path.unlink(missing_ok=True)
            total -= length
            with suppress(OSError):
                path.parent.rmdir()  # when it was the last one of its key


def _files(root: Path) -> Iterator[tuple[Path, float, int]]:
    """Path, time of last use, bytes. What a killed writer left is deleted on the way."""
    for path in root.glob("*/*"):
        with suppress(FileNotFoundError):
            about = path.stat()
            if path.name.startswith(".") and time.time() - about.st_mtime > _LEFTOVER_S:
                path.unlink()
            else:
                yield path, about.st_mtime, about.st_size


def _about(path: Path, blocks: Mapping[str, int]) -> dict[str, Any] | None:
    """What a file says of itself; None when it lacks one of the blocks or is not whole."""
    try:
        with safe_open(path, framework="np") as file:
            about: dict[str, Any] = json.loads((file.metadata() or {})[_ABOUT])
            there = set(file.keys())
            shapes = {name: file.get_slice(name).get_shape() for name in blocks if name in there}
    except (SafetensorError, OSError, ValueError, KeyError):
        path.unlink(missing_ok=True)
        return None
    count = len(about["images"])
    return about if shapes == {name: [count, width] for name, width in blocks.items()} else None


def _load(path: Path, names: Sequence[str]) -> dict[str, Numbers] | None:
    try:
        with safe_open(path, framework="np") as file:
            sums = json.loads((file.metadata() or {})[_ABOUT])["crc32"]
            arrays = {name: file.get_tensor(name) for name in names}
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError, ValueError, KeyError):
        path.unlink(missing_ok=True)
        return None
    if any(_crc32(array) != sums.get(name) for name, array in arrays.items()):
        path.unlink(missing_ok=True)
        return None
    with suppress(OSError):
        os.utime(path)  # used just now
    return arrays


def _crc32(array: Numbers) -> int:
    return zlib.crc32(array.data)
