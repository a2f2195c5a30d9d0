"""`tlvm` as a user types it: a process of its own, in a home of its own, that leaves nothing running."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OWNER = f"tests-{secrets.token_hex(4)}"  # one who has nothing yet: a test run that was killed may have left machines


@dataclass(frozen=True)
class Answer:
    exit_code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        """What --json printed."""
        found = json.loads(self.stdout)
        assert isinstance(found, dict)
        return found


@dataclass(frozen=True)
class Tlvm:
    """The command, with its data directory and current folder below `home`."""

    home: Path
    python: Path = Path(sys.executable)
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The folder that the user stands in."""
        folder = self.home / "project"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def __call__(self, *words: str | Path, expect: int = 0, timeout_s: float = 280) -> Answer:
        """Run `tlvm WORDS...` and check its exit code."""
        done = subprocess.run(
            [self.python, "-m", "orchestrator", *map(str, words)],
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
        )
        answer = Answer(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert done.returncode == expect, (
            f"{' '.join(map(str, words))}: exit {done.returncode}\n{answer.stdout}\n{answer.stderr}"
        )
        return answer

    def interrupted(self, *words: str | Path, at: str) -> str:
        """Run it and press Ctrl-C as soon as a line on stderr begins with `at`: what it says from there on."""
        process = subprocess.Popen(
            [self.python, "-m", "orchestrator", *map(str, words)],
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stderr is not None
            for line in process.stderr:
                if line.startswith(at):
                    process.send_signal(signal.SIGINT)
                    break
            rest = process.stderr.read()
        assert process.returncode == 130, rest
        return rest

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TLVM_")}
        ours = {"TLVM_DATA_DIR": str(self.home / "data"), "TLVM_OWNER": OWNER, "PYTHONSAFEPATH": "1"}
        return kept | ours | self.variables
