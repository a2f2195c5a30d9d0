"""Kill anywhere: `up`, `run` and `down` are killed at each request that they send, and nothing is forgotten or lost.

The fake falls silent at request k, before or after it has done what was asked, the client gets SIGKILL, and fresh
processes see to the rest. There is never more than one machine, never one without an end of life, never one that
`status` does not show; after `down`, or the end of its time, there is none; and each result is in the bucket.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.e2e.command import Answer, Tlvm
from tests.e2e.gce_world import BUCKET, SETTINGS
from tests.fakes.compute_server import ComputeServer
from tests.faults.fork_server import Forked, Job
from tests.faults.ready_machines import ReadyMachines
from tests.faults.standin import draw, furnished
from tests.faults.stopping_bucket import StoppingBucket
from tests.needs import need
from tests.remote.machine import eventually

Service = Literal["compute", "bucket"]
Then = Literal["up", "down", "time"]

_END_S = 4 * 3600 + 60.0
_COMING_S = 3  # the time of our own waits passes ten times as fast: without force, half a minute
_SOON_S = 200  # on a computer that is very busy
_RUN = ("run", "fixed-extractor", "--weights", "none")
_PARTS = 12  # of all points, so that `make soak` can end between them
_SAMPLE = {"up": 6, "up elsewhere": 3, "run": 3, "down": 2}
_SEED = 20261122


@dataclass(frozen=True)
class Point:
    scene: str
    service: Service
    number: int
    performed: bool
    then: Then

    def __str__(self) -> str:
        when = "after" if self.performed else "before"
        return f"{self.scene}, {when} request {self.number} to {self.service}, then {self.then}"


@dataclass
class Stage:
    """A user with a project folder, a cloud of its own, and the bucket that all points share."""

    forked: Forked
    cloud: ComputeServer
    machines: ReadyMachines
    bucket: StoppingBucket
    folder: Path
    variables: dict[str, str]
    runs: set[str] = field(default_factory=set)  # that a machine has taken

    def begin(self, *words: str) -> Job:
        return self.forked.begin(words, self.folder, self.variables)

    def __call__(self, *words: str, expect: int = 0) -> Answer:
        answer = self.begin(*words).answer()
        assert answer.exit_code == expect, (
            f"{' '.join(words)}: exit {answer.exit_code}\n{answer.stdout}\n{answer.stderr}"
        )
        return answer

    def instances(self) -> dict[str, dict[str, Any]]:
        self.cloud.cloud.settle()
        return {found["id"]: found for found in self.cloud.cloud.resources["instances"].values()}

    def look(self) -> None:
        """What holds at any time."""
        there = self.instances()
        for id in there:
            folder = self.machines.home(id) / ".tlvm" / "runs"
            self.runs |= {path.name for path in folder.glob("*-*")}
        assert len(there) <= 1
        inserts = [request.body for request in self.cloud.requests if request.call == "instances.insert"]
        for body in (*inserts, *there.values()):
            assert body["scheduling"]["instanceTerminationAction"] == "DELETE"
            assert 0 < int(body["scheduling"]["maxRunDuration"]["seconds"]) <= 4 * 3600
        shown = self("status", "--json").document["machines"]
        assert [line["machine"]["name"] for line in shown] == [found["name"] for found in there.values()]

    def in_bucket(self, run_id: str) -> bool:
        return bool(self.bucket.api.buckets.page(BUCKET, {"prefix": f"runs/{run_id}/MANIFEST.json"}).items)

    def down(self) -> None:
        """As a user ends it who is told that a run is at work: wait for it; and force where none ever came."""
        began = time.monotonic()
        while (answer := self.begin("down", "--yes").answer()).exit_code == 10:
            assert time.monotonic() < began + _SOON_S, answer.stderr
            self.look()
            if not self.runs and time.monotonic() > began + _COMING_S:
                self("down", "--yes", "--force")
                break
            time.sleep(0.2)
        else:
            assert answer.exit_code == 0, answer.stderr

    def finish_runs(self) -> None:
        eventually(lambda: all(self.in_bucket(run_id) for run_id in self.runs), within_s=_SOON_S)


@dataclass(frozen=True)
class Scene:
    words: tuple[str, ...]
    services: tuple[Service, ...]
    before: Callable[[Stage], object]


SCENES = {
    "up": Scene(("up",), ("compute",), lambda stage: None),
    "up elsewhere": Scene(("up",), ("compute",), lambda stage: stage.cloud.faults.add("stock-out")),
    "run": Scene(_RUN, ("compute", "bucket"), lambda stage: stage("up")),
    "down": Scene(("down", "--yes"), ("compute", "bucket"), lambda stage: (stage("up"), stage(*_RUN))),
}


class Theatre:
    """What all points share: the process that clients are forked from, the bucket with a dataset, the stand-in."""

    def __init__(self, folder: Path, forked: Forked, bucket: StoppingBucket) -> None:
        self.folder = folder
        self.forked = forked
        self.bucket = bucket
        self.variables = Tlvm(folder).environment() | {"TLVM_RUN_WEIGHTS": "none"}
        self._bundles = furnished(folder)
        self._requests: dict[tuple[str, Service], int] = {}
        bucket.create_bucket(BUCKET)
        draw(folder / "photos")
        with self.stage() as stage:
            stage("upload", str(folder / "photos"))

    @contextmanager
    def stage(self) -> Iterator[Stage]:
        machines = ReadyMachines(self.folder / "machines", self._furnish)
        project = self.folder / "project"
        project.mkdir()
        kept = self.bucket.api.buckets
        for run in kept.page(
            BUCKET, {"prefix": "runs/"}
        ).items:  # else each point has more to read than the last
            kept.delete(BUCKET, run.name, {})
        try:
            with ComputeServer(machines, wait_s=0.05) as cloud:
                text = SETTINGS.format(bucket=f"gs://{BUCKET}", storage=self.bucket.endpoint, cloud=cloud.url)
                (project / "tlvm.toml").write_text(text)
                yield Stage(self.forked, cloud, machines, self.bucket, project, self.variables)
                self.bucket.resume()
                assert cloud.errors == []
                assert self.bucket.errors == []
        finally:
            shutil.rmtree(project)

    def _furnish(self, home: Path) -> None:
        (home / ".tlvm" / "bundles").symlink_to(self._bundles)

    def requests(self, scene: str, service: Service) -> int:
        """How many it sends when nothing disturbs it; asked once."""
        if (scene, service) not in self._requests:
            with self.stage() as stage:
                SCENES[scene].before(stage)
                before = self._sent(stage, service)
                stage(*SCENES[scene].words)
                self._requests[scene, service] = self._sent(stage, service) - before
        return self._requests[scene, service]

    def _sent(self, stage: Stage, service: Service) -> int:
        return len(stage.cloud.requests) if service == "compute" else sum(self.bucket.requests.values())

    def tried(self, point: Point) -> bool:
        """False when the client ended before it had sent so many requests: then there was nothing to kill."""
        scene = SCENES[point.scene]
        with self.stage() as stage:
            scene.before(stage)
            stage.look()
            silent = stage.cloud if point.service == "compute" else self.bucket
            silent.stop_at(point.number, performed=point.performed)
            job = stage.begin(*scene.words)
            while not silent.frozen.is_set() and not job.ended(0.01):
                pass
            struck = silent.frozen.is_set()
            job.kill()
            silent.resume()
            try:
                _see_to_the_rest(stage, point.then)
            except AssertionError as error:
                raise AssertionError(f"killed in {point}: {error}") from error
            return struck


def _see_to_the_rest(stage: Stage, then: Then) -> None:
    stage.look()
    if then == "up":
        stage("up")
        assert len(stage.instances()) == 1
        stage.look()
    if then == "time":
        stage.finish_runs()
        stage.cloud.clock.advance(_END_S)
    else:
        stage.down()
    assert stage.instances() == {}
    stage.look()
    stage("gc", "--yes")
    assert stage.cloud.cloud.resources["disks"] == {}
    assert all(stage.in_bucket(run_id) for run_id in stage.runs)


@pytest.fixture(scope="module")
def theatre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    need("loopback machines")
    with Forked() as forked, StoppingBucket() as bucket:
        yield Theatre(tmp_path_factory.mktemp("kill"), forked, bucket)


@pytest.mark.parametrize("scene", SCENES)
def test_killed_at_some_of_its_requests(
    scene: str, theatre: Theatre, capsys: pytest.CaptureFixture[str]
) -> None:
    points = _points(theatre, scene)
    chosen = random.Random(f"{_SEED} {scene}").sample(points, min(_SAMPLE[scene], len(points)))
    _try_all(theatre, scene, chosen, len(points), capsys)


@pytest.mark.soak
@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("part", range(_PARTS))
def test_killed_at_each_of_its_requests(
    scene: str, part: int, theatre: Theatre, capsys: pytest.CaptureFixture[str]
) -> None:
    points = _points(theatre, scene)
    _try_all(theatre, scene, points[part::_PARTS], len(points), capsys)


def _points(theatre: Theatre, scene: str) -> list[Point]:
    """Before and after each request; what is done then takes turns."""
    found: list[Point] = []
    for service in SCENES[scene].services:
        for number in range(1, theatre.requests(scene, service) + 1):
            for performed in (False, True):
                then: Then = ("up", "down", "time")[(number + len(found)) % 3]
                found.append(Point(scene, service, number, performed, then))
    return found


def _try_all(
    theatre: Theatre, scene: str, points: list[Point], of: int, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = sum(theatre.tried(point) for point in points)
    with capsys.disabled():
        print(f"\nkill anywhere: {scene} killed at {tried} of {of} points")
    assert tried >= len(points) * 0.7  # a client may need a request less than the one that was counted
