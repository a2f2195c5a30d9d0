"""What a file of weights is, told from its bytes: nothing is unpickled here."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Literal

Kind = Literal["torch zip", "legacy pickle", "safetensors"]

_LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e"  # torch's magic number, pickled
_HEADER_BYTES_MAX = 100_000_000  # the limit of the safetensors format itself


class NotWeights(Exception):
    """The file is something else, or damaged; the message says what."""


def kind_of(path: Path) -> Kind:
    """The format of a file of weights. NotWeights when it is none; the machine checks strictly what is inside."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(16)
        if start.startswith(_LEGACY):
            return "legacy pickle"
        if start.startswith(b"PK\x03\x04"):
            _check_zip(path)
            return "torch zip"
        if start[8:9] == b"{":
            _check_safetensors(path, size)
            return "safetensors"
    if not size:
        raise NotWeights("It is empty.")
    if start.startswith(b"\x80"):
        raise NotWeights("It is a pickle that torch.save did not write; loading one could run any program.")
    raise NotWeights("It is neither a file of torch.save nor safetensors, by its first bytes.")


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_zip(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise NotWeights(f"It is a damaged or cut file of torch.save ({error}).") from None
    if not any(name.endswith("/data.pkl") for name in names):
        raise NotWeights("It is a zip file, but not one of torch.save (no data.pkl in it).")
    if any(name.endswith("/constants.pkl") for name in names):
        raise NotWeights("It is a TorchScript program, not weights; save its state_dict() instead.")


def _check_safetensors(path: Path, size: int) -> None:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(_HEADER_BYTES_MAX, size - 8):
            raise NotWeights("It looks like safetensors, but its header is longer than the file: it was cut.")
        text = file.read(length)
    try:
        header = json.loads(text)
        ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
    except (ValueError, RecursionError, AttributeError, LookupError, TypeError):
        raise NotWeights("It looks like safetensors, but its header can't be read.") from None
    if not ends or max(ends) != size - 8 - length:
        raise NotWeights("It is a damaged or cut safetensors file: its size is not what its header says.")
