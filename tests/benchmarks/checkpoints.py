"""`python -m tests.benchmarks.checkpoints`: what checkpoints cost a run, and what a run that is killed does again.

A real training (`from-scratch`), and what its own events say: each checkpoint tells its seconds, progress tells where the
training is. Work is compared by processor time, which other work on the machine moves least. The product's rule is that 60 s and 50 times the cost of the last one pass between two; here the first part is
scaled down, so that a minute holds several: more of them than a real run has. Checkpoints by the rule take at most 1 / 51
by construction; the one at the end of training comes on top, so 10 minutes are reckoned with it, too.
The promises: at most 2 % of a run of 10 minutes or more; after SIGKILL a run repeats at most the time since its last
checkpoint.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from remote.contract import events, scenarios
from remote.contract.layout import RunFolder
from tests.benchmarks import measure
from tests.benchmarks.prepared import Prepared, prepare

SHARE_BAR = 0.02
REPEATED_BAR = (
    1.1  # the images that are done again are counted exactly; a new process has to decode them once more
)
LEAST_S, TIMES_COST = 60.0, 50.0  # of remote.train
TEN_MINUTES_S = 600.0
MODULE = "tests.benchmarks.checkpoints"


@dataclass(frozen=True)
class Share:
    """Of a run that nobody kills."""

    train_s: float  # from the first checkpoint to the last one by the rule
    costs_s: Sequence[float]  # of those by the rule; the first one knows no cost yet, and is left out
    last_s: float  # of the one when the training ended
    size: int  # bytes


@dataclass(frozen=True)
class Repeated:
    """After one SIGKILL."""

    since_s: float  # from the last checkpoint to what the training told last
    since_processor_s: float
    seconds: float  # from its first step on, until it was there again
    processor_s: float
    start_s: float  # from the start of the process to that step
    images: int  # that were learned from again
    since_images: int  # that had been learned from since the checkpoint


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__)
    parser.add_argument("--photos", type=Path, default=measure.ROOT.parent / "shared/data/hymenoptera")
    parser.add_argument("--model", default="mobilenet_v2")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--scale", type=float, default=10.0, help="the 60 s are divided by it")
    parser.add_argument("--seconds", type=float, default=30.0, help="of the run that nobody kills")
    parser.add_argument("--kills", type=int, default=1)
    parser.add_argument("--later", type=float, default=30.0, help="seconds from a checkpoint to the kill")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep", action="store_true", help="append to RESULTS.md")
    chosen = parser.parse_args(arguments)
    least_s = LEAST_S / chosen.scale
    with tempfile.TemporaryDirectory(prefix="tlvm-bench-") as folder:
        rule = (least_s, TIMES_COST)
        share = Run(_prepared(Path(folder) / "alone", chosen), rule, chosen).left_alone(chosen.seconds)
        one = (least_s, chosen.later * 1000)  # the second one comes later than the kill
        found = Run(_prepared(Path(folder) / "killed", chosen), one, chosen).killed(
            chosen.kills, chosen.later
        )
    rows = [cost_row(share, least_s), ten_minutes_row(share), *repeated_rows(found)]
    print(*rows, sep="\n")
    if chosen.keep:
        measure.keep("Runs that survive: checkpoints", rows)
    return int(any(row.startswith("FAIL") for row in rows))


class Run:
    """A run that goes on in its folder as often as it is started."""

    def __init__(self, prepared: Prepared, rule: tuple[float, float], chosen: argparse.Namespace) -> None:
        """rule    for checkpoints: seconds between two at least, and times what one cost"""
        self._folder, self._batch = prepared.folder, chosen.batch
        self._command = [sys.executable, "-m", MODULE, "train", str(prepared.folder.spec), *map(str, rule)]
        self._environment = {
            **os.environ,
            "HOME": str(prepared.home),
            "OMP_NUM_THREADS": str(chosen.threads),
            "PYTHONPATH": str(measure.ROOT),
        }

    def left_alone(self, seconds: float) -> Share:
        """Until it is told to stop, which makes one more checkpoint."""
        with self._training() as attempt:
            attempt.wait_for(lambda: bool(attempt.places()))
            time.sleep(seconds)
            attempt.process.send_signal(signal.SIGTERM)
            attempt.process.wait(60)
        first, *written, last = attempt.checkpoints()
        costs_s = [event["seconds"] for event in written]
        return Share(written[-1]["t"] - first["t"], costs_s, last["seconds"], last["bytes"])

    def killed(self, kills: int, later_s: float) -> list[Repeated]:
        """Each time so long after a checkpoint."""
        with self._training() as attempt:
            checkpoint, told = self._kill(attempt, later_s)
        found = []
        for left in reversed(range(kills)):
            began_s = time.time()
            with self._training() as attempt:
                attempt.wait_for(lambda: bool(attempt.places()))
                first_s = attempt.processor_s()
                attempt.wait_for(partial(attempt.is_at, told.images))
                spent_s = attempt.processor_s() - first_s
                found.append(self._repeated(attempt, checkpoint, told, began_s, spent_s))
                if left:
                    checkpoint, told = self._kill(attempt, later_s)
        return found

    def _kill(self, attempt: Attempt, later_s: float) -> tuple[Place, Place]:
        """Where the next checkpoint is, and what the training told last."""
        known = len(attempt.checkpoints())
        attempt.wait_for(lambda: len(attempt.checkpoints()) > known)
        checkpoint, at_checkpoint_s = attempt.checkpoints()[-1], attempt.processor_s()
        time.sleep(later_s)
        at_kill_s = attempt.processor_s()
        attempt.process.kill()
        attempt.process.wait()
        assert attempt.checkpoints()[-1] == checkpoint, "another one has come meanwhile"
        position = self._position()
        images = position["epoch"] * attempt.images_of_an_epoch() + position["images"]
        told = attempt.places()[-1]
        return Place(checkpoint["t"], images, at_checkpoint_s), Place(told.t, told.images, at_kill_s)

    def _repeated(
        self, attempt: Attempt, checkpoint: Place, told: Place, began_s: float, spent_s: float
    ) -> Repeated:
        first, *_ = places = attempt.places()
        there = next(place for place in places if place.images >= told.images)
        image_s = (there.t - first.t) / (there.images - first.images)
        again = told.images - (first.images - self._batch)  # the first batch is told at once
        return Repeated(
            told.t - checkpoint.t,
            told.processor_s - checkpoint.processor_s,
            again * image_s,
            spent_s * again / (again - self._batch),
            first.t - self._batch * image_s - began_s,
            again,
            told.images - checkpoint.images,
        )

    @contextmanager
    def _training(self) -> Iterator[Attempt]:
        epoch = self._position()["epoch"] if newest(self._folder) else 0
        skip = self._folder.events.stat().st_size if self._folder.events.exists() else 0
        with subprocess.Popen(self._command, env=self._environment, stdout=subprocess.DEVNULL) as process:
            try:
                yield Attempt(process, self._folder, skip, epoch)
            finally:
                process.kill()

    def _position(self) -> dict[str, Any]:
        """Of the training, as the newest checkpoint has it."""
        import torch

        path = newest(self._folder)
        assert path is not None
        found: dict[str, Any] = torch.load(path, weights_only=True)["state"]["position"]
        return found


@dataclass(frozen=True)
class Place:
    t: float  # seconds since the epoch
    images: int  # learned from since the run began
    processor_s: float = 0.0  # that the process had taken when this was seen


@dataclass(frozen=True)
class Attempt:
    """One process of the run, and what its events say."""

    process: subprocess.Popen[bytes]
    folder: RunFolder
    skip: int  # bytes of events that are of earlier ones
    epoch: int  # that were over in the checkpoint

    def places(self) -> list[Place]:
        """Where the training was, as it told."""
        epoch, found = self.epoch, []
        for event in self._events():
            if event["type"] == "epoch":
                epoch = event["epoch"]
            if event["type"] == "progress" and event["step"] == "train":
                found.append(Place(event["t"], epoch * event["total"] + event["done"]))
        return found

    def is_at(self, images: int) -> bool:
        return any(place.images >= images for place in self.places())

    def checkpoints(self) -> list[dict[str, Any]]:
        return [event for event in self._events() if event["type"] == "checkpoint"]

    def images_of_an_epoch(self) -> int:
        steps = [
            event for event in self._events() if event["type"] == "progress" and event["step"] == "train"
        ]
        return int(steps[0]["total"])

    def processor_s(self) -> float:
        """Of all its threads, user and system."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def wait_for(self, happened: Callable[[], bool]) -> None:
        while not happened():
            if self.process.poll() is not None:
                raise SystemExit(f"the training ended with exit code {self.process.returncode}")
            time.sleep(0.05)

    def _events(self) -> list[dict[str, Any]]:
        if not self.folder.events.exists():
            return []
        lines = self.folder.events.read_bytes()[self.skip :].splitlines(keepends=True)
        return [event for line in lines if line.endswith(b"\n") and (event := events.parse(line))]


def cost_row(share: Share, least_s: float) -> str:
    taken = sum(share.costs_s) / share.train_s
    costs = ", ".join(f"{cost_s:.2f}" for cost_s in share.costs_s)
    return _row(
        taken <= SHARE_BAR,
        f"checkpoints took {100 * taken:.2f} % of {share.train_s:.0f} s of training (at most {100 * SHARE_BAR:g} %): "
        f"{len(share.costs_s)} of {share.size / 1e6:.0f} MB by the product's rule with its 60 s scaled down to "
        f"{least_s:g}; seconds each: {costs}",
    )


def ten_minutes_row(share: Share) -> str:
    """Reckoned, not run."""
    cost_s = statistics.median(share.costs_s)
    gap_s = max(LEAST_S, TIMES_COST * cost_s)
    count = int(TEN_MINUTES_S / (gap_s + cost_s))
    taken = (count * cost_s + share.last_s) / TEN_MINUTES_S
    return _row(
        taken <= SHARE_BAR,
        f"reckoned from these costs, 10 minutes hold {count} by the rule as it is, and the one at the end of training "
        f"({share.last_s:.2f} s): {100 * taken:.2f} % (at most {100 * SHARE_BAR:g} %)",
    )


def repeated_rows(found: Sequence[Repeated]) -> list[str]:
    ratio = statistics.median(one.processor_s / one.since_processor_s for one in found)
    processor = "; ".join(f"{one.processor_s:.1f} and {one.since_processor_s:.1f} s" for one in found)
    clock = "; ".join(f"{one.seconds:.1f} and {one.since_s:.1f} s" for one in found)
    images = "; ".join(f"{one.images} of {one.since_images}" for one in found)
    starts = ", ".join(f"{one.start_s:.1f}" for one in found)
    return [
        _row(
            all(one.images <= one.since_images for one in found),
            f"after SIGKILL a run learns again from the images since its last checkpoint, and no others: {images}",
        ),
        _row(
            ratio <= REPEATED_BAR,
            f"that takes {ratio:.2f} times the processor time since the last checkpoint (at most {REPEATED_BAR:g}, since "
            f"a new process decodes images anew): {processor}; by the clock {clock}; before its first step the new "
            f"process needs {starts} s",
        ),
    ]


def newest(folder: RunFolder) -> Path | None:
    return max(folder.checkpoints.glob("checkpoint-*.pt"), default=None)


def train(spec: str, least_s: str, times_cost: str) -> int:
    from remote.train import main as train_main

    return train_main(Path(spec), checkpoint_least_s=float(least_s), checkpoint_times_cost=float(times_cost))


def _prepared(folder: Path, chosen: argparse.Namespace) -> Prepared:
    folder.mkdir()
    parameters = {
        "batch_size": chosen.batch,
        "decode_workers": chosen.threads,
        "epochs": 10_000,
        "image_size": chosen.size,
        "patience": 10_000,
    }
    return prepare(
        folder,
        chosen.photos,
        chosen.model,
        "none",
        scenario="from-scratch",
        parameters=scenarios.resolve("from-scratch", parameters),
    )


def _row(kept: bool, text: str) -> str:
    return f"{'ok' if kept else 'FAIL'}: {text}"


if __name__ == "__main__":
    if sys.argv[1:2] == ["train"]:
        sys.exit(train(*sys.argv[2:]))
    sys.exit(main(sys.argv[1:]))
