"""How far a training came when its hours are over, how fast, and how many it needs: said then, and foreseen."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from remote.contract.layout import RunFolder
from remote.job.outcome import judged
from remote.job.passes import Foresight, Pass, moved
from remote.job.training_process import End, Limits
from tests.documents import run_spec

RUN = "from-scratch-20260807-142530-k3qz"
OVERTIME = End(exit_code=12, why="overtime", out_of_memory=False, peak_memory_mb=0.0)


def passing(*events: tuple[float, int], **changes: Any) -> Pass | None:
    """By (time, images done) of 4,000 in the first epoch."""
    found: Pass | None = None
    for now_s, done in events:
        event = {"t": now_s, "type": "progress", "step": "train", "epoch": 1, "done": done, "total": 4000}
        found = moved(found, {**event, "unit": "images", **changes})
    return found


def said(came: Pass | None, *, job: str = "train", max_hours: float = 1.0) -> str:
    spec = run_spec(run_id=RUN, scenario="from-scratch", job=job, max_hours=max_hours)
    return judged(OVERTIME, spec, RunFolder(Path("nowhere")), Limits(), error="", passing=came).message


def test_hours_that_end_in_the_first_epoch_say_how_far_it_came_and_how_many_it_needs() -> None:
    assert said(passing((0.0, 100), (3600.0, 500))) == (
        "Stopped after its max_hours of 1, before there was a result: in epoch 1, after 500 of 4,000 images; at this "
        "rate an epoch takes 10 h. tlvm run --spec k3qz --max-hours 15 is about enough for this epoch; smaller images, "
        "or the scenario fixed-extractor, take less"
    )


def test_what_no_hours_suffice_for_is_said_to_be_so() -> None:
    assert "it needs about 600, and a run may have 168; smaller images" in said(
        passing((0.0, 0), (3600.0, 10))
    )
    assert "--max-hours" not in said(passing((0.0, 0), (3600.0, 10)))


@pytest.mark.parametrize(
    ("came", "words"),
    [
        (None, "before there was a result: tlvm run --spec k3qz --max-hours H does it with more"),
        (passing((5.0, 32)), "result: in epoch 1, after 32 of 4,000 images. tlvm run --spec k3qz --max-hours H "),
        (passing((5.0, 32), (5.0, 64)), "after 64 of 4,000 images. tlvm run"),
        (passing((0.0, 0), (36.0, 2000), epoch=5), "in epoch 5, after 2,000 of 4,000 images; at this rate an"),
        (passing((0.0, 4000), (9.0, 0), (45.0, 2000)), "an epoch takes 1 min 12 s"),  # begun anew
        (passing((0.0, 0), (36.0, 2000), step="extract", epoch=None), "in the step extract, after 2,000 of 4,000 images; at"),
        (passing((0.0, 0), (36.0, 2000), step="extract", epoch=None), "--max-hours 1.1 is about enough for this step"),
        (passing((0.0, 0), (36.0, 2000), unit="penalties", epoch=None), "in the step train, after 2,000 of 4,000 penalties"),
    ],
)  # fmt: skip
def test_it_says_what_can_be_said(came: Pass | None, words: str) -> None:
    assert words in said(came)


def test_an_evaluation_is_not_told_to_train() -> None:
    text = said(passing((0.0, 0), (36.0, 2000), step="extract", epoch=None), job="evaluate")
    assert text.endswith("at this rate it takes 1 min 12 s")


@pytest.mark.parametrize(
    "changes",
    [
        {"step": "fetch"},
        {"type": "log"},
        {"total": 0},
        {"done": "1"},
        {"done": 9999},
        {"t": None},
        {"unit": 3},
    ],
)
def test_what_is_no_progress_of_a_training_is_passed_over(changes: dict[str, object]) -> None:
    before = passing((0.0, 0), (36.0, 2000))
    event = {"t": 40.0, "type": "progress", "step": "train", "done": 3000, "total": 4000, "unit": "images"}
    assert moved(before, event | changes) == before


def test_a_first_epoch_that_will_not_be_over_in_time_is_foreseen_once() -> None:
    told: list[str] = []
    foresight = Foresight(run_spec(run_id=RUN, scenario="from-scratch", max_hours=2.0), told.append)
    foresight.look(None, 0.0)
    early = passing((0.0, 0), (59.0, 1))
    foresight.look(early, 0.0)
    slow = passing((0.0, 0), (1800.0, 400))
    assert slow
    for left_s in (4.6 * 3600, 3.7 * 3600):  # 4.5 h are left of this epoch, and its first images were slow
        foresight.look(slow, left_s)
    foresight.look(dataclasses.replace(slow, epoch=2), 0.0)
    foresight.look(dataclasses.replace(slow, epoch=0), 0.0)
    assert told == []
    for _ in range(2):
        foresight.look(slow, 1.5 * 3600)
    (text,) = told
    assert text == (
        "This run seems to come to no result: it is in epoch 1, after 400 of 4,000 images; at this rate an epoch takes 5 h, and "
        "1 h 30 min of its max_hours are left. tlvm cancel k3qz ends it now. tlvm run --spec k3qz --max-hours 7.5 is about "
        "enough for this epoch; smaller images, or the scenario fixed-extractor, take less"
    )
