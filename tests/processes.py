"""The living processes of this computer, those in containers included. A fresh Debian has no `ps`, a Mac no /proc."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")


def living() -> dict[int, str]:
    """The command line of each process, by number; what has ended and waits for its parent (a zombie) is left out."""
    return _linux() if (_PROC / "self/stat").exists() else _other()


def living_with(text: str) -> list[str]:
    """Command lines that hold `text`."""
    return [command for command in living().values() if text in command]


def _linux() -> dict[int, str]:
    found = {}
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):  # gone meanwhile
                state = (entry / "stat").read_bytes().rpartition(b")")[2].split()[0]
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if state != b"Z":
                    found[int(entry.name)] = " ".join(words).strip()
    return found


def _other() -> dict[int, str]:
    listed = subprocess.run(
        ["ps", "-axww", "-o", "pid=,stat=,command="], capture_output=True, text=True, check=True
    )
    lines = [line.split(maxsplit=2) for line in listed.stdout.splitlines()]
    return {int(pid): command for pid, state, command in lines if not state.startswith("Z")}
