"""How results look: true sentences, lines that fit, and at the end what to do next."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from orchestrator.datasets.folder.names import printable
from orchestrator.providers.base import Machine, MachineState
from orchestrator.render import datasets, figures, machines, pulled, runs, setup
from orchestrator.render.console import Screen
from orchestrator.workflows.data.datasets import DatasetSummary
from orchestrator.workflows.machines.down import DownResult
from orchestrator.workflows.machines.status import MachineLine, RunLine, StatusResult
from orchestrator.workflows.results.predict import Prediction, PredictResult
from orchestrator.workflows.results.pull import PullResult
from orchestrator.workflows.runs.overview import RunRow, RunsResult
from orchestrator.workflows.runs.run import RunResult
from orchestrator.workflows.setup.doctor import DoctorResult, Finding
from remote.contract.metrics import ClassFigures, Counters, Evaluation, Frozen, Metrics
from remote.contract.run_spec import StoreRef
from tests.orchestrator.screens import Terminalish, screen

RUN = "fixed-extractor-20260807-142530-k3qz"
NOW = datetime(2026, 8, 7, 14, 25, tzinfo=UTC)


def runs_of_three() -> RunsResult:
    """Long names everywhere, as people and machines give them."""
    done = RunRow(
        RUN, "SUCCEEDED", "", "fixed-extractor", "insects", "a" * 64, "resnet18", "ImageNet V1", "m" * 60, "ana",
        "trees", NOW.isoformat(), NOW.isoformat(), NOW.isoformat(), True, "here", NOW.isoformat(), cost=0.3,
        accuracy=0.95, tags=["keep", "for-the-paper-of-next-spring"], note="what I showed to the group, and why",
    )  # fmt: skip
    lost = dataclasses.replace(
        done, state="LOST", doubt="its machine is gone", goes_on_with=f"tlvm attach --recover {RUN}"
    )
    wide = dataclasses.replace(done, state="FAILED", message="x" * 300, dataset="日本" * 40, model="y" * 90)
    return RunsResult("gs://trees", [done, lost, wide], [])


@pytest.mark.parametrize("width", [40, 80, 130])
def test_on_a_terminal_no_run_is_wider_than_the_screen_and_none_lacks_a_word(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    out = Terminalish()
    runs.listed(Screen(out, io.StringIO()), runs_of_three())
    text = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())
    assert max(map(cell_len, text.splitlines())) <= max(width, len(f"next: tlvm attach --recover {RUN}"))
    said = re.sub(r"\s+", "", text)
    for word in (
        "#for-the-paper-of-next-spring",
        "itsmachineisgone",
        "x" * 300,
        "日本" * 40,
        "accuracy0.950",
    ):
        assert word in said
    assert said.count(RUN) == 4


def test_beyond_a_terminal_a_run_is_one_whole_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    to, out, _ = screen()
    runs.listed(to, runs_of_three())
    done, lost, wide, _ = out.getvalue().splitlines()
    assert "what I showed to the group, and why" in done and "its machine is gone" in lost
    assert "x" * 300 in wide and "y" * 90 in wide


def metrics(**more: Any) -> Metrics:
    classes = [
        ClassFigures("birch", 60, 58, 58 / 60, [0.89, 0.99], 0.97, 0.96),
        ClassFigures("oak", 60, 56, 56 / 60, [0.84, 0.97], None, None),
    ]
    evaluation = Evaluation(
        "test", "nothing", 120, 114, 0.95, [0.895, 0.977], 0.5, 0.95, 0.95, 0.1, 0.2, 0.018, 0.041, classes,
        [[0, 0, 58], [0, 1, 2], [1, 0, 4], [1, 1, 56]],
    )  # fmt: skip
    fields: dict[str, Any] = {
        "run_id": RUN, "scenario": "fixed-extractor", "model": "resnet18", "dataset": "trees",
        "dataset_version": "a" * 64, "weights": "ImageNet V1", "weights_sha256": "b" * 64, "seed": 0,
        "classes": ["birch", "oak"], "images": {"train": 600, "test": 120}, "excluded": 0, "reported": "test",
        "evaluations": [evaluation], "temperature": 1.2, "trained_parameters": 1026,
        "frozen": Frozen(11176512, 120, 120), "counters": Counters(720, 720, 720), "images_per_s": 830.0,
        "seconds": {"extract": 1.1, "train": 0.4}, "device": "cpu", "versions": {}, "training": {},
    }  # fmt: skip
    return Metrics(**(fields | more))


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"epochs": [{"epoch": 1}, {"epoch": 2}], "recipe": {"epochs": 30}}, "after 2 of 30 epochs"),
        ({"epochs": [None], "recipe": "x"}, "before its last epoch"),
        ({}, "before its last epoch"),
    ],
)
def test_a_run_whose_hours_were_over_says_so_and_how_to_give_it_more(
    training: dict[str, Any], said: str
) -> None:
    text = "\n".join(figures.lines(metrics(training={**training, "ended_by": "max_hours"})))
    assert f"its max_hours were over {said}: tlvm run --spec {RUN[-4:]} --max-hours H" in text
    ended = {**training, "ended_by": "epochs"}
    assert "max_hours" not in "\n".join(figures.lines(metrics(training=ended)))


def test_the_figures_are_a_table_that_a_person_understands() -> None:
    text = "\n".join(figures.lines(metrics()))
    assert "accuracy 0.950 (114 of 120; 95 %: 0.895 – 0.977)" in text
    assert "guessing 0.500" in text
    assert "calibration error 0.041 → 0.018" in text
    assert "120 images that chose nothing" in text
    assert "oak taken for birch, 4 of 60; birch taken for oak, 2 of 60" in text
    assert re.search(r"oak +56/60 +0.933 +0.84 – 0.97 +–", text)
    assert "frozen part: 120 of 120 tensors equal to the bit" in text


def test_features_of_the_cache_claim_no_speed() -> None:
    text = "\n".join(figures.lines(metrics(counters=Counters(720, 0, 0), images_per_s=2223.0)))
    assert "features from the cache" in text and "a second" not in text
    assert "830 images a second" in "\n".join(figures.lines(metrics()))


def run_result(figures: dict[str, Any], *, detached: bool = False) -> RunResult:
    return RunResult(
        RUN, "fixed-extractor", "trees", "a" * 64, "resnet18", "ImageNet V1", "m", "SUCCEEDED", detached,
        None if detached else Path("runs") / RUN, 9, 1000, figures, seconds=41.0,
    )  # fmt: skip


def test_a_result_ends_with_what_to_do_next() -> None:
    to, out, _ = screen()
    runs.result(to, run_result(dataclasses.asdict(metrics())))
    assert "accuracy 0.950" in out.getvalue()
    assert out.getvalue().splitlines()[-1] == "next: tlvm predict k3qz IMAGES"
    to, out, _ = screen()
    runs.result(to, run_result({}, detached=True))
    assert "next: tlvm attach k3qz " in out.getvalue()


@pytest.mark.parametrize("broken", [{}, {"schema": 1}, {"schema": 99}])
def test_figures_that_cannot_be_read_are_said_and_nothing_breaks(broken: dict[str, Any]) -> None:
    to, out, _ = screen()
    runs.result(to, run_result(broken))
    assert "can't be read" in out.getvalue()


def test_figures_that_contradict_themselves_break_nothing() -> None:
    wrong = dataclasses.asdict(metrics(reported="nowhere"))
    short = dataclasses.asdict(metrics(classes=[]))
    for figures_ in (wrong, short):
        to, out, _ = screen()
        runs.result(to, run_result(figures_))
        assert "can't be read" in out.getvalue()


def machine_line(*, mine: bool = True) -> MachineLine:
    machine = Machine(
        "tlvm-ana-trees", "local", "1", "this computer", MachineState.RUNNING, "ana", "trees",
        NOW - timedelta(minutes=41), NOW + timedelta(hours=3), "none", 0, 0.0, StoreRef("/store"),
    )  # fmt: skip
    run = RunLine(RUN, "fixed-extractor", "trees", "resnet18", "RUNNING", 6, "", NOW.isoformat(), False)
    return MachineLine(machine, mine, 0.0, [run])


def test_predictions_are_csv_in_which_no_name_steers_a_terminal() -> None:
    name = printable(b'caf\xe9 \xc3\xa9\x1b[2J, "x"%\n.jpg'.decode("utf-8", "surrogateescape"))
    hostile = "b\x1b[31m"
    found = PredictResult(
        RUN, Path("m"), ["50 %", hostile], [Prediction(name, "50 %", 0.75, {"50 %": 0.75, hostile: 0.25})]
    )
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    runs.predicted(Screen(out, io.StringIO()), found)
    rows = list(csv.reader(io.StringIO(out.buffer.getvalue().decode())))
    assert rows == [
        ["path", "class", "probability", "p_50 %", "p_b%1B[31m"],
        ['caf%E9 é%1B[2J, "x"%25%0A.jpg', "50 %", "0.750000", "0.750000", "0.250000"],
    ]


def test_pull_ends_with_the_short_name_of_the_run() -> None:
    to, out, _ = screen()
    pulled.one(to, PullResult(RUN, Path("runs") / RUN, "SUCCEEDED", 9, 1000, 9))
    assert out.getvalue().splitlines()[-1] == "next: tlvm predict k3qz IMAGES"


def test_every_output_ends_with_what_to_do_next() -> None:
    row = RunRow(
        RUN, "SUCCEEDED", "", "fixed-extractor", "trees", "a" * 64, "resnet18", "none", "m", "ana", "trees",
        NOW.isoformat(), NOW.isoformat(), NOW.isoformat(), True, None,
    )  # fmt: skip
    for others, shown in (([], "k3qz"), ([dataclasses.replace(row, run_id=f"from-scratch{RUN[15:]}")], RUN)):
        to, out, _ = screen()
        runs.listed(to, RunsResult("/store", [row, *others], []))
        assert out.getvalue().splitlines()[-1] == f"next: tlvm pull {shown}"
    drawn: list[tuple[Callable[[Screen, Any], None], Any]] = [
        (machines.overview, StatusResult("local", "/store", NOW, [machine_line()], [], ["docker: m"], [])),
        (machines.overview, StatusResult("local", "/store", NOW, [machine_line(mine=False)], [], [], [])),
        (machines.overview, StatusResult("local", "/store", NOW, [], [], [], [])),
        (machines.gone, DownResult("m", False, False)),
        (machines.gone, DownResult("m", True, False)),
        (machines.gone, DownResult("m", True, True, [RUN], {}, {RUN: "disk full"})),
        (runs.listed, RunsResult("/store", [row], [])),
        (runs.listed, RunsResult("/store", [], [])),
        (datasets.listed, []),
        (datasets.listed, [DatasetSummary("trees", "a" * 64, 1, 900, 1, ["a"], {"train": {"a": 900}})]),
        (
            setup.examined,
            DoctorResult([Finding("fail", "torch", "not installed", "pip install")], 1, 0, 1.0, 7),
        ),
    ]
    for draw, result in drawn:
        to, out, _ = screen()
        draw(to, result)
        assert out.getvalue().splitlines()[-1].startswith("next: "), out.getvalue()


def test_down_of_a_machine_without_a_run_promises_no_results() -> None:
    to, out, _ = screen()
    machines.gone(to, DownResult("m", True, True))
    assert "no run of this machine has one" in out.getvalue()
    assert out.getvalue().splitlines()[-1] == "next: tlvm up makes a machine again"


def test_a_long_name_of_weights_does_not_fill_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    out = Terminalish()
    row = RunRow(
        RUN, "SUCCEEDED", "", "fixed-extractor", "trees", "a" * 64, "squeezenet1_1", "file squeezenet1_1-fp32.pth",
        "m", "ana", "trees", NOW.isoformat(), None, None, True, None,
    )  # fmt: skip
    runs.listed(Screen(out, io.StringIO()), RunsResult("/store", [row], []))
    assert "  squeezenet1_1, file squeeze…  on trees" in out.getvalue()


def test_status_says_whose_a_machine_is_and_what_runs() -> None:
    to, out, _ = screen()
    machines.overview(to, StatusResult("local", "/store", NOW, [machine_line(mine=False)], [], [], []))
    assert "of ana, not touched by your commands" in out.getvalue()
    assert f"running  {RUN}" in out.getvalue()
    assert "in 3 h" in out.getvalue()


def test_beyond_a_terminal_a_long_message_widens_only_its_own_line() -> None:
    line = machine_line()
    (run,) = line.runs
    long = dataclasses.replace(run, run_id="b", state="FAILED", message="x" * 300, published=True)
    done = dataclasses.replace(run, run_id="c", state="SUCCEEDED", published=True)
    to, out, _ = screen()
    shown = dataclasses.replace(line, runs=[run, long, done])
    machines.overview(to, StatusResult("local", "/store", NOW, [shown], [], [], []))
    widths = sorted(map(len, out.getvalue().splitlines()))
    assert widths[-1] > 300 and widths[-2] < 150


@pytest.mark.parametrize(
    ("runs", "soft_end", "said"),
    [
        ([{}], None, "off while it is at work"),
        ([{}], NOW + timedelta(minutes=9), "off while it is at work"),  # it has just begun
        ([{"state": "SUCCEEDED"}], None, "off while it is at work"),
        ([{"state": "SUCCEEDED", "published": True}], None, "looks every 10 s, has not said yet"),
        ([], None, "looks every 10 s, has not said yet"),
        ([{"state": "FAILED", "published": True}], NOW + timedelta(minutes=9), "in 9 min"),
        ([{"doubt": "its machine is gone"}], NOW + timedelta(minutes=9), "in 9 min"),
    ],
)
def test_the_idle_clock_is_off_only_while_a_run_needs_the_machine(
    runs: list[dict[str, Any]], soft_end: datetime | None, said: str
) -> None:
    line = machine_line()
    (run,) = line.runs
    shown = dataclasses.replace(
        line,
        runs=[dataclasses.replace(run, **fields) for fields in runs],
        soft_end=soft_end,
        has_soft_clock=True,
    )
    to, out, _ = screen()
    machines.overview(to, StatusResult("gce", "gs://trees", NOW, [shown], [], [], []))
    assert said in next(text for text in out.getvalue().splitlines() if "  idle" in text)


def test_status_of_a_stopped_machine_says_how_to_go_on() -> None:
    to, out, _ = screen()
    line = machine_line()
    (run,) = line.runs
    stopped = dataclasses.replace(
        line,
        machine=dataclasses.replace(line.machine, state=MachineState.STOPPED),
        runs=[dataclasses.replace(run, state="CANCELLED", message="cancelled")],
    )
    machines.overview(to, StatusResult("local", "/store", NOW, [stopped], [], [], []))
    assert out.getvalue().splitlines()[-1].startswith("next: tlvm start")
    assert out.getvalue().count("cancelled") == 1  # as its state, not as its message too


def test_doctor_says_what_to_do() -> None:
    to, out, _ = screen()
    setup.examined(
        to, DoctorResult([Finding("fail", "torch", "not installed", "pip install it")], 1, 0, 1.0, 7)
    )
    assert re.search(r"FAIL +torch +not installed → pip install it", out.getvalue())
    assert "1 failure, 0 warnings, 1.0 s (exit 7)" in out.getvalue()


def test_json_is_one_object_with_schema_and_command() -> None:
    to, out, _ = screen()
    to.document("status", StatusResult("local", "/store", NOW, [machine_line()], [], [], []))
    found = json.loads(out.getvalue())
    assert (found["schema"], found["command"]) == (1, "status")
    assert found["machines"][0]["machine"]["state"] == "running"
    assert found["now"] == "2026-08-07T14:25:00+00:00"
    to, out, _ = screen()
    to.document("datasets", [])
    assert json.loads(out.getvalue())["items"] == []
