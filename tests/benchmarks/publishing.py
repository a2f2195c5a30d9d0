"""`python -m tests.benchmarks.publishing`: what it costs a run that its events, log and checkpoints leave while it works.

The promises: publishing takes at most 2 % of the run's processor time, and training waits for it at most 1 %. A process
that trains (matrix products on one thread, ten lines of log a second, and a checkpoint of the size of a fine-tuned
resnet18 in each minute, as often as `remote.train` writes one at most) works without a publisher, with one beside it,
and without again. The store is the fake Google Cloud Storage in a process of its own, reached by Google's own library.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from remote.contract import document
from remote.contract.attempts import Attempts
from remote.contract.layout import MachineHome, RunFolder
from remote.contract.run_spec import StoreRef
from remote.contract.run_status import AttemptTimes, RunStatus
from tests.benchmarks import measure
from tests.benchmarks.gcs_process import serving

PROCESSOR_BAR = 0.02
WAIT_BAR = 0.01
WITH_S = 60.0  # one checkpoint
WITHOUT_S = 20.0
CHECKPOINT_BYTES = 135_000_000  # resnet18: weights, momentum, and the best weights so far
LINES_PER_S = 10
RUN = "fixed-extractor-20260807-142530-k3qz"
MODULE = "tests.benchmarks.publishing"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="append to RESULTS.md")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="tlvm-bench-") as folder, serving(0.0) as endpoint:
        rows = compared(Path(folder), endpoint)
    print(*rows, sep="\n")
    if chosen.keep:
        measure.keep("Runs that survive: publishing", rows)
    return int(any(row.startswith("FAIL") for row in rows))


def compared(work: Path, endpoint: str) -> list[str]:
    before = alone(work / "before", WITHOUT_S)
    with subprocess.Popen(
        [sys.executable, "-m", MODULE, "publish", str(work / "with"), endpoint],
        cwd=measure.ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as publisher:
        assert publisher.stdin is not None and publisher.stdout is not None
        publisher.stdout.readline()  # it has imported everything
        trained = alone(work / "with", WITH_S)
        said, _ = publisher.communicate(input="", timeout=60)
    after = alone(work / "after", WITHOUT_S)
    processor_s = float(said)
    share = processor_s / trained["processor_s"]
    rate = (before["rate"] + after["rate"]) / 2
    waits = 1 - trained["rate"] / rate
    apart = abs(before["rate"] - after["rate"]) / rate
    return [
        _row(
            share <= PROCESSOR_BAR,
            f"publishing took {processor_s:.2f} s of processor time beside {trained['processor_s']:.1f} s of training: "
            f"{100 * share:.2f} % (at most {100 * PROCESSOR_BAR:g} %)",
        ),
        _row(
            waits <= WAIT_BAR,
            f"training with it does {100 * waits:.2f} % fewer steps a second (at most {100 * WAIT_BAR:g} %); without it, "
            f"before and after, they are {100 * apart:.2f} % apart",
        ),
    ]


def alone(home: Path, seconds: float) -> dict[str, Any]:
    return measure.in_process(MODULE, "train", str(home), str(seconds), threads=1).result


def train(home: str, seconds: str) -> Mapping[str, Any]:
    """Steps a second of the time that is spent in steps."""
    folder = begun(home)
    matrix = np.random.default_rng(0).standard_normal((400, 400))
    began, steps, inside_s, lines, checkpointed = time.monotonic(), 0, 0.0, 0, False
    with folder.log.open("ab", buffering=0) as log:
        while (passed := time.monotonic() - began) < float(seconds):
            step_began = time.perf_counter()
            matrix = np.tanh(matrix @ matrix * 0.05)
            inside_s += time.perf_counter() - step_began
            steps += 1
            if passed * LINES_PER_S > lines:
                lines += 1
                log.write(
                    b"epoch 3 of 60: loss 0.1234 on train, 0.2345 held out, 93.1 %% right (%06d)\n" % lines
                )
            if not checkpointed and passed > 5:
                checkpointed = True
                put_checkpoint(folder)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {"rate": steps / inside_s, "processor_s": usage.ru_utime + usage.ru_stime}


def publish(home: str, endpoint: str) -> None:
    """Until stdin ends; prints the seconds of processor time that it took."""
    from remote.job.publish import Publisher
    from remote.store import open_store

    folder = begun(home)
    store = open_store(StoreRef("gs://ours", endpoint), attempts=Attempts(count=1))
    publisher = Publisher(lambda: store, RUN, folder, warn=lambda text: print(text, file=sys.stderr))
    print("ready", flush=True)
    before = resource.getrusage(resource.RUSAGE_SELF)
    publisher.start()
    sys.stdin.read()
    publisher.stop()
    after = resource.getrusage(resource.RUSAGE_SELF)
    print(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, flush=True)


def put_checkpoint(folder: RunFolder) -> None:
    beside = folder.checkpoints / ".checkpoint"
    with beside.open("wb") as file:
        for _ in range(CHECKPOINT_BYTES // 1_000_000):
            file.write(os.urandom(1_000_000))
    beside.rename(folder.checkpoints / "checkpoint-00000001.pt")


def begun(home: str) -> RunFolder:
    folder = MachineHome(Path(home)).run(RUN)
    folder.checkpoints.mkdir(parents=True, exist_ok=True)
    times = AttemptTimes(1, "bench", "2026-08-07T14:25:30+00:00")
    document.write(folder.status, RunStatus(RUN, "RUNNING", updated="", attempts=[times]))
    folder.events.touch()
    return folder


def _row(kept: bool, text: str) -> str:
    return f"{'ok' if kept else 'FAIL'}: {text}"


if __name__ == "__main__":
    if sys.argv[1:2] == ["train"]:
        measure.report(lambda: train(*sys.argv[2:]))
    elif sys.argv[1:2] == ["publish"]:
        publish(*sys.argv[2:])
    else:
        sys.exit(main(sys.argv[1:]))
