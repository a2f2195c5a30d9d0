"""What may be the key of a blob, in every kind of store."""

from __future__ import annotations

from . import layout
from .document import ContractError

HIDDEN = ".tmp"  # of a folder that is a store: its lock, and files that are still being written
BYTES_MAX = 1024  # of Google Cloud Storage; in a folder the file system bounds the parts as well


def checked_key(key: str) -> str:
    """The key itself, or ContractError when it could not be a key of every kind of store."""
    layout.inside(key)
    if not _is_text(key) or len(key.encode()) > BYTES_MAX:
        raise ContractError(f"{key[:80]!r} is not a key (UTF-8, at most {BYTES_MAX} bytes)")
    if HIDDEN in key.split("/"):
        raise ContractError(f"{key[:80]!r} is not a key ({HIDDEN}/ is the store's own)")
    return key


def is_key(text: str) -> bool:
    try:
        checked_key(text)
    except ContractError:
        return False
    return True


def _is_text(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True
