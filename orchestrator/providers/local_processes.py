"""The process tree of a local machine: who belongs to it, who is alive, and how it ends.

Every command of a machine, and the machine's server, carry TLVM_MACHINE_ID in their environment, and children inherit
it through any number of forks, sessions and re-parentings. A process belongs to the machine when its environment (as it
was at its start) says so, or when its parent or its process group does. What escapes: a child that empties its
environment, takes a session of its own and outlives its parents.

Linux tells environments in /proc; elsewhere `ps -E` does, for processes of the same user.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ID_VARIABLE = "TLVM_MACHINE_ID"
_PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    group: int
    belongs: bool  # its own environment names the machine


def birth(pid: int) -> str:
    """What tells this process from a later one of the same number; "" when it is gone or a zombie."""
    if _environments_in_proc():
        stat = _stat(pid)
        return "" if stat is None or stat[0] == "Z" else f"{_boot()} {stat[19]}"
    line = _ps("-p", str(pid), "-o", "stat=,lstart=")
    return "" if not line.strip() or line.lstrip().startswith("Z") else line.split(maxsplit=1)[1].strip()


def tree(machine_id: str) -> set[int]:
    """The numbers of all living processes of a machine, this one left out."""
    processes = _linux_processes(machine_id) if _environments_in_proc() else _other_processes(machine_id)
    found = {process.pid for process in processes if process.belongs}
    groups = {process.group for process in processes if process.belongs}
    before = -1
    while len(found) != before:
        before = len(found)
        found |= {process.pid for process in processes if process.parent in found or process.group in groups}
        groups |= {
            process.group for process in processes if process.pid in found and process.pid == process.group
        }
    return found - {os.getpid()}


def end_tree(machine_id: str, *, grace_s: float = 0, clock: Callable[[], float] = time.monotonic) -> None:
    """End every process of a machine: SIGTERM and `grace_s` to write a checkpoint, then SIGKILL until none is left.

    TimeoutError   when some are there after 10 more seconds (in uninterruptible sleep)
    """
    asked = clock()
    if grace_s > 0:
        _signal(tree(machine_id), signal.SIGTERM)
        while tree(machine_id) and clock() - asked < grace_s:
            time.sleep(0.05)
    quiet = 0
    while quiet < 2:  # twice, because a child may be born between the look and the blow
        found = tree(machine_id)
        quiet = 0 if found else quiet + 1
        _signal(found, signal.SIGKILL)
        if found:
            time.sleep(0.01)
        if clock() - asked > grace_s + 10:
            raise TimeoutError(f"processes {sorted(found)[:10]} do not end")


def _signal(pids: set[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _environments_in_proc() -> bool:
    return (_PROC / "self/environ").exists()


def _linux_processes(machine_id: str) -> list[Process]:
    mark = f"{ID_VARIABLE}={machine_id}".encode()
    processes = []
    for entry in _PROC.iterdir():
        if not entry.name.isdecimal():
            continue
        stat = _stat(int(entry.name))
        if stat is None or stat[0] == "Z":
            continue
        try:
            belongs = mark in (entry / "environ").read_bytes().split(b"\0")
        except OSError:  # gone meanwhile, or another user's
            belongs = False
        processes.append(Process(int(entry.name), int(stat[1]), int(stat[2]), belongs))
    return processes


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the third (the state) on; the second is a name that may hold anything."""
    try:
        return (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].decode().split()
    except OSError:
        return None


def _boot() -> str:
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def _other_processes(machine_id: str) -> list[Process]:
    mark = f"{ID_VARIABLE}={machine_id}"
    processes = []
    for line in _ps("-axww", "-E", "-o", "pid=,ppid=,pgid=,stat=,command=").splitlines():
        pid, parent, group, state, *command = line.split(maxsplit=4)
        if not state.startswith("Z"):
            processes.append(Process(int(pid), int(parent), int(group), mark in " ".join(command).split()))
    return processes


def _ps(*arguments: str) -> str:
    return subprocess.run(["ps", *arguments], capture_output=True, text=True, check=False).stdout
