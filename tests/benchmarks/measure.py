"""What a benchmark needs: a side in a process of its own, its times and peak memory, and a line in RESULTS.md."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("RESULTS.md")
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Side:
    """One side of a comparison, measured."""

    seconds: float  # of the work, without process start and imports
    whole_seconds: float  # of the process, from start to end
    peak_bytes: int  # above what the process had after its imports
    result: dict[str, Any]


def in_process(
    module: str,
    *arguments: str,
    threads: int,
    home: Path | None = None,
    variables: Mapping[str, str] | None = None,
) -> Side:
    """Run `python -m module arguments` with so many threads, which wait without spinning; it ends with `report`.

    variables       of the environment, as the supervisor of a run would set them
    """
    environ = (
        os.environ
        | {"GOMP_SPINCOUNT": "1000"}  # as remote.train does before it loads torch
        | dict(variables or {})
        | {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    )
    if home:
        environ["HOME"] = str(home)
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, env=environ, stdout=subprocess.PIPE, check=True
    )
    whole = time.perf_counter() - started
    said = json.loads(done.stdout.splitlines()[-1])
    return Side(said["seconds"], whole, said["peak_bytes"], said["result"])


def report(work: Callable[[], Mapping[str, Any]]) -> None:
    """In the process of a side, after its imports: do the work, print what it took as one line."""
    before = _memory("VmRSS")
    _forget_peak()
    started = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - started
    line = {"seconds": seconds, "peak_bytes": _memory("VmHWM") - before, "result": dict(result)}
    print(json.dumps(line), flush=True)


def machine() -> str:
    """The computer in one line."""
    model = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    return f"{os.cpu_count()} x {model}, {platform.system()} {platform.release()}, Python {platform.python_version()}"


def keep(title: str, rows: list[str]) -> None:
    """Append a section to RESULTS.md."""
    RESULTS.touch()
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(f"\n## {title}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC\n\n{machine()}\n\n")
        file.writelines(f"* {row}\n" for row in rows)


def _memory(name: str) -> int:
    """VmRSS (now) or VmHWM (peak) of this process, bytes. Linux only: elsewhere 0, and no figure is given."""
    line = next((line for line in _lines("/proc/self/status") if line.startswith(name)), None)
    return int(line.split()[1]) * 1024 if line else 0


def _forget_peak() -> None:
    peak = Path("/proc/self/clear_refs")
    if peak.exists():
        peak.write_text("5", encoding="ascii")  # VmHWM begins anew at VmRSS


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines() if Path(path).exists() else []
