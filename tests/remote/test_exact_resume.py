"""A run that is killed anywhere, in the middle of an epoch or of extraction too, and goes on ends with the same model.

Real training processes and SIGKILL. They are forked from a server that has torch loaded, to save its seconds.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from remote.contract.layout import MachineHome, RunFolder
from remote.job.outcome import NO_ROOM_EXIT
from remote.results import sample_page
from remote.train import main
from remote.training.checkpoint import digest
from tests.remote import fixtures
from tests.small_disk import small_disk

ROOT = Path(__file__).parents[2]
# Small enough for a step to take a fraction of a second; normalisation, dropout, averaging and mixing all take part.
SCENARIOS: dict[str, dict[str, Any]] = {
    "fixed-extractor": {"model": "mobilenet_v3_small", "views": 2},
    "initial-layers": {"model": "squeezenet1_1", "batch_size": 4},
    "fine-tune-top": {"model": "squeezenet1_1", "epochs": 2, "learning_rate": 1e-3},
    "fine-tune-all": {"model": "squeezenet1_1", "epochs": 2, "learning_rate": 1e-3, "ema_epochs": 0.5},
    "from-scratch": {"model": "shufflenet_v2_x0_5", "epochs": 2, "mixup": 0.2, "augmentation": "strong"},
}
FROZEN = ("fixed-extractor", "initial-layers")
TRAIN, VAL, BATCH = 36, 9, 8

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [*(f"remote.scenarios.{name.replace('-', '_')}" for name in SCENARIOS), __name__]
)


@dataclass(frozen=True)
class Machine:
    """With a home of its own, so that nothing is found there which another run has computed."""

    home: MachineHome
    dataset: fixtures.Dataset

    def put(self, scenario: str, *, model: str, **parameters: Any) -> RunFolder:
        return fixtures.put_run(
            self.home,
            self.dataset,
            scenario=scenario,
            model=model,
            image_size=32,
            **{"batch_size": BATCH, **parameters},
        )

    @property
    def rows(self) -> int:
        """Images, or views of one, whose features are on the disk."""
        return sum(len(_about(path)["images"]) for path in features(self.home))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("images"))


@dataclass(frozen=True)
class Whole:
    """What a run that is never killed, with 0 workers, comes to."""

    model: str
    trained: str
    moments: int
    checkpoints: int
    rows: int


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Whole]:
    @functools.cache
    def of(scenario: str) -> Whole:
        home = fixtures.home(tmp_path_factory.mktemp("whole") / "home")
        machine = Machine(home, fixtures.pack_folder(home, images))
        folder = machine.put(scenario, decode_workers=0, **SCENARIOS[scenario])
        finish(folder)
        return Whole(model(folder), trained(folder), moment(folder), newest(folder), machine.rows)

    return of


@pytest.fixture
def machines(tmp_path: Path, images: Path) -> Iterator[Machine]:
    """One machine after another."""

    def another(number: int) -> Machine:
        home = fixtures.home(tmp_path / str(number))
        return Machine(home, fixtures.pack_folder(home, images))

    return map(another, itertools.count())


@pytest.mark.parametrize(
    ("scenario", "attempts"),
    [
        ("fixed-extractor", [(2, 2)]),
        ("initial-layers", [(4, 2)]),
        ("fine-tune-top", [(0, 1), (2, 1), (4, 1)]),
        ("fine-tune-all", [(0, 1), (2, 1), (4, 1)]),
        ("from-scratch", [(0, 1), (2, 1), (4, 1)]),
    ],
)
def test_killed_anywhere_and_gone_on_ends_with_the_same_bits(
    machines: Iterator[Machine],
    whole: Callable[[str], Whole],
    scenario: str,
    attempts: list[tuple[int, int]],
) -> None:
    killed_and_gone_on(machines, scenario, whole(scenario), attempts, random.Random(20260807))


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_at_many_moments(
    machines: Iterator[Machine], whole: Callable[[str], Whole], scenario: str, seed: int
) -> None:
    attempts = [(workers, kills) for workers in (0, 2, 4) for kills in (1, 4)]
    killed_and_gone_on(machines, scenario, whole(scenario), attempts, random.Random(seed))


def killed_and_gone_on(
    machines: Iterator[Machine],
    scenario: str,
    whole: Whole,
    attempts: list[tuple[int, int]],
    chance: random.Random,
) -> None:
    """A run that is never killed against others that are.

    attempts    of each, the threads that load images, and how often it is killed
    """
    assert whole.moments > 5
    for workers, kills in attempts:
        machine = next(machines)
        folder, kept = machine.put(scenario, decode_workers=workers, **SCENARIOS[scenario]), 0
        for at in sorted(chance.sample(range(1, whole.moments - 1), kills)):
            attempt = begin(folder, at=at, then=functools.partial(die, chance.uniform(0.0, 0.05)))
            attempt.join()
            assert attempt.exitcode == -signal.SIGKILL
            kept = machine.rows
        finish(folder)
        assert model(folder) == whole.model, f"{workers} workers"
        assert trained(folder) == whole.trained, f"{workers} workers"
        if scenario in FROZEN:
            counters = json.loads((folder.result / "metrics.json").read_text())["counters"]
            assert counters["forwarded"] == whole.rows - kept, "features were computed twice"
            samples = counters["decoded"] - counters["forwarded"]  # whose features were there already
            assert 0 <= samples <= min(kept, sample_page.IMAGES_MAX), "images were decoded twice"
        else:  # a checkpoint before every step; one that goes on writes the one again that it went on from
            assert newest(folder) <= whole.checkpoints + kills, "steps were done twice"


def test_a_full_disk_costs_no_more_than_what_came_after_the_last_whole_checkpoint(
    machines: Iterator[Machine], whole: Callable[[str], Whole]
) -> None:
    """The system takes no more than 3 MB of a file from a moment on: each checkpoint ends in its middle."""
    expected = whole("from-scratch")
    folder = next(machines).put("from-scratch", decode_workers=2, **SCENARIOS["from-scratch"])
    attempt = begin(folder, at=4, then=fill)
    wait_for(
        lambda: folder.events.exists() and b"No checkpoint could be written" in folder.events.read_bytes(),
        attempt,
    )
    attempt.kill()
    attempt.join()
    assert 3 <= newest(folder) < expected.checkpoints - 1
    finish(folder)  # there is room again
    assert model(folder) == expected.model
    assert newest(folder) <= expected.checkpoints + 1, "it did not go on from the last whole one"


@pytest.mark.needs("mount namespaces")
def test_a_disk_that_is_full_at_the_end_costs_no_training(
    machines: Iterator[Machine], whole: Callable[[str], Whole]
) -> None:
    """The result finds no room; with room, the last checkpoint becomes the same one."""
    folder = next(machines).put("from-scratch", decode_workers=2, **SCENARIOS["from-scratch"])
    folder.result.mkdir()
    command = [*small_disk(folder.result, "64k"), sys.executable, "-m", "remote", "train", str(folder.spec)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=280)
    assert done.returncode == NO_ROOM_EXIT
    assert b"The disk of the machine takes no more" in folder.events.read_bytes()
    epochs = folder.events.read_bytes().count(b'"type": "epoch"')
    assert newest(folder) == 1 and epochs
    finish(folder)
    assert model(folder) == whole("from-scratch").model
    assert folder.events.read_bytes().count(b'"type": "epoch"') == epochs, "it was trained again"


def test_told_to_stop_it_writes_a_checkpoint_within_seconds(machines: Iterator[Machine]) -> None:
    settings = SCENARIOS["from-scratch"] | {"epochs": 500, "patience": 500}
    folder = next(machines).put("from-scratch", decode_workers=2, **settings)
    attempt = begin(folder, checkpoint_least_s=3600)
    wait_for(lambda: folder.events.exists() and b'"progress"' in folder.events.read_bytes(), attempt)
    assert newest(folder) == 0
    asked = time.monotonic()
    os.kill(attempt.pid or 0, signal.SIGTERM)
    attempt.join()
    assert attempt.exitcode == 12
    assert time.monotonic() - asked < 60  # the computer may be busy
    assert newest(folder) == 1
    events = [json.loads(line) for line in folder.events.read_bytes().splitlines()]
    assert events[-1]["text"].endswith(", as it was told to"), "whether the run goes on is not its to say"


def begin(
    folder: RunFolder,
    checkpoint_least_s: float = 0.0,
    *,
    at: int = 0,
    then: Callable[[], None] | None = None,
) -> ForkServerProcess:
    """then    what it does at this moment; it then trains on, and waits for its end before it writes a result"""
    process = _FORKS.Process(target=train, args=(folder, checkpoint_least_s, at, then), daemon=True)
    process.start()
    return process


def train(folder: RunFolder, checkpoint_least_s: float, at: int, then: Callable[[], None] | None) -> None:
    """In the process: a checkpoint before every step, or none but those that must be."""
    # The tests share their processors; two threads that wait for each other take longer.
    torch.set_num_threads(1)
    if then:
        sys.addaudithook(Strike(folder, at, then))
    spec = folder.spec
    raise SystemExit(main(spec, checkpoint_least_s=checkpoint_least_s, checkpoint_times_cost=0.0))


@dataclass
class Strike:
    """Sees each file that the process renames or writes, before it does."""

    folder: RunFolder
    at: int
    then: Callable[[], None]
    came: bool = False

    def __call__(self, event: str, about: tuple[Any, ...]) -> None:
        if event not in ("os.rename", "os.mkdir", "open"):
            return
        ends = str(about[0]).startswith(f"{self.folder.result}/model")
        if not self.came and (ends or (event == "os.rename" and moment(self.folder) + 1 >= self.at)):
            self.came = True
            self.then()
        if ends:
            time.sleep(600)


def die(later_s: float) -> None:
    """It goes on meanwhile."""

    def end() -> None:
        time.sleep(later_s)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=end, daemon=True).start()


def fill() -> None:
    """From now on the system takes no more than 3 MB of a file."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, resource.RLIM_INFINITY))


def finish(folder: RunFolder) -> None:
    attempt = begin(folder)
    attempt.join()
    assert attempt.exitcode == 0, folder.events.read_text()


def moment(folder: RunFolder) -> int:
    """How far the run has got on the disk: batches of features, then checkpoints."""
    return len(features(MachineHome(folder.root.parents[1]))) + newest(folder)


def features(home: MachineHome) -> list[Path]:
    """Files with the features of a batch each."""
    return list(home.cache.glob("features/*/[0-9a-f]*.safetensors"))


def newest(folder: RunFolder) -> int:
    """The number of the newest checkpoint."""
    return max((int(path.stem[-8:]) for path in folder.checkpoints.glob("checkpoint-*.pt")), default=0)


def model(folder: RunFolder) -> str:
    return hashlib.sha256((folder.result / "model" / "model.safetensors").read_bytes()).hexdigest()


def trained(folder: RunFolder) -> str:
    """What training came to, of which an earlier epoch may have become the model: a digest of the last checkpoint."""
    files = sorted(folder.checkpoints.glob("checkpoint-*.pt"))
    if not files:
        return ""
    state = torch.load(files[-1], weights_only=True)["state"]
    found = state.get("training", state)
    losses = [[epoch["train_loss"], epoch["held_out_loss"]] for epoch in found["position"]["history"]]
    return digest([found["module"], found["optimiser"], found["average"], found["best"], losses])


def wait_for(happened: Callable[[], bool], process: ForkServerProcess) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert process.is_alive(), f"it ended with {process.exitcode}"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _about(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="np") as file:
        about: dict[str, Any] = json.loads(file.metadata()["about"])
    return about


def draw(folder: Path) -> Path:
    """Three classes of noisy colours; the first and the last image of each are equal."""
    generator = np.random.default_rng(1)
    for split, count in (("train", TRAIN // 3), ("val", VAL // 3)):
        for index, name in enumerate(("blue", "green", "red")):
            path = folder / split / name
            path.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 200, (40, 40, 3))
                pixels[:, :, index] += 55
                Image.fromarray(pixels.astype(np.uint8)).save(path / f"{number}.png")
            shutil.copyfile(path / "0.png", path / f"{count - 1}.png")
    return folder
