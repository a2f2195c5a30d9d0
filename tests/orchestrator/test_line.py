"""Several scenarios in one line on one local machine: order, errors, Ctrl-C, and the table at the end."""

from __future__ import annotations

import io
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import ConfigError
from orchestrator.progress import Bar, Silent
from orchestrator.render import lines as render_lines
from orchestrator.render import machines as render_machines
from orchestrator.render import markdown
from orchestrator.render.console import Screen
from orchestrator.workflows.machines.status import RunLine, status
from orchestrator.workflows.runs.attach import attach
from orchestrator.workflows.runs.cancel import cancel
from orchestrator.workflows.runs.documents import stored_run
from orchestrator.workflows.runs.launch import Detached
from orchestrator.workflows.runs.line import Line, LineResult, run_line
from orchestrator.workflows.runs.overview import runs
from orchestrator.workflows.runs.request import Request, fulfil
from orchestrator.workflows.runs.run import run
from orchestrator.workflows.workspace import Workspace
from remote.contract.scenarios import SCENARIOS
from tests.orchestrator.test_run import go, opened, project
from tests.orchestrator.test_run_unchanged import never
from tests.remote.machine import eventually

__all__ = ["project"]  # the machine of the runs' tests

THREE = ["fixed-extractor", "initial-layers", "fine-tune-top"]


def shown(result: LineResult) -> str:
    out = io.StringIO()
    render_lines.result(Screen(out, io.StringIO()), result)
    return out.getvalue()


def waiting(project: Path) -> list[RunLine]:
    (machine,) = status(opened(project)).machines
    return sorted((run for run in machine.runs if run.in_line), key=lambda run: run.in_line)


def test_a_line_is_named_once_and_parameters_go_where_they_are_known() -> None:
    assert Line.of(["all"], {}).scenarios == list(SCENARIOS)
    line = Line.of(["fixed-extractor", "fine-tune-all"], {"folds": "3", "epochs": "2"})
    assert line.parameters == {"fixed-extractor": {"folds": "3"}, "fine-tune-all": {"epochs": "2"}}
    with pytest.raises(ConfigError, match="stands twice"):
        Line.of(["fixed-extractor", "fixed-extractor"], {})
    with pytest.raises(ConfigError, match="There is no scenario 'fixed'"):
        Line.of(["fixed", "fine-tune-all"], {})
    with pytest.raises(ConfigError, match="No scenario of the line has a parameter 'fold'") as raised:
        Line.of(["fixed-extractor", "fine-tune-all"], {"fold": "3"})
    assert "folds" in raised.value.next


def test_one_that_fails_keeps_none_of_the_others(project: Path) -> None:
    happened: list[dict[str, Any]] = []
    result = run_line(opened(project, seed=4), Line.of(THREE, {}), on_event=happened.append)
    assert [run.scenario for run in result.runs] == THREE
    assert [run.result is not None for run in result.runs] == [True, False, True]
    failed = result.runs[1].error
    assert failed and (failed.kind, failed.exit_code) == ("RunFailed", 9) and result.exit_code == 9
    assert "Only one class: bees" in failed.detail
    for one in result.runs:
        if one.result:
            assert one.result.folder and (one.result.folder / "model" / "model.safetensors").exists()
    text = shown(result)
    assert "2 of 3 runs verified and pulled" in text
    assert f"tlvm compare {result.runs[0].run_id[-4:]} {result.runs[2].run_id[-4:]}" in text


def test_ctrl_c_leaves_the_whole_line_going_on_in_its_order(project: Path) -> None:
    def interrupt(event: dict[str, Any]) -> None:
        if event["type"] == "log":
            raise KeyboardInterrupt

    with pytest.raises(Detached) as raised:
        run_line(opened(project, seed=60), Line.of(THREE, {}), on_event=interrupt)
    assert "In the line behind it" in raised.value.next
    first = raised.value.run.run_id
    eventually(lambda: [run.in_line for run in waiting(project)] == [1, 2])
    second, third = waiting(project)
    assert [run.scenario for run in (second, third)] == THREE[1:]
    assert (second.waits_for, third.waits_for) == (first, second.run_id)
    out = io.StringIO()
    render_machines.overview(Screen(out, io.StringIO()), status(opened(project)))
    assert f"next in line, waits for …{first[-4:]}" in out.getvalue()
    assert f"place 2 in line, waits for …{second.run_id[-4:]}" in out.getvalue()
    assert cancel(opened(project), second.run_id).state == "CANCELLED"
    go(project).touch()
    try:
        assert attach(opened(project), third.run_id).state == "SUCCEEDED"
    finally:
        go(project).unlink()
    stored = stored_run(opened(project).store, first)
    assert stored and stored.state == "SUCCEEDED"


def test_a_line_may_be_left_at_once(project: Path) -> None:
    result = run_line(opened(project), Line.of(THREE[:2], {}), detach=True)
    assert result.detached and [run.result.state for run in result.runs if run.result] == ["STARTED"] * 2
    assert "tlvm status shows the line" in shown(result)
    ids = {run.run_id for run in result.runs}

    def ended() -> bool:
        return all(row.state == "SUCCEEDED" for row in runs(opened(project)).runs if row.run_id in ids)

    eventually(ended)


def test_what_an_earlier_run_answers_is_not_done_again(project: Path) -> None:
    first = run(opened(project, seed=31), THREE[0])
    two = Line.of([THREE[1], THREE[0]], {})
    mixed = fulfil(opened(project, seed=31), Request(two.scenarios, if_changed=True))
    assert isinstance(mixed, LineResult)
    new, old = [one.result for one in mixed.runs]
    assert new and not new.unchanged and new.folder and mixed.machine == new.machine
    assert old and old.unchanged and (old.run_id, old.folder) == (first.run_id, first.folder)
    (row,) = [line.split() for line in shown(mixed).splitlines() if line.startswith(THREE[0])]
    assert row[-2:] == ["unchanged", first.run_id[-4:]]
    assert f"unchanged {THREE[0]}: {first.run_id} did the same" in shown(mixed)
    assert [one.answered_by for one in mixed.runs] == ["", first.run_id]
    for detach in (False, True):
        again = run_line(opened(project, seed=31), two, if_changed=True, detach=detach, bring_up=never)
        assert [one.run_id for one in again.runs] == [new.run_id, first.run_id]
        assert (again.machine, again.detached, again.exit_code) == ("", False, 0)
        assert "2 of 2 runs verified and pulled, nothing was rented" in shown(again)


def test_one_that_is_at_it_already_is_left_in_peace_and_the_others_go_in_line(project: Path) -> None:
    at_work = run(opened(project, seed=60), THREE[0], parameters={"folds": "4"}, detach=True)
    line = Line.of(THREE[:2], {"folds": "4"})
    result = run_line(opened(project, seed=60), line, if_changed=True, detach=True)
    old, new = [one.result for one in result.runs]
    assert old and (old.run_id, old.unchanged, old.detached) == (at_work.run_id, True, True)
    assert new and not new.unchanged and result.detached
    text = shown(result)
    assert f"{old.run_id} on {old.machine} is at the same already" in text
    assert f"{new.run_id} on {new.machine}: starts" in text
    assert [one.answered_by for one in result.runs] == [old.run_id, ""]
    assert "### 1 run started on" in markdown.line(result)
    assert f"1 earlier run did the same, or is at it: `{old.run_id}`." in markdown.line(result)
    assert cancel(opened(project), new.run_id).state == "CANCELLED"
    assert cancel(opened(project), old.run_id).state == "CANCELLED"


class Impatient(Silent):
    """Somebody who presses Ctrl-C while the first result is brought here."""

    def bar(self, label: str, total: int, unit: str) -> AbstractContextManager[Bar]:
        if label == "pull":
            raise KeyboardInterrupt
        return super().bar(label, total, unit)


def test_ctrl_c_while_a_result_is_brought_here_says_what_goes_on(project: Path) -> None:
    workspace = Workspace(opened(project, seed=32).settings, Impatient())
    with pytest.raises(Detached) as raised:
        run_line(workspace, Line.of(THREE, {}))
    row = {row.run_id: row.scenario for row in runs(opened(project)).runs}
    assert row[raised.value.run.run_id] == THREE[1]
    assert "In the line behind it" in raised.value.next
    third = raised.value.next.rpartition(": ")[2].partition(";")[0]
    attach(opened(project), third)


def test_ctrl_c_while_the_last_result_is_brought_here_leaves_nothing_going_on(project: Path) -> None:
    workspace = Workspace(opened(project, seed=32).settings, Impatient())
    with pytest.raises(KeyboardInterrupt) as raised:
        run_line(workspace, Line.of(THREE[:1], {}))
    assert not isinstance(raised.value, Detached)
