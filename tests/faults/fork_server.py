"""`tlvm` in a fresh process, hundreds of times: forked from one that has loaded its libraries and done nothing else.

    python -m tests.faults.fork_server RATE     each line of stdin is a job, {"words", "folder", "variables", "out"};
                                                answered with "began PID", and with "ended PID CODE" when it has ended

RATE    how fast our own waits pass: those of workflows, of operations, and between two attempts
"""

from __future__ import annotations

import importlib
import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.command import Answer

_ROOT = Path(__file__).resolve().parents[2]
_SOON_S = 200  # on a computer that is very busy
_LOADED = (
    "google.cloud.compute_v1", "google.cloud.storage", "orchestrator.ssh", "orchestrator.cli.app",
    "orchestrator.providers.gce", "remote.storage.gcs", "orchestrator.weights", "orchestrator.render.machines",
    "orchestrator.render.runs", "orchestrator.render.cloud", "orchestrator.workflows.machines.up", "orchestrator.workflows.machines.down",
    "orchestrator.workflows.runs.run", "orchestrator.workflows.machines.gc", "orchestrator.workflows.machines.status",
)  # fmt: skip


class Forked:
    """Running while it is entered as a context; any number of jobs at once.

    code    a folder with the packages `orchestrator` and `remote`; default: this checkout
    """

    def __init__(self, rate: float = 10.0, *, code: Path = _ROOT) -> None:
        self._rate = rate
        self._code = code
        self._began: list[int] = []
        self._ended: dict[int, int] = {}

    def __enter__(self) -> Forked:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.fork_server", str(self._rate)],
            cwd=_ROOT,
            env={**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": f"{self._code}:{_ROOT}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # what lies in a buffer is not seen by select
        )
        assert self._said(_SOON_S) == ["ready"]
        return self

    def __exit__(self, *error: object) -> None:
        self._server.kill()
        self._server.communicate()

    def begin(
        self, words: Sequence[str | Path], folder: Path, variables: Mapping[str, str], *, out: str = "out"
    ) -> Job:
        """out   name in `folder` of the files that take its output; jobs that live at once need several"""
        job = {
            "words": [*map(str, words)],
            "folder": str(folder),
            "variables": dict(variables),
            "out": str(folder / out),
        }
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(job).encode() + b"\n")
        while not self._began:
            self._hear(_SOON_S)
        pid = self._began.pop()
        self._ended.pop(pid, None)  # of an earlier one with the same number
        return Job(pid, folder / out, self._exit_code)

    def _exit_code(self, pid: int, within_s: float) -> int | None:
        deadline = time.monotonic() + within_s
        while pid not in self._ended and self._hear(max(0, deadline - time.monotonic())):
            pass
        return self._ended.get(pid)

    def _hear(self, within_s: float) -> bool:
        """The next line of the server is taken in; False when none comes in time."""
        match self._said(within_s):
            case ["began", pid]:
                self._began.append(int(pid))
            case ["ended", pid, code]:
                self._ended[int(pid)] = int(code)
            case _:
                return False
        return True

    def _said(self, within_s: float) -> list[str]:
        assert self._server.stdout is not None
        ready, _, _ = select.select([self._server.stdout], [], [], within_s)
        return self._server.stdout.readline().decode().split() if ready else []


@dataclass
class Job:
    pid: int
    out: Path
    asked: Callable[[int, float], int | None]
    exit_code: int | None = None

    def ended(self, within_s: float) -> bool:
        if self.exit_code is None:
            self.exit_code = self.asked(self.pid, within_s)
        return self.exit_code is not None

    def until(self, holds: Callable[[], object], within_s: float = _SOON_S) -> None:
        """Wait until it holds, while this is at work."""
        deadline = time.monotonic() + within_s
        while not holds():
            assert not self.ended(0.01), self.stderr
            assert time.monotonic() < deadline, self.stderr

    def kill(self) -> None:
        """With SIGKILL: it can't say or tidy anything any more."""
        if not self.ended(0):
            os.kill(self.pid, 9)
            assert self.ended(_SOON_S)

    def answer(self, within_s: float = _SOON_S) -> Answer:
        assert self.ended(within_s), f"still at work after {within_s:.0f} s: {self.stderr}"
        assert self.exit_code is not None
        return Answer(self.exit_code, self.stdout, self.stderr)

    @property
    def stdout(self) -> str:
        return _text(self.out, ".out")

    @property
    def stderr(self) -> str:
        return _text(self.out, ".err")


def _text(out: Path, suffix: str) -> str:
    """What it has said so far; it may not have come to say anything."""
    try:
        return out.with_suffix(suffix).read_text(errors="replace")
    except FileNotFoundError:
        return ""


def main(rate: float) -> None:
    for name in _LOADED:
        importlib.import_module(name)
    _hurry(rate)
    tell, told = os.pipe()
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    print("ready", flush=True)
    while True:
        ready, _, _ = select.select([0, tell], [], [])
        if tell in ready:
            os.read(tell, 1024)
            _bury()
        if 0 in ready:
            line = _line()
            if not line:
                return
            job = json.loads(line)
            pid = os.fork()
            if pid == 0:
                _child(job)
            print("began", pid, flush=True)


def _bury() -> None:
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG)) != (0, 0):
            print("ended", ended[0], os.waitstatus_to_exitcode(ended[1]), flush=True)


def _line() -> bytes:
    """Of stdin, and not a byte more."""
    line = b""
    while byte := os.read(0, 1):
        line += byte
        if byte == b"\n":
            break
    return line


def _hurry(rate: float) -> None:
    """Who makes one of our clocks and says nothing gets one that runs faster."""
    from orchestrator.providers.gce.operations import Waiting
    from orchestrator.workflows.clock import Clock
    from remote.contract.attempts import Attempts

    def now() -> float:
        return time.monotonic() * rate

    def sleep(seconds: float) -> None:
        time.sleep(seconds / rate)

    for kind in (Clock, Waiting):
        kind.__init__.__defaults__ = (now, sleep)
    count, first_s, longest_s, _, *others = Attempts.__init__.__defaults__ or ()
    Attempts.__init__.__defaults__ = (count, first_s, longest_s, sleep, *others)


def _child(job: dict[str, Any]) -> None:
    code = 1
    try:
        os.setsid()
        random.seed()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        for number, suffix in ((1, ".out"), (2, ".err")):
            os.dup2(
                os.open(Path(job["out"]).with_suffix(suffix), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number
            )
        os.chdir(job["folder"])
        os.environ.clear()
        os.environ.update(job["variables"])
        from orchestrator.cli import main as tlvm

        tlvm(job["words"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main(float(sys.argv[1]))
