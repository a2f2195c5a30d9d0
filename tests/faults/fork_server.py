"""`tlvm` in a fresh process, hundreds of times: forked from one that has loaded its libraries and done nothing else.

    python -m tests.faults.fork_server RATE     each line of stdin is a job, {"words", "folder", "variables", "out"};
                                                answered with its process id, and with its exit code when it has ended

RATE    how fast our own waits pass: those of workflows, of operations, and between two attempts
"""

from __future__ import annotations

import importlib
import json
import os
import random
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.e2e.command import Answer

_ROOT = Path(__file__).resolve().parents[2]
_LOADED = (
    "google.cloud.compute_v1", "google.cloud.storage", "orchestrator.ssh", "orchestrator.cli.app",
    "orchestrator.providers.gce", "orchestrator.stores.gcs", "orchestrator.weights", "orchestrator.render.machines",
    "orchestrator.render.runs", "orchestrator.render.cloud", "orchestrator.workflows.up", "orchestrator.workflows.down",
    "orchestrator.workflows.run", "orchestrator.workflows.gc", "orchestrator.workflows.status",
)  # fmt: skip


class Forked:
    """Running while it is entered as a context; one job at a time."""

    def __init__(self, rate: float = 10.0) -> None:
        self._rate = rate

    def __enter__(self) -> Forked:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.fork_server", str(self._rate)],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._said(60) == "ready"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.kill()
        self._server.communicate()

    def begin(self, words: Sequence[str | Path], folder: Path, variables: Mapping[str, str]) -> Job:
        out = folder / "out"
        job = {
            "words": [*map(str, words)],
            "folder": str(folder),
            "variables": dict(variables),
            "out": str(out),
        }
        assert self._server.stdin is not None
        print(json.dumps(job), file=self._server.stdin, flush=True)
        return Job(int(self._said(60)), out, self._said)

    def _said(self, within_s: float) -> str:
        """The next line of the server; "" when none comes in time."""
        assert self._server.stdout is not None
        ready, _, _ = select.select([self._server.stdout], [], [], within_s)
        return self._server.stdout.readline().strip() if ready else ""


@dataclass
class Job:
    pid: int
    out: Path
    said: Callable[[float], str]
    exit_code: int | None = None

    def ended(self, within_s: float) -> bool:
        if self.exit_code is None and (said := self.said(within_s)):
            self.exit_code = int(said)
        return self.exit_code is not None

    def kill(self) -> None:
        """With SIGKILL: it can't say or tidy anything any more."""
        if not self.ended(0):
            os.kill(self.pid, 9)
            assert self.ended(10)

    def answer(self, within_s: float = 60) -> Answer:
        assert self.ended(within_s), f"still at work after {within_s:.0f} s: {_text(self.out, '.err')}"
        assert self.exit_code is not None
        return Answer(self.exit_code, _text(self.out, ".out"), _text(self.out, ".err"))


def _text(out: Path, suffix: str) -> str:
    return out.with_suffix(suffix).read_text(errors="replace")


def main(rate: float) -> None:
    for name in _LOADED:
        importlib.import_module(name)
    _hurry(rate)
    print("ready", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _child(job)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


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
