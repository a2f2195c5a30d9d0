"""The training as a subprocess: started in a group of its own, watched, stopped, and its end put into words."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from remote.contract.layout import RunFolder
from remote.job.resources import peak_memory_mb

SUPERVISOR_VARIABLE = "TLVM_SUPERVISOR"  # a descriptor that reads end-of-file when the supervisor is gone
LEFT_VARIABLE = "TLVM_LEFT_S"  # of the run's max_hours, when the training is started
# Large blocks go back to the system when they are freed, and come in huge pages. By default glibc keeps blocks of up to
# 32 MB in its heap, where images and features that outlive a batch split them up: memory grew with every batch.
# Ants and bees, resnet18, two runs each: a peak of 0.32 and 0.33 instead of 0.55 and 0.59 GB above the imports, 34 and 37
# instead of 37 and 38 images a second. Other systems ignore it.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "4000000", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
TAIL_LINES = 20
_TAIL_BYTES = 64 * 1024
_LINE_CHARACTERS = 500

Why = Literal["", "cancelled", "interrupted", "superseded", "overtime", "hung"]


@dataclass(frozen=True)
class Limits:
    hang_s: float = 30 * 60  # no event, no line of log, no heartbeat for so long
    grace_s: float = 20  # from SIGTERM to SIGKILL; Google gives a machine that it takes away 30 s
    publish_s: float = 3600  # how long a store that refuses the result is tried
    room_s: float = 3600  # how long a run whose disk is full waits for room
    room_bytes: int = 64_000_000  # of the disk: with less free it is full, and what failed failed for that
    poll_s: float = 0.2
    tell_s: float = 30  # between two times that a run which has nothing else to say notes what it has used
    unmeasured_s: float = 30  # that a checkpoint may take to the store before one was sent
    warned_s: float = (
        300  # before the hard end of the machine: who asks a run to end then, asks because of it
    )
    margin_s: float = 30  # before the hard end of the machine, beside what stopping and sending take


LIMITS = Limits()


@dataclass(frozen=True)
class End:
    """How the training ended."""

    exit_code: int  # negative: the signal that ended it
    why: Why  # it was stopped by us, and why
    out_of_memory: bool  # the kernel says that it killed a process for memory meanwhile
    peak_memory_mb: float


def train(
    command: Sequence[str],
    folder: RunFolder,
    *,
    accelerators: Sequence[int],
    keep: Sequence[int],
    environment: Mapping[str, str],
    limits: Limits,
    remaining_s: float,
    stop: Callable[[], Why],
    tick: Callable[[], None],
) -> End:
    """Run the training to its end.

    accelerators    the ones that it may see; empty leaves the environment alone
    keep            descriptors of locks that it holds too, so that no other run starts beside an orphan
    environment     variables of its own, secrets among them
    remaining_s     of the run's max_hours
    stop            asked all the time: why the run must end now, "" when it need not
    tick            called all the time
    """
    kills = _memory_kills()
    ours, theirs = _pipe()
    try:
        process = _start(command, folder, accelerators, environment, [*keep, theirs], theirs, remaining_s)
    finally:
        os.close(theirs)
    try:
        why = _watch(process, folder, limits, remaining_s, stop, tick)
    finally:
        _kill_group(process.pid)  # also what the training left behind
        process.wait()
        os.close(ours)
    return End(process.returncode, why, _memory_kills() > kills, peak_memory_mb())


def in_words(end: End) -> str:
    """Why a training that did not succeed ended, for people."""
    peak = f"at most {end.peak_memory_mb:,.0f} MB"
    if end.exit_code >= 0:
        return f"The training ended with exit code {end.exit_code}, having used {peak} of memory"
    number = -end.exit_code
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    if end.out_of_memory:
        return (
            f"The training was killed by the system: the machine ran out of memory (the training used {peak})"
        )
    if number == signal.SIGKILL:
        return f"The training was killed ({name}), as a system does that runs out of memory (it used {peak})"
    if number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT):
        return f"The training crashed ({name}), having used {peak} of memory"
    return f"The training was ended from outside ({name})"


def tail(path: Path) -> list[str]:
    """The last lines of a log, cut to what fits a screen."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    lines = [line.rstrip()[:_LINE_CHARACTERS] for line in text.splitlines() if line.strip()]
    return lines[-TAIL_LINES:]


def _pipe() -> tuple[int, int]:
    """Write end, read end: while the supervisor lives it holds the first one, and nobody else does."""
    theirs, ours = os.pipe()
    return ours, theirs


def _start(
    command: Sequence[str],
    folder: RunFolder,
    accelerators: Sequence[int],
    own: Mapping[str, str],
    keep: Sequence[int],
    alive: int,
    remaining_s: float,
) -> subprocess.Popen[bytes]:
    environment = {
        **ALLOCATOR,
        **os.environ,
        **own,
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",  # a crash, and our SIGABRT of a hung one, leave a traceback in the log
        SUPERVISOR_VARIABLE: str(alive),
        LEFT_VARIABLE: str(remaining_s),
    }
    if accelerators and "CUDA_VISIBLE_DEVICES" not in environment:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, accelerators))
    with folder.log.open("ab") as log:
        return subprocess.Popen(
            [*command, str(folder.spec)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=keep,
            start_new_session=True,
        )


def _watch(
    process: subprocess.Popen[bytes],
    folder: RunFolder,
    limits: Limits,
    remaining_s: float,
    stop: Callable[[], Why],
    tick: Callable[[], None],
) -> Why:
    deadline = time.monotonic() + remaining_s
    signs, sign_seen = _signs_of_life(folder), time.monotonic()
    while True:
        with suppress(subprocess.TimeoutExpired):
            process.wait(limits.poll_s)
            tick()
            return ""
        tick()
        now = time.monotonic()
        latest = _signs_of_life(folder)
        if latest != signs:
            signs, sign_seen = latest, now
        if now - sign_seen > limits.hang_s:
            process.send_signal(signal.SIGABRT)  # faulthandler writes where it hangs
            _wait(process, min(limits.grace_s, 5))
            return "hung"
        why: Why = "overtime" if now > deadline else stop()
        if why:
            process.send_signal(signal.SIGTERM)
            _wait(process, limits.grace_s)
            tick()
            return why


def _wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def _signs_of_life(folder: RunFolder) -> list[tuple[int, int]]:
    """Compared with itself only, never with a clock: the machine's may be wrong."""
    signs = []
    for path in (folder.events, folder.log, folder.heartbeat):
        with suppress(FileNotFoundError):
            about = path.stat()
            signs.append((about.st_size, about.st_mtime_ns))
    return signs


def _kill_group(leader: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # macOS says the second of a group of zombies
        os.killpg(leader, signal.SIGKILL)


def _memory_kills() -> int:
    """How often the kernel has killed for memory, in this container and on this host; 0 where it does not say."""
    count = 0
    for path in (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat")):
        with suppress(OSError, ValueError):
            for row in path.read_text().splitlines():
                name, _, value = row.partition(" ")
                if name == "oom_kill":
                    count += int(value)
    return count


def end_with_supervisor() -> None:
    """In the training process: when the supervisor dies, checkpoint and end as if it had asked for it."""
    descriptor = os.environ.pop(SUPERVISOR_VARIABLE, "")
    if not descriptor.isdigit():
        return  # started by hand

    def watch() -> None:
        with suppress(OSError):
            os.read(int(descriptor), 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="supervisor", daemon=True).start()


def hours_left() -> Callable[[], float]:
    """In the training process: seconds until the supervisor stops it because the run's max_hours are over."""
    ends = time.monotonic() + float(os.environ.pop(LEFT_VARIABLE, "inf"))
    return lambda: ends - time.monotonic()
