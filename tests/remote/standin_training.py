"""Stands in for `python -m remote train`: does what the run's parameter "behaviour" says. Called with the spec's path."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from remote.contract.events import EventWriter
from remote.contract.layout import MachineHome
from remote.job.record import read_spec
from remote.job.training_process import end_with_supervisor


def main() -> int:
    end_with_supervisor()
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
    if behaviour == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if behaviour == "nothing":
        return 0
    if behaviour == "noisy":
        for number in range(200_000):
            print(f"line {number:060d}")
    if behaviour in ("wait", "deaf"):
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


def wait(checkpoint: Path, *, deaf: bool) -> int:
    """Until SIGTERM, which leaves a checkpoint; a deaf one does not listen."""
    if deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    asked = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    print("waiting", flush=True)
    while not asked:
        time.sleep(0.01)
    checkpoint.write_text("here")
    return 12


if __name__ == "__main__":
    sys.exit(main())
