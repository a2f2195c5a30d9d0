"""`tlvm` as tests give it its words, and what it answers."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Answer:
    code: object
    out: str
    err: str


class Process:
    """`tlvm` in a process of its own, in an empty folder."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "here"
        self.folder.mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TLVM_")}
        root = str(Path(__file__).parents[2])
        self.environment = kept | {"TLVM_DATA_DIR": str(home / "data"), "PYTHONPATH": root}

    def start(self, *words: str, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "orchestrator", *words], cwd=self.folder, env=self.environment | more,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __call__(self, *words: str, **more: str) -> Answer:
        with self.start(*words, **more) as process:
            out, err = process.communicate(timeout=60)
        return Answer(process.returncode, out, err)
