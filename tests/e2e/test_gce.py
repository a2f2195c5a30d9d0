"""The main job on Google Cloud, as a user types it: Google's client library, a machine that boots, real SSH, real training.

The machine is a container; where there is no Docker, processes of this computer that are reached on loopback.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.progress import Silent
from tests import docker_engine
from tests.e2e.command import Tlvm
from tests.e2e.gce_world import MACHINE, World, world
from tests.e2e.test_wheel import few_photos
from tests.fakes import compute_loopback
from tests.fakes.compute_container import LABEL, ContainerHardware
from tests.needs import missing, need
from tests.processes import living_with
from tests.shared_data import shared

_RUN = ("run", "fixed-extractor", "--model", "squeezenet1_1", "--json", "--weights")
_WEIGHTS = "weights/squeezenet1_1-onnxzoo-fp32.pth"


@dataclass(frozen=True)
class Job:
    """What was seen on the way."""

    on: str  # "container", "loopback"
    world: World
    id: str  # of the instance
    up: dict[str, Any]
    insert: dict[str, Any]
    run: dict[str, Any]
    status: dict[str, Any]
    predictions: dict[str, float]
    down: dict[str, Any]
    status_after: dict[str, Any]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gce")
    few_photos(folder / "photos")
    return folder


@pytest.fixture(scope="module")
def job(home: Path) -> Iterator[Job]:
    if not missing("docker"):
        machines = ContainerHardware(progress=Silent())
        with world(home, machines, address=machines.gateway) as there:
            yield _main_job(there, home, "container")
    else:
        need("loopback machines")
        with world(home, compute_loopback.LoopbackHardware(home / "machines")) as there:
            yield _main_job(there, home, "loopback")


def _main_job(there: World, home: Path, on: str) -> Job:
    tlvm = there.tlvm
    up = tlvm("up", "--json").document
    tlvm("upload", home / "photos")
    run = tlvm(*_RUN, shared(_WEIGHTS)).document
    predicted = tlvm("predict", run["run_id"], home / "photos" / "val").stdout
    (instance,) = there.instances()
    return Job(
        on=on,
        world=there,
        id=instance["id"],
        up=up,
        insert=there.inserts()[-1],
        run=run,
        status=tlvm("status", "--json").document,
        predictions={
            Path(row["path"]).name: float(row["p_bees"]) for row in csv.DictReader(predicted.splitlines())
        },
        down=tlvm("down", "--yes", "--json").document,
        status_after=tlvm("status", "--json").document,
    )


def test_the_machine_was_made_by_one_request_that_ends_it(job: Job) -> None:
    assert job.up["made"] and len(job.world.inserts()) == 1
    scheduling = job.insert["scheduling"]
    assert scheduling["instanceTerminationAction"] == "DELETE"
    assert scheduling["maxRunDuration"] == {"seconds": "14400"}
    (shown,) = job.status["machines"]
    assert (shown["machine"]["name"], shown["mine"]) == (MACHINE, True)
    assert [run["run_id"] for run in shown["runs"]] == [job.run["run_id"]]


def test_the_machine_is_gone_after_down(job: Job) -> None:
    assert (job.down["deleted"], job.down["runs"]) == (True, [job.run["run_id"]])
    assert job.world.left_over() == []
    assert not job.world.cloud.machines.is_on(job.id)
    assert living_with(job.id) == []
    assert job.status_after["machines"] == []
    if job.on == "container":
        with docker_engine.engine() as client:
            assert client.containers.list(all=True, filters={"label": f"{LABEL}={job.id}"}) == []


def test_the_result_is_that_of_this_computer(job: Job, tmp_path: Path) -> None:
    """Of the same photos and weights; in a container another torch decodes and multiplies a little differently."""
    local = Tlvm(tmp_path)
    try:
        run = local(*_RUN, shared(_WEIGHTS), "--data", job.world.tlvm.home / "photos").document
    finally:
        local("down", "--force", "--yes")
    here, there = _probabilities(run), _probabilities(job.run)
    assert here.keys() == there.keys() and len(here) == 12
    largest = max(abs(here[name] - there[name]) for name in here)
    print(f"on a {job.on}: {len(here)} images, largest difference of a probability {largest:.2g}")
    assert largest <= (0.05 if job.on == "container" else 1e-6)
    assert np.mean([(here[name] > 0.5) == (there[name] > 0.5) for name in here]) >= 11 / 12
    metrics = json.loads((Path(run["folder"]) / "metrics.json").read_text())
    assert metrics["counters"] == job.run["metrics"]["counters"]


def test_predict_gives_what_the_run_said(job: Job) -> None:
    told = _probabilities(job.run)
    assert job.predictions.keys() == told.keys()
    assert max(abs(job.predictions[name] - told[name]) for name in told) <= 0.05


def _probabilities(run: dict[str, Any]) -> dict[str, float]:
    rows = csv.DictReader((Path(run["folder"]) / "predictions.csv").open())
    return {Path(row["path"]).name: float(row["p_bees"]) for row in rows if row["split"] == "val"}
