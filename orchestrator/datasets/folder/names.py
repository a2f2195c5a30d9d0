"""Names of files, folders, classes and datasets. A file's name is bytes, which need not be UTF-8."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from urllib.parse import quote_from_bytes, unquote_to_bytes

IMAGE_ENDINGS = frozenset(
    # torchvision's, and their kin; `convert` makes JPEG of the last three
    b".jpg .jpeg .jpe .jfif .png .ppm .pgm .pbm .pnm .bmp .tif .tiff .webp .heic .heif .avif".split()
)
MODERN = (".heic", ".heif", ".avif")

_PLAIN = "".join(chr(code) for code in range(32, 127) if chr(code) not in "%\\")

_PLAIN_BYTES = re.compile(b"[%s]*" % re.escape(_PLAIN.encode()))  # of nearly all names


@dataclass(frozen=True, slots=True)
class SetAside:
    """A file or folder that is not part of the dataset, and why."""

    path: str  # below the dataset's folder, percent-encoded
    reason: str


def encode(path: bytes) -> str:
    """Percent-encode what is not printable ASCII, "%" and the backslash: reversible, safe in JSON and on screens."""
    return path.decode("ascii") if is_plain(path) else quote_from_bytes(path, safe=_PLAIN)


def is_plain(paths: bytes) -> bool:
    """Whether `encode` would change nothing."""
    return _PLAIN_BYTES.fullmatch(paths) is not None


def decode(path: str) -> bytes:
    return unquote_to_bytes(path)


def printable(path: str) -> str:
    """A path as Python holds it, percent-encoded only where it is not printable UTF-8, and at "%": reversible by `decode`."""
    return "".join(one if one.isprintable() and one != "%" else _quoted(one) for one in path)


def _quoted(character: str) -> str:
    is_raw_byte = "\udc80" <= character <= "\udcff"
    return quote_from_bytes(
        character.encode("utf-8", "surrogateescape" if is_raw_byte else "surrogatepass"), safe=""
    )


def shown(path: bytes) -> str:
    """For people: readable where it is UTF-8, without control characters; not reversible."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def class_name(folder: bytes) -> str:
    """The class of a folder: its name in composed form, so that folders made on different systems agree."""
    return unicodedata.normalize("NFC", folder.decode("utf-8", "backslashreplace"))


def folded(name: str) -> str:
    """Equal for two names that some file systems hold for the same one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def dataset_name(folder: bytes) -> str:
    """A dataset name (remote.contract.layout) made of a folder's name: "Blüten 2024" gives "bluten-2024"."""
    text = unicodedata.normalize("NFKD", folder.decode("utf-8", "replace"))
    plain = text.encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9._]+", "-", plain).strip("-._")[:63].strip("-._")
    return name or "dataset"
