"""`run --ephemeral` as one transaction, on Google's client library, real SSH and a machine of its own: what ends it, and when.

Training is a stand-in. There is never a machine without an end, and never a result lost.
"""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections.abc import Iterator

import pytest

from tests.e2e.gce_world import BUCKET
from tests.faults.fork_server import Forked
from tests.faults.stopping_bucket import StoppingBucket
from tests.faults.test_kill_anywhere import Service, Stage, Theatre
from tests.needs import need
from tests.remote.machine import eventually

_RUN = ("run", "fixed-extractor", "--weights", "none", "--ephemeral")
_AT_WORK = (*_RUN, "--seed", "60")  # the stand-in trains until it is told to end
_SEED = 20261122
_SAMPLE = 8


@pytest.fixture(scope="module")
def theatre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    need("loopback machines")
    with Forked() as forked, StoppingBucket() as bucket:
        yield Theatre(tmp_path_factory.mktemp("ephemeral"), forked, bucket)


@pytest.fixture
def stage(theatre: Theatre) -> Iterator[Stage]:
    with theatre.stage() as stage:
        unnamed(stage)
        yield stage


def unnamed(stage: Stage) -> None:
    """The settings fix no name: the machine is named by the run."""
    settings = stage.folder / "tlvm.toml"
    settings.write_text(settings.read_text().replace('name = "tlvm-ana-trees"\n', ""))


def owed(stage: Stage) -> list[str]:
    """The machines that this computer has still to see to."""
    return [path.stem for path in (stage.folder / ".tlvm" / "ephemeral").glob("*/*.json")]


def here(stage: Stage) -> dict[str, set[str]]:
    """The files of each result on this computer."""
    return {
        folder.name: {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        for folder in (stage.folder / "runs").glob("*")
    }


def works(stage: Stage) -> bool:
    """The stand-in has said all its lines, and waits."""
    return any("line 299" in log.read_text() for log in stage.machines.folder.glob("*/.tlvm/runs/*/log.txt"))


def let_it_end(stage: Stage) -> None:
    for home in stage.machines.folder.glob("*/.tlvm"):
        (home / "go").touch()


def finished(stage: Stage, run_id: str) -> None:
    """The store has its result, and its last word."""
    status = f"runs/{run_id}/status.json"
    eventually(lambda: stage.in_bucket(run_id) and b'"published": true' in content(stage, status))


def content(stage: Stage, key: str) -> bytes:
    return b"".join(item.content for item in stage.bucket.api.buckets.page(BUCKET, {"prefix": key}).items)


def the_run(stage: Stage) -> str:
    (path,) = stage.machines.folder.glob("*/.tlvm/runs/*-*")
    return path.name


def test_up_run_down_and_pull_are_one_command(stage: Stage) -> None:
    document = stage(*_RUN, "--json").document
    run_id = document["run_id"]
    assert document["state"] == "SUCCEEDED" and document["machine"] == f"tlvm-{run_id}"
    assert document["down"]["deleted"] and document["down"]["runs"] == [run_id]
    assert document["cost"] == document["down"]["cost"] > 0
    assert stage.instances() == {} and stage.in_bucket(run_id) and owed(stage) == []
    assert "model/model.safetensors" in here(stage)[run_id]


def test_a_run_that_fails_takes_its_machine_with_it_and_its_log_is_here(stage: Stage) -> None:
    error = stage(*_RUN, "--seed", "3", "--json", expect=9).document["error"]
    assert "Only one class: bees" in error["detail"]
    assert re.search(r"Its machine tlvm-fixed-extractor-\S+ is gone, confirmed twice", error["detail"])
    assert stage.instances() == {} and owed(stage) == []
    ((run_id, files),) = here(stage).items()
    assert files >= {"log.txt", "events.jsonl"} and stage.in_bucket(run_id)


def test_the_machine_goes_when_no_place_has_one_and_when_it_never_gets_ready(stage: Stage) -> None:
    stage.cloud.cloud.frozen_zones |= {"us-central1-a", "us-central1-b"}
    stage(*_RUN, expect=6)
    assert owed(stage) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_the_end_that_ci_sends_leave_the_run_and_say_what_ends_the_machine(
    stage: Stage, number: signal.Signals
) -> None:
    job = stage.begin(*_AT_WORK)
    job.until(lambda: works(stage) and "RUNNING" in job.stderr.upper())
    os.kill(job.pid, number)
    answer = job.answer()
    run_id = the_run(stage)
    assert answer.exit_code == 130
    assert f"tlvm attach {run_id[-4:]}" in answer.stderr
    assert f"The machine tlvm-{run_id} ends by itself at " in answer.stderr
    stage("status")
    assert len(stage.instances()) == 1 and owed(stage) == [f"tlvm-{run_id}"]
    let_it_end(stage)
    finished(stage, run_id)
    stage("status")
    assert stage.instances() == {} and owed(stage) == []
    assert "model/model.safetensors" in here(stage)[run_id]


def test_ctrl_c_before_anything_runs_ends_the_machine_again(stage: Stage) -> None:
    stage.bucket.stop_at(10**9, performed=False)
    job = stage.begin(*_RUN)
    job.until(stage.instances)
    os.kill(job.pid, signal.SIGINT)
    answer = job.answer()
    assert answer.exit_code == 130 and "gone again" in answer.stderr
    assert stage.instances() == {} and owed(stage) == []


def test_killed_before_anything_runs_the_machine_goes_with_the_next_status(stage: Stage) -> None:
    job = stage.begin(*_RUN)
    job.until(stage.instances)
    job.kill()
    assert len(stage.instances()) == 1 and owed(stage) and not here(stage)
    stage("status")
    assert stage.instances() == {} and owed(stage) == []


def test_a_result_that_is_not_in_the_store_keeps_the_machine_and_says_until_when(stage: Stage) -> None:
    started = stage(*_RUN, "--detach", "--json").document
    run_id, machine = started["run_id"], started["machine"]
    assert (
        f"tlvm attach {run_id[-4:]}" in started["ends"] and f"{machine} ends by itself at" in started["ends"]
    )
    finished(stage, run_id)
    kept, key = stage.bucket.api.buckets, f"runs/{run_id}/metrics.json"
    lost = content(stage, key)
    kept.delete(BUCKET, key, {})
    answer = stage("status")
    assert "metrics.json is not in the store" in answer.stderr
    assert f"The machine {machine} ends by itself at" in answer.stderr
    assert len(stage.instances()) == 1 and owed(stage) == [machine]
    kept.put(BUCKET, key, lost, {}, {})
    stage("down", "--yes")
    assert stage.instances() == {} and owed(stage) == []
    assert "model/model.safetensors" in here(stage)[run_id]


def test_a_laptop_that_cannot_take_the_result_does_not_keep_the_machine(stage: Stage) -> None:
    (stage.folder / "runs").write_text("a file of the user's where the folder of results belongs")
    error = stage(*_RUN, "--json", expect=3).document["error"]
    assert "its machine is gone" in error["what"] and "tlvm pull " in error["next"]
    assert stage.instances() == {}
    (stage.folder / "runs").unlink()
    (name,) = owed(stage)
    stage("pull", name[-4:])
    stage("status")
    assert owed(stage) == []
    assert "model/model.safetensors" in here(stage)[name.removeprefix("tlvm-")]


def test_a_machine_that_is_there_already_is_neither_taken_nor_ended(stage: Stage) -> None:
    stage("up", "--machine", "tlvm-mine")
    error = stage(*_RUN, "--machine", "tlvm-mine", "--json", expect=2).document["error"]
    assert "named by its run" in error["what"]
    assert stage(*_RUN, "--json").document["down"]["deleted"]
    assert [found["name"] for found in stage.instances().values()] == ["tlvm-mine"]


def test_two_at_once_have_a_machine_each(stage: Stage) -> None:
    named = stage.variables | {"TLVM_MACHINE_NAME": "tlvm-ana-trees"}  # which is left alone
    jobs = [stage.forked.begin(_RUN, stage.folder, named, out=name) for name in ("first", "second")]
    assert [job.answer().exit_code for job in jobs] == [0, 0]
    assert stage.instances() == {} and owed(stage) == [] and len(here(stage)) == 2


def look(stage: Stage) -> None:
    """What holds at any time: at most one machine, and each one ends by itself."""
    there = stage.instances()
    assert len(there) <= 1
    for id, body in there.items():
        assert body["scheduling"]["instanceTerminationAction"] == "DELETE"
        assert 0 < int(body["scheduling"]["maxRunDuration"]["seconds"]) <= 4 * 3600
        stage.runs |= {path.name for path in (stage.machines.home(id) / ".tlvm" / "runs").glob("*-*")}


def points(theatre: Theatre) -> Iterator[tuple[Service, int, bool]]:
    """Before and after each request that the command sends."""
    with theatre.stage() as stage:
        unnamed(stage)
        before = {"compute": len(stage.cloud.requests), "bucket": sum(stage.bucket.requests.values())}
        stage(*_RUN)
        sent = {"compute": len(stage.cloud.requests), "bucket": sum(stage.bucket.requests.values())}
    services: tuple[Service, ...] = ("compute", "bucket")
    for service in services:
        for number in range(1, sent[service] - before[service] + 1):
            yield service, number, False
            yield service, number, True


def killed(theatre: Theatre, service: Service, number: int, performed: bool) -> bool:
    """Killed there, and completed by what comes next; False when the command had ended before."""
    with theatre.stage() as stage:
        unnamed(stage)
        silent = stage.cloud if service == "compute" else stage.bucket
        silent.stop_at(number, performed=performed)
        job = stage.begin(*_RUN)
        while not silent.frozen.is_set() and not job.ended(0.01):
            pass
        struck = silent.frozen.is_set()
        job.kill()
        silent.resume()
        deadline = time.monotonic() + 200
        while True:
            look(stage)
            stage("status")
            if not stage.instances() and not owed(stage):
                break
            assert time.monotonic() < deadline, stage.begin("status").answer().stderr
        assert all(stage.in_bucket(run_id) for run_id in stage.runs)
        assert stage.runs <= set(here(stage))
        assert stage.cloud.cloud.resources["disks"] == {}
        return struck


def test_killed_at_some_of_its_requests_it_is_completed_by_status(
    theatre: Theatre, capsys: pytest.CaptureFixture[str]
) -> None:
    found = list(points(theatre))
    chosen = random.Random(_SEED).sample(found, _SAMPLE)
    struck = sum(_killed(theatre, point) for point in chosen)
    with capsys.disabled():
        print(f"\nrun --ephemeral killed at {struck} of {len(found)} points, seed {_SEED}")
    assert struck >= _SAMPLE * 0.7


@pytest.mark.soak
@pytest.mark.parametrize("part", range(12))
def test_killed_at_each_of_its_requests_it_is_completed_by_status(part: int, theatre: Theatre) -> None:
    found = list(points(theatre))[part::12]
    assert sum(_killed(theatre, point) for point in found) >= len(found) * 0.7


def _killed(theatre: Theatre, point: tuple[Service, int, bool]) -> bool:
    try:
        return killed(theatre, *point)
    except AssertionError as error:
        raise AssertionError(f"killed at {point}: {error}") from error
