"""`python -m tests.benchmarks.following`: what it costs a machine that somebody follows its runs.

The promises: at most 0.6 seconds of processor time a minute at ten lines a second, for the two followers of a run (events
and log) together, their start included; and 100 MB of log in seconds, here against `cat` of the same file into a pipe.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from remote.contract import document, frames
from remote.contract.layout import MachineHome, RunFolder
from remote.contract.run_status import RunStatus
from remote.job import line
from tests.benchmarks import measure

PROCESSOR_BAR_S = 0.6  # a minute
LOG_BAR_S = 5.0
LOG_BYTES = 100_000_000
LINES_PER_S = 10
RUN = "fixed-extractor-20260807-142530-k3qz"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.following", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of following; default 60")
    parser.add_argument("--keep", action="store_true", help="append to RESULTS.md")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="tlvm-bench-") as folder:
        home = MachineHome(Path(folder) / ".tlvm")
        rows = [*followed(home, chosen.seconds), long_log(home)]
    print(*rows, sep="\n")
    if chosen.keep:
        measure.keep("Runs that survive: following", rows)
    return int(any(row.startswith("FAIL") for row in rows))


def followed(home: MachineHome, seconds: float) -> list[str]:
    """Two followers of a run that says ten lines a second in each of its streams."""
    folder = begun(home)
    held = line.hold_run(home.locks, RUN)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    followers = [begin(home, stream) for stream in ("events", "log")]
    readers = [threading.Thread(target=lambda one=one: one.stdout and one.stdout.read()) for one in followers]
    for reader in readers:
        reader.start()
    began = time.monotonic()
    with folder.log.open("ab") as log, folder.events.open("ab") as events:
        while time.monotonic() - began < seconds:
            for file in (log, events):
                file.write(
                    b'{"t": 1786112730.123, "type": "log", "level": "info", "text": "a line like another"}\n'
                )
                file.flush()
            time.sleep(1 / LINES_PER_S)
    document.write(folder.status, RunStatus(RUN, "SUCCEEDED", updated=""))
    os.close(held)
    for one, reader in zip(followers, readers, strict=True):
        one.wait(30)
        reader.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    per_minute_s = spent_s * 60 / seconds
    text = (
        f"events and log followed for {seconds:.0f} s at {LINES_PER_S} lines a second each: {per_minute_s:.2f} s of "
        f"processor time a minute, start included (at most {PROCESSOR_BAR_S:g})"
    )
    return [_row(per_minute_s <= PROCESSOR_BAR_S, text)]


def long_log(home: MachineHome) -> str:
    folder = begun(home)
    with folder.log.open("wb") as log:
        log.writelines(b"a line of log, %092d\n" % number for number in range(LOG_BYTES // 108))
    size = folder.log.stat().st_size
    document.write(folder.status, RunStatus(RUN, "SUCCEEDED", updated=""))
    cat_s = passed_s(["cat", str(folder.log)], home)
    ours_s, unframer = passed_s(command("log"), home), frames.Unframer()
    del unframer
    text = (
        f"{size / 1e6:.0f} MB of log through the follower in {ours_s:.2f} s (at most {LOG_BAR_S:g}), "
        f"{ours_s / cat_s:.1f} times `cat` ({cat_s:.2f} s)"
    )
    return _row(ours_s <= LOG_BAR_S, text)


def passed_s(words: Sequence[str], home: MachineHome) -> float:
    """Seconds until all that the command says has come through a pipe."""
    began = time.perf_counter()
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=environment(home)) as process:
        assert process.stdout is not None
        while process.stdout.read(1 << 20):
            pass
    return time.perf_counter() - began


def begun(home: MachineHome) -> RunFolder:
    folder = home.run(RUN)
    folder.root.mkdir(parents=True, exist_ok=True)
    home.locks.mkdir(exist_ok=True)
    folder.log.write_bytes(b"")
    folder.events.write_bytes(b"")
    return folder


def begin(home: MachineHome, stream: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command(stream), stdout=subprocess.PIPE, env=environment(home))


def command(stream: str) -> list[str]:
    return [sys.executable, "-m", "remote", "follow", RUN, "--stream", stream]


def environment(home: MachineHome) -> dict[str, str]:
    return {**os.environ, "HOME": str(home.root.parent), "PYTHONPATH": str(measure.ROOT)}


def _row(kept: bool, text: str) -> str:
    return f"{'ok' if kept else 'FAIL'}: {text}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
