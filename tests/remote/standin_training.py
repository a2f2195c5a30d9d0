"""Stands in for `python -m remote train`: does what the run's parameter "behaviour" says. Called with the spec's path."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from remote.contract.events import EventWriter
from remote.contract.layout import MachineHome, RunFolder
from remote.job.record import read_spec
from remote.job.training_process import end_with_supervisor, hours_left


def main() -> int:
    end_with_supervisor()
    left_s = hours_left()
    spec = read_spec(Path(sys.argv[1]))
    folder = MachineHome.of_this_user().run(spec.run_id)
    events = EventWriter(folder.events)
    events.step("select", "a stand-in")
    print("training begins", flush=True)
    behaviour = str(spec.parameters.get("behaviour", "succeed"))
    if behaviour == "unusable":
        events.log("Only one class: bees", level="error")
        return 3
    if behaviour == "crash":
        raise RuntimeError("out of luck")
    if behaviour == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "killed after each epoch":
        epoch = folder.events.read_text().count('"type": "epoch"') + 1
        if epoch <= 4:
            events.emit("epoch", epoch=epoch)
            os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if behaviour == "no room" and not write(folder.result / "large"):
        return 13
    if behaviour == "no byte left" and fill(Path.home() / "fill", folder.status):
        return 13
    if behaviour == "nothing":
        return 0
    if behaviour == "noisy":
        for number in range(200_000):
            print(f"line {number:060d}")
    if behaviour == "hungry":
        kept = []
        while True:
            kept.append(bytearray(os.urandom(1024)) * 16 * 1024)
    if behaviour == "environment":
        print("it has", os.environ.get("SECRET_OF_THE_RUN", "nothing"), flush=True)
    if behaviour == "hours":
        print(f"it has {left_s() / 3600:.1f} hours", flush=True)
    if behaviour == "count" and not count(spec.parameters, folder):
        return 12
    if behaviour in ("wait", "deaf"):
        events.progress("train", 10, 100, "images", epoch=1)
        return wait(folder.checkpoints / "mark", deaf=behaviour == "deaf")
    if behaviour == "hang":
        time.sleep(600)
    events.step("evaluate", "done")
    result = folder.result
    (result / "model").mkdir(exist_ok=True)
    (result / "model" / "model.safetensors").write_bytes(b"weights" * 1000)
    (result / "model" / "model.json").write_text("{}")
    (result / "metrics.json").write_text('{"accuracy": 0.5}')
    (result / ".half-written").write_text("no result")
    print("training ends", flush=True)
    return 0


def count(parameters: Mapping[str, Any], folder: RunFolder) -> bool:
    """To "to", with a line of log and a checkpoint each; at "hold" the first attempt waits for SIGTERM, and says False."""
    first = json.loads(folder.supervisor.read_bytes())["attempt"] == 1
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    last = max(folder.checkpoints.glob("checkpoint-*.pt"), default=None)
    begin = int(last.stem.partition("-")[2]) + 1 if last else 1
    for number in range(begin, int(parameters["to"]) + 1):
        print(f"counted {number}", flush=True)
        beside = folder.checkpoints / ".checkpoint"
        beside.write_bytes(f"{number} ".encode() * int(parameters.get("size", 1)))
        beside.rename(folder.checkpoints / f"checkpoint-{number:08d}.pt")
        for old in sorted(folder.checkpoints.glob("checkpoint-*.pt"))[:-2]:
            old.unlink()
        while first and number == parameters.get("hold") and not asked:
            time.sleep(0.01)
        if asked:
            return False
    return True


def write(path: Path) -> bool:
    """Half a megabyte; False when the disk does not take it."""
    try:
        path.write_bytes(bytes(500_000))
    except OSError as error:
        path.unlink()
        print(f"the disk: {error}", flush=True)
        return False
    return True


def fill(path: Path, status: Path) -> bool:
    """All that the disk takes, until the supervisor has shown that it lives all the same; False the second time."""
    done = path.parent / "filled"
    if done.exists():
        return False
    done.touch()
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    before = status.stat().st_mtime_ns
    while status.stat().st_mtime_ns == before:
        time.sleep(0.01)
    return True


def wait(checkpoint: Path, *, deaf: bool) -> int:
    """Until SIGTERM, which leaves a checkpoint; a deaf one does not listen."""
    if deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("deaf", flush=True)
        time.sleep(600)
    asked = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # one that came before
    print("waiting", flush=True)
    while not asked:
        time.sleep(0.01)
    checkpoint.write_text("here")
    return 12


if __name__ == "__main__":
    sys.exit(main())
