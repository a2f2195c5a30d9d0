"""What may be the key of a blob, in every kind of store."""

from __future__ import annotations

import re

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


def pattern_of(prefix: str, match: str) -> list[re.Pattern[str]]:
    """What the parts of a key must be, one after the other, that is `prefix` and goes on as `match` says."""
    text = re.escape(prefix) + re.escape(match).replace(re.escape("*"), ".*")
    return [re.compile(part) for part in text.split("/")]


def fits(key: str, pattern: list[re.Pattern[str]]) -> bool:
    parts = key.split("/")
    return len(parts) == len(pattern) and begins(parts, pattern)


def begins(parts: list[str], pattern: list[re.Pattern[str]]) -> bool:
    """Whether a key that fits may begin with these parts."""
    return all(one.fullmatch(part) for part, one in zip(parts, pattern, strict=False))


def glob_of(prefix: str, match: str | None) -> str | None:
    """The same for a service that knows globs; None where the prefix has what a glob would take for its own."""
    return None if match is None or set(prefix) & set("*?[]{}\\") else prefix + match


def _is_text(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True
