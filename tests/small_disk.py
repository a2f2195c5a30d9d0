"""A disk of a few megabytes for one process and its children, without any right that a user does not have."""

from __future__ import annotations

from pathlib import Path


def small_disk(folder: Path, size: str, *, then: str = "true") -> list[str]:
    """A command to put before another one, which then finds an empty tmpfs at `folder`.

    then        what the shell does there first
    """
    script = f'mount -t tmpfs -o size={size} none "{folder}" && {then} && exec "$@"'
    return ["unshare", "-rm", "sh", "-c", script, "sh"]
