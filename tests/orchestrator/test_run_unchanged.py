"""`tlvm run --if-changed`: the earlier run is the answer only where everything that decides a result is the same."""

from __future__ import annotations

import dataclasses
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator import bundle
from orchestrator.providers.base import Machine
from orchestrator.render import markdown
from orchestrator.render import runs as drawn
from orchestrator.render.console import Screen
from orchestrator.workflows.runs.documents import stored_run
from orchestrator.workflows.runs.ephemeral_run import run_ephemeral
from orchestrator.workflows.runs.run import Repeat, RunResult, run
from orchestrator.workflows.runs.unchanged import unchanged
from orchestrator.workflows.runs.wish import Wish, wish_of
from orchestrator.workflows.workspace import Workspace
from remote.contract import document, layout
from remote.contract.run_spec import DatasetRef, WeightsRef
from remote.contract.run_status import RunStatus
from tests.orchestrator.finished_runs import image, opened, put, put_dataset, put_run
from tests.orchestrator.scripted_provider import Scripted
from tests.orchestrator.test_run import go, long_run, project
from tests.orchestrator.test_run import opened as on_machine

__all__ = ["long_run", "project"]  # the machine of the runs' tests

IMAGES = [image("1.jpg", "birch"), image("2.jpg", "oak")]
RIGHT = [[0.9, 0.1], [0.2, 0.8]]
WISH = Wish(
    "fixed-extractor",
    {"folds": 3},
    DatasetRef("trees", "a" * 64),
    WeightsRef("none"),
    "resnet18",
    0,
    24.0,
)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    found = opened(tmp_path)
    vars(found)["provider"] = Scripted([])
    return found


def put_same(
    workspace: Workspace, tail: str = "k3qz", training: Mapping[str, object] | None = None, **fields: Any
) -> tuple[str, Wish]:
    """A run that succeeded, whose spec has these fields; and the wish for the same."""
    dataset = put_dataset(workspace, IMAGES)
    run_id = put_run(workspace, tail, dataset, IMAGES, RIGHT, training=training)
    stored = stored_run(workspace.store, run_id)
    assert stored
    changes: dict[str, Any] = {"parameters": WISH.parameters, "code": bundle.code()} | fields
    spec = dataclasses.replace(stored.spec, **changes)
    put(workspace, layout.run_key(run_id, "spec.json"), document.encode(spec).encode())
    return run_id, dataclasses.replace(WISH, dataset=dataset)


def test_the_same_run_is_found_and_the_newest_of_several(workspace: Workspace) -> None:
    run_id, wish = put_same(workspace)
    found = unchanged(workspace, wish)
    assert found and found.spec.run_id == run_id
    assert unchanged(workspace, dataclasses.replace(wish, max_hours=1.0)) == found  # no part of a result
    newer, _ = put_same(workspace, "z9zz")
    found = unchanged(workspace, wish)
    assert found and found.spec.run_id == newer


def test_a_run_whose_hours_were_over_is_no_answer_where_there_are_more(workspace: Workspace) -> None:
    run_id, wish = put_same(workspace, training={"ended_by": "max_hours"}, max_hours=2.0)
    assert unchanged(workspace, dataclasses.replace(wish, max_hours=2.1)) is None
    found = unchanged(workspace, dataclasses.replace(wish, max_hours=2.0))
    assert found and found.spec.run_id == run_id


@pytest.mark.parametrize(
    "change",
    [
        {"scenario": "initial-layers"},
        {"parameters": {"folds": 4}},
        {"dataset": DatasetRef("trees", "b" * 64)},
        {"weights": WeightsRef("ImageNet V1", "f" * 64, "weights/resnet18.pth")},
        {"model": "resnet50"},
        {"seed": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_decides_a_result_makes_another_run(workspace: Workspace, change: dict[str, Any]) -> None:
    _, wish = put_same(workspace)
    assert unchanged(workspace, dataclasses.replace(wish, **change)) is None


@pytest.mark.parametrize(
    "fields",
    [{"code": ""}, {"code": "0" * 64}, {"owner": "somebody-else"}, {"environment": ["LAB_TOKEN"]}],
    ids=lambda fields: next(iter(fields)),
)
def test_other_code_owners_and_variables_make_another_run(
    workspace: Workspace, fields: dict[str, Any]
) -> None:
    _, wish = put_same(workspace, **fields)
    assert unchanged(workspace, wish) is None


def test_variables_of_the_same_names_are_the_same(workspace: Workspace) -> None:
    _, wish = put_same(workspace, environment=["A", "B"])
    assert unchanged(workspace, wish, {"B": "1", "A": "2"})


def test_a_result_that_is_not_whole_is_no_answer(workspace: Workspace) -> None:
    older, wish = put_same(workspace)
    newer, _ = put_same(workspace, "z9zz")
    workspace.store.delete(layout.run_key(newer, "model/model.safetensors"))
    found = unchanged(workspace, wish)
    assert found and found.spec.run_id == older
    put(workspace, layout.run_key(older, "metrics.json"), b"{}")
    assert unchanged(workspace, wish) is None


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED"])
def test_a_run_that_did_not_succeed_is_no_answer(workspace: Workspace, state: Any) -> None:
    run_id, wish = put_same(workspace)
    status = RunStatus(run_id, state, updated="2026-08-07T14:30:00+00:00", published=True)
    put(workspace, layout.run_key(run_id, "status.json"), document.encode(status).encode())
    assert unchanged(workspace, wish) is None


def test_a_run_that_is_lost_with_its_machine_is_no_answer(workspace: Workspace) -> None:
    run_id, wish = put_same(workspace)
    status = RunStatus(run_id, "RUNNING", updated="2026-08-07T14:30:00+00:00")
    put(workspace, layout.run_key(run_id, "status.json"), document.encode(status).encode())
    assert unchanged(workspace, wish) is None


def never(workspace: Workspace) -> Machine:
    raise AssertionError("a machine was asked for")


def test_the_answer_is_the_verified_result_and_nothing_is_rented(project: Path) -> None:
    first = run(on_machine(project, seed=21), "fixed-extractor", if_changed=True)
    assert (first.unchanged, first.state) == (False, "SUCCEEDED")
    again = run(on_machine(project, seed=21), "fixed-extractor", if_changed=True, bring_up=never)
    assert (again.run_id, again.unchanged, again.state) == (first.run_id, True, "SUCCEEDED")
    assert (again.folder, again.files, again.metrics) == (first.folder, first.files, first.metrics)
    repeated = run(
        on_machine(project), repeat=Repeat(first.run_id[-4:]), if_changed=True, bring_up=never, detach=True
    )
    assert repeated.run_id == first.run_id
    assert f"unchanged since {first.run_id}: nothing was rented" in text_of(again)
    assert f"Unchanged since `{first.run_id}`: nothing was rented." in markdown.run(again)
    stored = stored_run(on_machine(project).store, first.run_id)
    assert stored and stored.spec.code == bundle.code()


def test_with_a_machine_of_its_own_none_is_made(project: Path) -> None:
    first = run(on_machine(project, seed=22), "fixed-extractor")
    workspace = on_machine(project, seed=22)
    before = workspace.provider.machines()

    def carry_out(workspace: Workspace, **given: Any) -> RunResult:
        return run(workspace, "fixed-extractor", if_changed=True, **given)

    again = run_ephemeral(workspace, "fixed-extractor", carry_out)
    assert (again.run_id, again.unchanged, again.down) == (first.run_id, True, None)
    assert workspace.provider.machines() == before


def test_one_that_is_at_it_already_is_followed(project: Path, long_run: RunResult) -> None:
    workspace = on_machine(project, seed=60)
    left = run(workspace, "fixed-extractor", if_changed=True, detach=True, bring_up=never)
    assert (left.run_id, left.detached, left.unchanged) == (long_run.run_id, True, True)
    assert "is at the same already; nothing was rented" in text_of(left)

    def end(event: dict[str, Any]) -> None:
        go(project).touch()

    followed = run(workspace, "fixed-extractor", if_changed=True, bring_up=never, on_event=end)
    assert (followed.run_id, followed.state, followed.unchanged) == (long_run.run_id, "SUCCEEDED", True)


def test_new_images_make_a_new_version_and_a_new_run(project: Path) -> None:
    workspace = on_machine(project, seed=23)
    wish = wish_of(workspace, "fixed-extractor", {}, data=project / "photos")
    assert unchanged(workspace, wish) is None
    first = run(workspace, "fixed-extractor", data=project / "photos", if_changed=True)
    again = run(workspace, "fixed-extractor", data=project / "photos", if_changed=True, bring_up=never)
    assert (again.run_id, again.unchanged) == (first.run_id, True)


def test_code_is_what_we_wrote_to_the_last_byte(tmp_path: Path) -> None:
    root = Path(bundle.__file__).parents[1]
    shutil.copytree(root / "remote", tmp_path / "remote", ignore=shutil.ignore_patterns("__pycache__"))

    def code() -> str:
        path = {"PYTHONPATH": f"{tmp_path}:{root}", "PYTHONDONTWRITEBYTECODE": "1"}
        asked = "from orchestrator import bundle; print(bundle.code())"
        return subprocess.check_output(
            [sys.executable, "-c", asked], cwd=tmp_path, env=os.environ | path, text=True
        ).strip()

    assert code() == bundle.code()
    (tmp_path / "remote" / "notes.txt").write_text("travels nowhere")
    assert code() == bundle.code()
    with (tmp_path / "remote" / "train.py").open("a") as file:
        file.write("#")
    assert code() != bundle.code()


def text_of(result: RunResult) -> str:
    out = io.StringIO()
    drawn.result(Screen(out, io.StringIO()), result)
    return out.getvalue()
