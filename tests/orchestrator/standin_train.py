"""Takes the place of remote/train.py in an installed bundle: quick, without torch, and at work for as long as it is told."""

from __future__ import annotations

import json
import os
import signal
import time
from hashlib import sha256
from pathlib import Path

from remote.contract.events import EventWriter
from remote.contract.layout import MachineHome
from remote.job.record import read_spec


def main(spec_path: Path, **hours: object) -> int:
    spec = read_spec(spec_path)
    folder = MachineHome.of_this_user().run(spec.run_id)
    events = EventWriter(folder.events)
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    for number in range(300):
        events.emit("log", level="info", text=f"event {number}")
        print(f"line {number}")
    if spec.seed == 3 or (spec.seed, spec.scenario) == (4, "initial-layers"):
        events.log("Only one class: bees", level="error")
        return 3
    deadline = time.monotonic() + (60 if spec.seed == 60 else 0)  # the seed says how long it is at work
    while time.monotonic() < deadline and not (MachineHome.of_this_user().root / "go").exists():
        if asked:
            return 12
        time.sleep(0.02)
    (folder.result / "model").mkdir(exist_ok=True)
    (folder.result / "model" / "model.safetensors").write_bytes(b"weights")
    (folder.result / "model" / "model.json").write_text("{}")
    told = {"token": sha256(token.encode()).hexdigest()} if (token := os.environ.get("LAB_TOKEN")) else {}
    (folder.result / "metrics.json").write_text(json.dumps({"accuracy": 0.5, **told}))
    return 0
