"""What is said of the attempts of a run: on how many machines, how each ended, and what it cost."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from orchestrator.render import runs as render_runs
from orchestrator.workflows.results.record import write_record
from orchestrator.workflows.runs.attempts import attempt_lines, counted, ended_as
from orchestrator.workflows.runs.documents import StoredRun
from remote.contract.run_attempt import Attempt
from remote.contract.run_status import AttemptTimes, RunStatus
from tests.documents import run_spec

RUN = "fine-tune-all-20260807-142530-k3qz"
SPEC = run_spec(run_id=RUN, scenario="fine-tune-all", max_hours=4.0)


def at(minute: int) -> str:
    return f"2026-08-07T14:{minute:02d}:00+00:00"


def asked(number: int, machine_id: str, *, price: float = 0.6) -> Attempt:
    return Attempt(
        number, SPEC.machine, "gce", "us-central1-b", price, at(number), spot=True, machine_id=machine_id
    )


def went(*attempts: Attempt, times: list[AttemptTimes]) -> StoredRun:
    status = RunStatus(RUN, "SUCCEEDED", at(50), published=True, attempts=times)
    return StoredRun(SPEC, status, list(attempts))


PREEMPTED = AttemptTimes(
    1, SPEC.machine, at(1), at(1), "KILLED"
)  # a moment after its begin, as far as it was heard
DONE = AttemptTimes(2, SPEC.machine, at(10), at(40), "SUCCEEDED")


def test_an_attempt_on_a_machine_that_was_taken_away_is_neither_free_nor_killed() -> None:
    lines = attempt_lines(went(asked(1, "11"), asked(2, "22"), times=[PREEMPTED, DONE]))
    assert [ended_as(line) for line in lines] == ["lost with its machine", "succeeded"]
    first, second = render_runs.attempt_rows(lines)
    assert "under $0.01" in first and first.endswith("lost with its machine") and "free" not in first
    assert "about $0.30" in second
    assert counted(lines) == "2 machines"


def test_a_machine_that_never_said_a_word_of_it_is_lost_with_it() -> None:
    lines = attempt_lines(went(asked(1, "11"), asked(2, "22"), times=[DONE]))
    assert ended_as(lines[0]) == "lost with its machine"


def test_two_attempts_on_one_machine_are_one_machine() -> None:
    lines = attempt_lines(went(asked(1, "11"), asked(2, "11"), times=[PREEMPTED, DONE]))
    assert [ended_as(line) for line in lines] == ["killed", "succeeded"]
    assert counted(lines) == "2 attempts"


@pytest.mark.parametrize(
    ("ids", "said"),
    [("1", ""), ("11", "2 attempts"), ("12", "2 machines"), ("112", "3 attempts on 2 machines")],
)
def test_attempts_and_machines_are_counted(ids: str, said: str) -> None:
    attempts = [asked(number, id) for number, id in enumerate(ids, 1)]
    assert counted(attempt_lines(went(*attempts, times=[]))) == said


def test_an_attempt_of_an_older_tlvm_tells_its_machine_by_its_place() -> None:
    older = [dataclasses.replace(asked(number, ""), schema=1) for number in (1, 2)]
    assert counted(attempt_lines(went(*older, times=[]))) == "2 attempts"
    assert (
        counted(attempt_lines(went(older[0], dataclasses.replace(older[1], place="b"), times=[])))
        == "2 machines"
    )


@pytest.mark.parametrize(
    ("price", "said"), [(0.6, "about $0.30 (an estimate from list prices)"), (0.0, "free")]
)
def test_the_page_beside_a_result_says_the_same(tmp_path: Path, price: float, said: str) -> None:
    run = went(asked(1, "11", price=price), asked(2, "22", price=price), times=[PREEMPTED, DONE])
    write_record(tmp_path, run, "SUCCEEDED", set())
    page = (tmp_path / "README.md").read_text()
    assert "lost with its machine" in page and f"Together 2 machines, 1,800 s at work, {said}." in page
    assert ("under $0.01 |" in page) == (price > 0) and "$0.00" not in page
    kept = json.loads((tmp_path / "run.json").read_text())["attempts"]
    assert [(one["how"], one["machine_id"]) for one in kept] == [("LOST", "11"), ("SUCCEEDED", "22")]
