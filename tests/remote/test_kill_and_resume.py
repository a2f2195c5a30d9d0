"""Real trainings below real supervisors: killed alone, killed with their supervisor, started again, the same model."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from remote.contract import document, layout
from remote.contract.layout import MachineHome, RunFolder
from remote.contract.run_spec import RunSpec, StoreRef
from remote.contract.run_status import ResultManifest
from remote.contract.start_request import StartRequest
from remote.job import line
from remote.job.follow import read_status
from remote.train import main
from tests.remote import fixtures
from tests.remote.machine import ROOT, eventually
from tests.remote.test_exact_resume import draw, model, trained

SETTINGS: dict[str, Any] = {
    "scenario": "fine-tune-all",
    "model": "squeezenet1_1",
    "epochs": 9,
    "patience": 9,
    "image_size": 32,
    "batch_size": 8,
}


@dataclasses.dataclass(frozen=True)
class Machine:
    """One on which `python -m remote` runs, and the store with what the run needs."""

    home: MachineHome
    store: Path
    environment: dict[str, str]

    def run(self, dataset: fixtures.Dataset, source: MachineHome, tail: str) -> RunSpec:
        """A run whose spec, dataset and pack are in the store only."""
        folder = fixtures.put_run(source, dataset, tail=tail, **SETTINGS)
        spec = document.decode(RunSpec, folder.spec.read_bytes(), what="spec")
        return dataclasses.replace(spec, store=StoreRef(str(self.store)))

    def start(self, spec: RunSpec, *, attempt: int | None = None) -> int:
        """With the command that the laptop sends; the supervisor's process id."""
        done = subprocess.run(
            [sys.executable, "-m", "remote", "start", "-"],
            env=self.environment,
            input=document.encode(StartRequest(spec, attempt)).encode(),
            capture_output=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return int(json.loads(done.stdout)["pid"])

    def is_over(self, spec: RunSpec) -> Callable[[], bool]:
        return lambda: not line.is_held(line.run_lock(self.home.locks, spec.run_id))


@dataclasses.dataclass(frozen=True)
class Known:
    """A dataset, and a run on it that nothing happened to."""

    source: MachineHome
    dataset: fixtures.Dataset
    whole: RunFolder


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    folder = tmp_path_factory.mktemp("known")
    source = fixtures.home(folder / "source")
    dataset = fixtures.pack_folder(source, draw(folder / "images"))
    torch.set_num_threads(1)  # as OMP_NUM_THREADS says below the supervisors
    whole = fixtures.put_run(source, dataset, tail="0000", **SETTINGS)
    assert main(whole.spec) == 0
    return Known(source, dataset, whole)


@pytest.fixture
def machine(tmp_path: Path, known: Known) -> Machine:
    (tmp_path / "store").mkdir()
    put_into_the_store(tmp_path / "store", known.source, known.dataset)
    return another(tmp_path, "home")


def another(folder: Path, name: str) -> Machine:
    (folder / name).mkdir()
    environment = {
        **os.environ,
        "HOME": str(folder / name),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    return Machine(MachineHome(folder / name / ".tlvm"), folder / "store", environment)


def test_taken_away_it_ends_with_the_same_model_on_another_machine(
    machine: Machine, known: Known, tmp_path: Path
) -> None:
    spec = machine.run(known.dataset, known.source, "k222")
    first = machine.start(spec)
    eventually(lambda: epochs(events(machine.home.run(spec.run_id))) >= 3, within_s=120)
    os.kill(first, signal.SIGTERM)
    eventually(machine.is_over(spec), within_s=60)
    shutil.rmtree(machine.home.root)
    second = another(tmp_path, "second")
    second.start(spec, attempt=2)
    eventually(second.is_over(spec), within_s=120)
    folder = second.home.run(spec.run_id)
    status = read_status(folder)
    assert status is not None and (status.state, status.published, status.attempt) == ("SUCCEEDED", True, 2)
    assert model_in_the_store(second, spec) == model(known.whole)
    assert trained(folder) == trained(known.whole)
    seen = [event["epoch"] for event in events(folder) if event["type"] == "epoch"]
    assert seen == sorted(set(seen)) and len(seen) == epochs(events(known.whole))  # none twice, none missing
    written = [event for event in events(folder) if event["type"] == "checkpoint"]
    assert written and all(event["bytes"] > 1000 and event["seconds"] > 0 for event in written)
    work = [
        event for event in since(events(folder), "Taken up from the store") if event["type"] == "progress"
    ]
    assert "extract" not in {event["step"] for event in work}


def test_killed_alone_and_with_its_supervisor_it_ends_with_the_same_model(
    machine: Machine, known: Known
) -> None:
    source, dataset, whole = known.source, known.dataset, known.whole
    spec = machine.run(dataset, source, "k111")
    folder = machine.home.run(spec.run_id)
    first = machine.start(spec)
    eventually(lambda: epochs(events(folder)) >= 1, within_s=120)
    (training,) = children(first)
    os.kill(training, signal.SIGKILL)  # the supervisor begins another
    eventually(lambda: "it goes on from what it has kept" in folder.events.read_text())
    eventually(lambda: epochs(since(events(folder), "it goes on")) >= 1, within_s=120)
    (training,) = children(first)
    for process in (first, training):
        os.kill(process, signal.SIGKILL)
    eventually(machine.is_over(spec))
    assert not (folder.result / "model").exists()

    machine.start(spec)
    eventually(machine.is_over(spec), within_s=120)
    status = read_status(folder)
    assert status is not None
    assert (status.state, status.published, status.attempt) == ("SUCCEEDED", True, 2)
    assert model_in_the_store(machine, spec) == model(whole)
    work = [event for event in since(events(folder), "it goes on") if event["type"] == "progress"]
    assert {event["step"] for event in work} >= {"train"}
    assert "extract" not in {event["step"] for event in work}  # the classifier was in the checkpoint


def put_into_the_store(store: Path, source: MachineHome, dataset: fixtures.Dataset) -> None:
    manifest = store / layout.manifest_key(dataset.manifest.dataset, dataset.version)
    manifest.parent.mkdir(parents=True)
    manifest.write_bytes(dataset.data)
    for digest in {image.pack for image in dataset.manifest.images}:
        pack = store / layout.pack_key(digest)
        pack.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.pack(digest), pack)


def events(folder: RunFolder) -> list[dict[str, Any]]:
    lines = folder.events.read_bytes().splitlines() if folder.events.exists() else []
    return [json.loads(line) for line in lines if line.endswith(b"}")]


def since(found: list[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    """The events after the first one that says this."""
    begin = next(number for number, event in enumerate(found) if text in str(event.get("text", "")))
    return found[begin:]


def epochs(found: list[dict[str, Any]]) -> int:
    return sum(event["type"] == "epoch" for event in found)


def children(process: int) -> list[int]:
    done = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True)
    return [int(found) for found in done.stdout.split()]


def model_in_the_store(machine: Machine, spec: RunSpec) -> str:
    """Its hash, by the bytes and by the manifest of the result."""
    folder = machine.store / layout.run_key(spec.run_id, "model")
    found = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    manifest = machine.store / layout.run_key(spec.run_id, "MANIFEST.json")
    named = document.decode(ResultManifest, manifest.read_bytes(), what="manifest").files
    assert [file.sha256 for file in named if file.path == "model/model.safetensors"] == [found]
    return found
