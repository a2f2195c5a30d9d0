"""What is told while a command is at work: steps, epochs and bars, from events of any kind."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest

from orchestrator.render.events import Events
from orchestrator.render.progress import Plain
from tests.orchestrator.screens import screen


@pytest.mark.parametrize("number", [float("inf"), float("nan"), -float("inf"), 10**4000, -1, True, "1"])
def test_numbers_that_are_none_break_nothing(number: object) -> None:
    to, _, _ = screen()
    with Events(to.progress) as events:
        events.show(
            {"type": "epoch", "epoch": number, "of": number, "held_out_accuracy": number, "seconds": number}
        )
        events.show({"type": "progress", "step": "x", "done": number, "total": number, "unit": "images"})
        events.show({"type": "network", "stages": [{"shape": [number] * 9, "parameters": number}]})


@pytest.mark.parametrize(
    ("done", "total"), [(0, -1), (-3, 5), (7, 5), (float("nan"), 5), (5, float("inf")), ("1", "2"), (None, 3)]
)
def test_counts_that_are_none_are_passed_over(done: object, total: object) -> None:
    to, _, err = screen()
    with Events(to.progress) as events:
        events.show({"type": "progress", "step": "x", "done": done, "total": total, "unit": "images"})
    assert err.getvalue() == ""


@pytest.mark.parametrize(
    "event", [{"type": "epoch", "epoch": -1, "of": -1}, {"type": "published", "files": -2}]
)
def test_nothing_is_counted_below_zero(event: dict[str, Any]) -> None:
    to, _, err = screen()
    with Events(to.progress) as events:
        events.show(event)
    assert err.getvalue() == ""


def test_a_run_is_told_step_by_step() -> None:
    to, _, err = screen()
    with Events(to.progress) as events:
        events.show({"type": "step", "number": 3, "name": "freeze", "text": "11,176,512 parameters"})
        stage = {"name": "layer1", "shape": [64, 56, 56], "parameters": 147968, "frozen": True}
        events.show({"type": "network", "stages": [stage]})
        for done in (1, 450, 900):
            events.show({"type": "progress", "step": "extract", "done": done, "total": 900, "unit": "images"})
        events.show(
            {
                "type": "epoch",
                "epoch": 7,
                "of": 20,
                "train_loss": 0.5,
                "held_out_accuracy": 0.956,
                "seconds": 2.0,
            }
        )
    text = err.getvalue()
    assert re.search(r"3/8 +freeze +11,176,512 parameters", text)
    assert re.search(r"layer1 +64 × 56 × 56 +147,968 +frozen", text)
    assert "900 images in" in text
    assert "epoch 7 of 20 · train loss 0.500 · held-out accuracy 0.956 · 2.0 s" in text


def test_plain_bars_say_where_they_are_now_and_then() -> None:
    seconds = [0.0]
    stream = io.StringIO()
    plain = Plain(stream, clock=lambda: seconds[0])
    with plain.bar("send", 100, "files") as bar:
        for _ in range(100):
            seconds[0] += 0.25
            bar.advance()
    lines = stream.getvalue().splitlines()
    assert lines == ["send    40 of 100 files", "send    80 of 100 files", "send    100 files in 25 s"]


def test_a_plain_bar_says_only_once_that_all_is_done() -> None:
    seconds = [0.0]
    stream = io.StringIO()
    with Plain(stream, clock=lambda: seconds[0]).bar("extract", 397, "images") as bar:
        bar.advance(300)
        seconds[0] += 15
        bar.advance(97)
    assert stream.getvalue().splitlines() == ["extract 397 images in 15 s"]


@pytest.mark.parametrize(
    ("unit", "said"),
    [
        ("images", "check   10 of 60 images, 25 MB, 2.5 MB/s"),
        ("bytes", "check   25 MB of 60 MB, 2.5 MB/s"),
    ],
)
def test_a_bar_tells_bytes_and_their_rate_on_the_way(unit: str, said: str) -> None:
    seconds = [0.0]
    stream = io.StringIO()
    with Plain(stream, clock=lambda: seconds[0]).bar(
        "check", 60 if unit == "images" else 60_000_000, unit
    ) as bar:
        for _ in range(10):
            seconds[0] += 1
            bar.advance(*((1, 2_500_000) if unit == "images" else (2_500_000,)))
    assert stream.getvalue().splitlines()[0] == said


@pytest.mark.parametrize(
    ("done", "total", "unit", "said"),
    [
        (1, 1, "files", "1 file in"),
        (2, 2, "files", "2 files in"),
        (0, 1, "images", "0 of 1 image in"),
        (1, 3, "images", "1 of 3 images in"),
        (1, 1, "penalties", "1 penalty in"),
        (1, 1, "bytes", "1 B in"),
    ],
)
def test_what_a_bar_has_come_to_is_counted_as_people_count(
    done: int, total: int, unit: str, said: str
) -> None:
    stream = io.StringIO()
    with Plain(stream).bar("fetch", total, unit) as bar:
        bar.advance(done)
    assert stream.getvalue().startswith(f"fetch   {said} ")


@pytest.mark.parametrize(("files", "said"), [(1, "1 file is"), (2, "2 files are")])
def test_files_that_reached_the_store_are_counted(files: int, said: str) -> None:
    to, _, err = screen()
    with Events(to.progress) as events:
        events.show({"type": "published", "files": files, "bytes": 3})
    assert f"{said} in the store" in err.getvalue()


def test_a_bar_that_is_cut_short_does_not_say_done() -> None:
    stream = io.StringIO()
    with pytest.raises(RuntimeError), Plain(stream).bar("send", 100, "files"):
        raise RuntimeError
    assert stream.getvalue() == ""
