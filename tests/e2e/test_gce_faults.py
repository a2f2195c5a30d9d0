"""What goes wrong on Google Cloud, as a user meets it: exit code, what failed, with which thing, and what to do next.

Through the command line and Google's client library. Machines that boot are reached by real SSH; our own waits pass fast.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.command import Answer
from tests.e2e.gce_world import BUCKET, MACHINE, World, world
from tests.faults.fork_server import Forked, Job
from tests.faults.ready_machines import ReadyMachines
from tests.faults.standin import draw, furnished
from tests.needs import need
from tests.remote.machine import eventually

_RUN = ("run", "fixed-extractor", "--weights", "none", "--json")
_AT_WORK = {"TLVM_RUN_SEED": "60"}  # the stand-in trains for a minute


@dataclass(frozen=True)
class User:
    """Somebody at a terminal, in the project folder of a world."""

    there: World
    forked: Forked
    more: dict[str, str] = field(default_factory=dict)

    def begin(self, *words: str | Path, **more: str) -> Job:
        return self.forked.begin(
            words, self.there.tlvm.folder, self.there.tlvm.environment() | self.more | more
        )

    def __call__(self, *words: str | Path, expect: int = 0, **more: str) -> Answer:
        answer = self.begin(*words, **more).answer()
        assert answer.exit_code == expect, (
            f"{' '.join(map(str, words))}: exit {answer.exit_code}\n{answer.stdout}\n{answer.stderr}"
        )
        return answer

    def refused(self, *words: str, exit_code: int) -> dict[str, str]:
        """The error of a command, whose three parts are there, on the screen and as JSON."""
        answer = self(*words, "--json", expect=exit_code)
        error = answer.document["error"]
        assert isinstance(error, dict)
        assert error["exit_code"] == exit_code
        assert error["what"] in answer.stderr and error["next"] in answer.stderr
        assert error["what"] and error["next"]
        return error


@pytest.fixture(scope="module")
def forked() -> Iterator[Forked]:
    with Forked(rate=50) as server:
        yield server


@pytest.fixture(scope="module")
def hurried() -> Iterator[Forked]:
    """Half an hour of waiting passes in a second."""
    with Forked(rate=2000) as server:
        yield server


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return furnished(tmp_path_factory.mktemp("furnished"))


@pytest.fixture
def user(tmp_path: Path, forked: Forked) -> Iterator[User]:
    """Whose machines are never reached."""
    with world(tmp_path) as there:
        yield User(there, forked)


@pytest.fixture
def ready(tmp_path: Path, forked: Forked, bundles: Path) -> Iterator[User]:
    """Whose machines are ready when they are on, and train in no time; spot ones."""
    need("loopback machines")
    machines = ReadyMachines(tmp_path / "machines", lambda home: (home / ".tlvm/bundles").symlink_to(bundles))
    with world(tmp_path, machines, variables={"TLVM_MACHINE_SPOT": "true"}) as there:
        yield User(there, forked)


# No machine


def test_no_capacity_in_the_first_zone_and_a_machine_in_the_second(ready: User) -> None:
    ready.there.cloud.faults.add("stock-out")
    answer = ready("up", "--json")
    assert (
        "us-central1-a: no capacity (ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS); nothing created"
        in answer.stderr
    )
    assert "us-central1-b: accepted" in answer.stderr
    assert answer.document["machine"]["place"] == "us-central1-b"
    assert [bool(attempt["refused"]) for attempt in answer.document["attempts"]] == [True, False]
    kept = (ready.there.tlvm.folder / ".tlvm" / "attempts.jsonl").read_text().splitlines()
    assert [json.loads(line)["place"] for line in kept] == ["us-central1-a", "us-central1-b"]
    assert len(ready.there.instances()) == 1
    ready("down", "--yes")
    assert ready.there.left_over() == []


def test_no_capacity_anywhere(user: User) -> None:
    user.there.cloud.cloud.frozen_zones |= {"us-central1-a", "us-central1-b"}
    error = user.refused("up", exit_code=6)
    assert MACHINE in error["what"]
    assert "us-central1-a" in error["detail"] and "us-central1-b" in error["detail"]
    assert "--wait" in error["next"]
    assert user.there.left_over() == []


@pytest.mark.parametrize(
    ("fault", "exit_code", "what", "next"),
    [
        ("global quota", 6, "GPUS_ALL_REGIONS", "tlvm quota"),
        ("403 permission", 5, MACHINE, "compute.instances.create"),
        ("403 disabled", 5, "not enabled", "gcloud services enable compute.googleapis.com"),
        ("401", 5, "who you are", "gcloud auth application-default login"),
    ],
)
def test_what_stops_at_once(user: User, fault: str, exit_code: int, what: str, next: str) -> None:
    user.there.cloud.faults.add(fault)
    error = user.refused("up", exit_code=exit_code)
    assert what.lower() in error["what"].lower()
    assert next in error["next"]
    assert len(user.there.inserts()) == 1 and user.there.left_over() == []
    assert user("status", "--json").document["machines"] == []


def test_a_503_after_the_insert_was_accepted_is_one_machine(ready: User) -> None:
    ready.there.cloud.faults.add("503 after")
    ready.there.cloud.faults.add("reset after")
    answer = ready("up", "--json")
    assert answer.document["made"]
    asked = [request for request in ready.there.cloud.requests if request.call == "instances.insert"]
    assert len(asked) >= 2 and len({request.query["requestId"][0] for request in asked}) == 1
    assert len(ready.there.instances()) == 1
    ready("down", "--yes")


# A machine that nobody may enter


def test_another_host_key_than_the_pinned_one_is_refused(ready: User) -> None:
    ready.there.cloud.instances.host_keys.wrong = True
    error = ready.refused("up", exit_code=5)
    assert "host key" in (error["what"] + error["detail"]).lower()
    assert len(ready.there.instances()) == 1
    ready("down", "--yes")
    assert ready.there.left_over() == []


def test_host_keys_that_never_come(user: User, hurried: Forked) -> None:
    user = User(user.there, hurried)
    user.there.cloud.instances.host_keys.after_s = None
    error = user.refused("up", exit_code=8)
    assert MACHINE in error["what"] and "host keys" in error["detail"]
    assert "tlvm down" in error["next"]
    user("down", "--yes")
    assert user.there.left_over() == []


def test_another_computer_of_the_owner_is_let_in(ready: User) -> None:
    ready("up")
    shutil.rmtree(ready.there.tlvm.folder / ".tlvm")
    assert "no key" in ready("ssh", "--", "true", expect=5).stderr
    assert ready("authorize", "--json").document["this_computer"]
    assert ready("ssh", "--", "echo in").stdout == "in\n"
    assert ready("status", "--refresh", "--json").document["refreshed"]["machines"] == []
    shutil.rmtree(ready.there.tlvm.folder / ".tlvm")
    assert ready("status", "--refresh", "--json").document["refreshed"]["machines"] == [MACHINE]
    assert ready("ssh", "--", "echo in").stdout == "in\n"
    ready("down", "--yes")


# A spot machine that is taken away


def test_taken_away_while_it_boots(user: User) -> None:
    user.there.cloud.instances.host_keys.after_s = None
    job = user.begin("up", "--json", TLVM_MACHINE_SPOT="true")
    job.until(lambda: user.there.cloud.count("instances.getGuestAttributes") > 0)
    user.there.cloud.instances.preempt(MACHINE)
    answer = job.answer()
    assert answer.exit_code == 7, answer.stderr
    error = answer.document["error"]
    assert (
        MACHINE in error["what"] and "Google took it away" in error["detail"] and "tlvm up" in error["next"]
    )
    assert user.there.left_over() == []
    assert user("status", "--json").document["machines"] == []


def test_taken_away_while_images_are_uploaded(ready: User, tmp_path: Path) -> None:
    """The images do not need the machine: they arrive, and `status` says that it is gone."""
    draw(tmp_path / "photos")
    ready.there.bucket.latency_s = 0.2
    job = ready.begin("up", "--upload", str(tmp_path / "photos"), "--json")
    job.until(lambda: bool(ready.there.instances()) and ready.there.bucket.requests["objects.insert"] > 0)
    ready.there.cloud.instances.preempt(MACHINE)
    answer = job.answer()
    assert answer.exit_code in (0, 7), answer.stderr
    ready.there.bucket.latency_s = 0.0
    assert [item["name"] for item in ready("datasets", "--json").document["items"]] == ["photos"]
    assert ready("status", "--json").document["machines"] == []
    assert ready.there.left_over() == []


def _at_work(ready: User, tmp_path: Path, *more: str) -> Job:
    """A run that trains until it is told to end, on a machine in us-central1-a."""
    draw(tmp_path / "photos")
    ready("upload", tmp_path / "photos")
    ready("up")
    job = ready.begin(*_RUN, *more, **_AT_WORK)
    job.until(lambda: any(b'"RUNNING"' in content for content in _held(ready, "runs/", "status.json")))
    return job


def _let_it_end(ready: User) -> None:
    """The stand-in on the machine that is there trains no longer."""
    (instance,) = ready.there.instances()
    hardware = ready.there.cloud.machines
    assert isinstance(hardware, ReadyMachines)
    (hardware.home(instance["id"]) / ".tlvm" / "go").touch()


def test_taken_away_while_a_run_is_at_work(ready: User, tmp_path: Path) -> None:
    """What it had said until then is in the bucket."""
    job = _at_work(ready, tmp_path, "--no-recover")
    ready.there.cloud.instances.preempt(MACHINE)
    answer = job.answer()
    assert answer.exit_code == 8, answer.stderr
    error = answer.document["error"]
    assert f"The machine {MACHINE} is gone" in error["what"]
    assert "Google took it away" in error["detail"] and "tlvm attach --recover" in error["next"]
    status = ready("status", "--json").document
    (run,) = status["other_runs"]
    assert run["state"] == "LOST"
    assert run["doubt"] == "its machine is gone, Google took it away: a spot machine, preempted"
    assert status["machines"] == [] and ready.there.left_over() == []
    assert ready("logs", run["run_id"]).stdout.splitlines()[-1] == "line 299"
    ready.refused("attach", run["run_id"], exit_code=8)
    assert len(ready.there.inserts()) == 1


def test_a_run_goes_on_in_the_next_zone(ready: User, tmp_path: Path) -> None:
    job = _at_work(ready, tmp_path)
    (first,) = ready.there.instances()
    ready.there.cloud.instances.preempt(MACHINE)
    job.until(lambda: len(ready.there.inserts()) == 2 and len(ready.there.instances()) == 1)
    eventually(lambda: any(b'"attempt": 2' in held for held in _held(ready, "runs/", "status.json")))
    (second,) = ready.there.instances()
    assert second["zone"] != first["zone"]
    _let_it_end(ready)
    answer = job.answer()
    assert answer.exit_code == 0, answer.stderr
    result = answer.document
    assert [(one["number"], one["place"], one["spot"]) for one in result["attempts"]] == [
        (1, "us-central1-a", True),
        (2, "us-central1-b", True),
    ]
    assert result["cost"] == pytest.approx(sum(one["cost"] for one in result["attempts"]))
    assert "goes on with another machine, its attempt 2" in answer.stderr
    lives = json.loads((ready.there.tlvm.folder / ".tlvm/lives/gce" / f"{MACHINE}.json").read_text())["lives"]
    assert [bool(life["ended"]) for life in lives] == [True, False]
    used_s = int(second["scheduling"]["maxRunDuration"]["seconds"])
    assert used_s <= int(first["scheduling"]["maxRunDuration"]["seconds"])
    ready("down", "--yes")
    assert ready.there.left_over() == []


def test_no_place_has_another_machine(ready: User, hurried: Forked, tmp_path: Path) -> None:
    """It is asked for again for half an hour."""
    job = _at_work(User(ready.there, hurried), tmp_path)
    ready.there.cloud.cloud.frozen_zones |= {"us-central1-a", "us-central1-b"}
    ready.there.cloud.instances.preempt(MACHINE)
    answer = job.answer()
    assert answer.exit_code == 6, answer.stderr
    error = answer.document["error"]
    assert "us-central1-b" in error["detail"] and "tlvm attach --recover" in error["next"]
    assert "asked again in" in answer.stderr and ready.there.left_over() == []


def test_with_the_laptop_closed_attach_brings_it_back(ready: User, tmp_path: Path) -> None:
    job = _at_work(ready, tmp_path)
    job.kill()
    ready.there.cloud.instances.preempt(MACHINE)
    status = ready("status")
    assert "goes on with: tlvm attach" in status.stdout
    assert len(ready.there.inserts()) == 1, "status rents nothing"
    again = ready.begin("attach", "--json")
    again.until(lambda: len(ready.there.instances()) == 1)
    eventually(lambda: any(b'"attempt": 2' in held for held in _held(ready, "runs/", "status.json")))
    _let_it_end(ready)
    answer = again.answer()
    assert answer.exit_code == 0, answer.stderr
    assert len(answer.document["attempts"]) == 2
    ready("down", "--yes")


def test_what_is_lost_twice_at_the_same_place_is_not_paid_for_again(ready: User, tmp_path: Path) -> None:
    job = _at_work(ready, tmp_path)
    ready.there.cloud.instances.preempt(MACHINE)
    job.until(lambda: len(ready.there.inserts()) == 2 and len(ready.there.instances()) == 1)
    eventually(lambda: any(b'"attempt": 2' in held for held in _held(ready, "runs/", "status.json")))
    ready.there.cloud.instances.preempt(MACHINE)
    answer = job.answer()
    assert answer.exit_code == 8, answer.stderr
    error = answer.document["error"]
    assert "It was lost twice without having come any further" in error["detail"]
    assert "tlvm attach --recover" in error["next"]
    assert len(ready.there.inserts()) == 2 and ready.there.left_over() == []


def test_a_machine_that_somebody_ends_is_not_rented_again(ready: User, tmp_path: Path) -> None:
    job = _at_work(ready, tmp_path)
    down, there = ["down", "--force", "--yes"], ready.there.tlvm
    answer = ready.forked.begin(down, there.folder, there.environment(), out="other").answer()
    assert answer.exit_code == 0, answer.stderr
    answer = job.answer()
    assert answer.exit_code == 8, answer.stderr
    assert "Somebody ended its machine" in answer.document["error"]["detail"]
    assert len(ready.there.inserts()) == 1 and ready.there.left_over() == []


def _held(user: User, prefix: str, suffix: str) -> list[bytes]:
    """Contents in the bucket."""
    found = user.there.bucket.api.buckets.page(BUCKET, {"prefix": prefix}).items
    return [item.content for item in found if item.name.endswith(suffix)]
