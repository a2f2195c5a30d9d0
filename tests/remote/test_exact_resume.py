"""A training that is killed anywhere, in the middle of an epoch too, and started again ends with the same model file.

Real training processes and SIGKILL. They are forked from a server that has torch loaded, to save its seconds.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from remote.contract.layout import MachineHome, RunFolder
from remote.train import main
from tests.remote import fixtures

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["remote.scenarios.from_scratch", "remote.scenarios.fine_tune_all", __name__])
_KILLS = {2: 2, 4: 1}  # how often, by the number of threads that load images

# Small enough for a step to take a fraction of a second; normalisation, dropout, averaging and mixing all take part.
SCENARIOS: dict[str, dict[str, Any]] = {
    "fine-tune-all": {"model": "squeezenet1_1", "epochs": 2, "learning_rate": 1e-3, "ema_epochs": 0.5},
    "from-scratch": {"model": "mobilenet_v3_small", "epochs": 2, "mixup": 0.2, "augmentation": "strong"},
}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> MachineHome:
    return fixtures.home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def dataset(machine: MachineHome, tmp_path_factory: pytest.TempPathFactory) -> fixtures.Dataset:
    return fixtures.pack_folder(machine, draw(tmp_path_factory.mktemp("images")))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_anywhere_and_gone_on_ends_with_the_same_bits(
    machine: MachineHome, dataset: fixtures.Dataset, scenario: str
) -> None:
    settings = SCENARIOS[scenario]
    whole = put(machine, dataset, scenario, "0000", decode_workers=0, **settings)
    attempt = begin(whole)
    attempt.join()
    assert attempt.exitcode == 0
    steps = newest(whole)
    assert steps > 12
    moments = random.Random(20260807)
    for workers, kills in _KILLS.items():
        folder = put(machine, dataset, scenario, f"000{workers}", decode_workers=workers, **settings)
        for moment in sorted(moments.sample(range(1, steps - 1), kills)):
            attempt = begin(folder)
            kill(attempt, folder, moment)
        attempt = begin(folder)
        attempt.join()
        assert attempt.exitcode == 0
        assert model(folder) == model(whole), f"{workers} workers"


def test_told_to_stop_it_writes_a_checkpoint_within_seconds(
    machine: MachineHome, dataset: fixtures.Dataset
) -> None:
    settings = SCENARIOS["from-scratch"] | {"epochs": 500, "patience": 500}
    folder = put(machine, dataset, "from-scratch", "tttt", decode_workers=2, **settings)
    attempt = begin(folder, checkpoint_least_s=3600)
    wait_for(lambda: folder.events.exists() and b'"progress"' in folder.events.read_bytes(), attempt)
    assert newest(folder) == 0
    asked = time.monotonic()
    os.kill(attempt.pid or 0, signal.SIGTERM)
    attempt.join()
    assert attempt.exitcode == 12
    assert time.monotonic() - asked < 15
    assert newest(folder) == 1
    events = [json.loads(line) for line in folder.events.read_bytes().splitlines()]
    assert "the run can go on" in events[-1]["text"]


def put(
    machine: MachineHome,
    dataset: fixtures.Dataset,
    scenario: str,
    tail: str,
    *,
    model: str,
    **parameters: Any,
) -> RunFolder:
    return fixtures.put_run(
        machine, dataset, scenario=scenario, model=model, tail=tail, image_size=32, batch_size=8, **parameters
    )


def begin(folder: RunFolder, checkpoint_least_s: float = 0.0) -> ForkServerProcess:
    process = _FORKS.Process(target=train, args=(folder.spec, checkpoint_least_s), daemon=True)
    process.start()
    return process


def train(spec: Path, checkpoint_least_s: float) -> None:
    """In the process: a checkpoint before every step, or none but those that must be."""
    torch.set_num_threads(
        1
    )  # the tests share their processors; two threads that wait for each other take longer
    raise SystemExit(main(spec, checkpoint_least_s=checkpoint_least_s, checkpoint_times_cost=0.0))


def kill(process: ForkServerProcess, folder: RunFolder, checkpoint: int) -> None:
    """As soon as the checkpoint of this number, or a later one, is there; training goes on meanwhile."""
    wait_for(lambda: newest(folder) >= checkpoint, process)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL, "it was faster than its killer"


def newest(folder: RunFolder) -> int:
    """The number of the newest checkpoint."""
    return max((int(path.stem[-8:]) for path in folder.checkpoints.glob("checkpoint-*.pt")), default=0)


def model(folder: RunFolder) -> str:
    return hashlib.sha256((folder.result / "model" / "model.safetensors").read_bytes()).hexdigest()


def wait_for(happened: Callable[[], bool], process: ForkServerProcess) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert process.is_alive(), f"it ended with {process.exitcode}"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def draw(folder: Path) -> Path:
    """Three classes of noisy colours, 17 images of each to train on."""
    generator = np.random.default_rng(1)
    for split, count in (("train", 17), ("val", 4)):
        for index, name in enumerate(("blue", "green", "red")):
            path = folder / split / name
            path.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 200, (40, 40, 3))
                pixels[:, :, index] += 55
                Image.fromarray(pixels.astype(np.uint8)).save(path / f"{number}.png")
    return folder
