"""`tlvm run --spec RUN`: an earlier run done again as it was, but for what is given beside it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config import load
from orchestrator.errors import CloudError, ConfigError, NotFoundError
from orchestrator.workflows.runs.documents import stored_run
from orchestrator.workflows.runs.run import run
from orchestrator.workflows.runs.wish import Repeat, Wish, wish_of
from orchestrator.workflows.workspace import Workspace
from remote.contract import document, layout, scenarios
from remote.contract.run_spec import DatasetRef, EvaluatedRun, RunSpec, WeightsRef
from tests.orchestrator.finished_runs import image, put, put_dataset, put_run
from tests.orchestrator.test_run import opened as on_machine
from tests.orchestrator.test_run import project

__all__ = ["project"]  # the machine of the runs' tests

IMAGES = [image("1.jpg", "birch"), image("2.jpg", "oak")]
RIGHT = [[0.9, 0.1], [0.2, 0.8]]
IMAGENET = WeightsRef("ImageNet V1", "f" * 64, "weights/resnet18-f37072fd.pth")


def opened(folder: Path, flags: dict[str, Any] | None = None, **environ: str) -> Workspace:
    (folder / "project").mkdir(exist_ok=True)
    environ = {"TLVM_DATA_DIR": str(folder / "data"), **environ}
    return Workspace(load(flags or {}, environ=environ, folder=folder / "project"))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return opened(tmp_path)


@pytest.fixture
def dataset(workspace: Workspace) -> DatasetRef:
    return put_dataset(workspace, IMAGES)


def earlier(workspace: Workspace, dataset: DatasetRef, **fields: Any) -> RunSpec:
    """A run that ended well, whose spec has these fields."""
    run_id = put_run(workspace, "k3qz", dataset, IMAGES, RIGHT)
    stored = stored_run(workspace.store, run_id)
    assert stored
    parameters = dict(scenarios.resolve("fixed-extractor", {"folds": 3}))
    changes: dict[str, Any] = {
        "parameters": parameters,
        "seed": 7,
        "max_hours": 2.0,
        "weights": IMAGENET,
    } | fields
    spec = dataclasses.replace(stored.spec, **changes)
    put(workspace, layout.run_key(run_id, "spec.json"), document.encode(spec).encode())
    put(workspace, IMAGENET.key, b"weights")
    return spec


def test_a_run_is_repeated_as_it_was(tmp_path: Path, workspace: Workspace, dataset: DatasetRef) -> None:
    spec = earlier(workspace, dataset)
    newer = put_dataset(workspace, [*IMAGES, image("3.jpg", "oak")])
    assert newer.version != dataset.version
    (tmp_path / "project" / "tlvm.toml").write_text(
        '[run]\nseed = 1\nmodel = "resnet50"\nweights = "none"\n[scenarios.fixed-extractor]\nviews = 4\n'
    )
    asked = opened(tmp_path, TLVM_RUN_SEED="5")
    assert asked.settings.run.model == "resnet50"
    wish = wish_of(asked, None, {}, repeat=Repeat("k3qz"))
    assert wish == Wish("fixed-extractor", spec.parameters, dataset, IMAGENET, "resnet18", 7, 2.0)


def test_what_is_given_beside_it_wins(tmp_path: Path, workspace: Workspace, dataset: DatasetRef) -> None:
    spec = earlier(workspace, dataset)
    newer = put_dataset(workspace, [*IMAGES, image("3.jpg", "oak")])
    flags = {
        "run.seed": 9,
        "run.weights": "none",
        "run.max_hours": 5.0,
        "run.model": "resnet50",
        "dataset.name": "trees",
    }
    instead = frozenset({"seed", "weights", "max_hours", "model", "dataset"})
    wish = wish_of(opened(tmp_path, flags), "fixed-extractor", {"folds": "4"}, repeat=Repeat("k3qz", instead))
    parameters = {**spec.parameters, "folds": 4}
    assert wish == Wish("fixed-extractor", parameters, newer, WeightsRef("none"), "resnet50", 9, 5.0)


def test_another_model_begins_with_its_own_weights_of_imagenet_or_has_to_say(
    tmp_path: Path, workspace: Workspace, dataset: DatasetRef
) -> None:
    flags, repeat = {"run.model": "resnet50"}, Repeat("k3qz", frozenset({"model"}))
    earlier(workspace, dataset, weights=WeightsRef("none"))
    assert wish_of(opened(tmp_path, flags), None, {}, repeat=repeat).weights == WeightsRef("none")
    earlier(workspace, dataset, weights=dataclasses.replace(IMAGENET, source="file my.pth"))
    with pytest.raises(ConfigError, match="do not fit a resnet50") as raised:
        wish_of(opened(tmp_path, flags), None, {}, repeat=repeat)
    assert "--weights" in raised.value.next


def test_what_is_missing_is_named_with_what_to_do(
    workspace: Workspace, dataset: DatasetRef, tmp_path: Path
) -> None:
    earlier(workspace, dataset)
    repeat = Repeat("k3qz")
    workspace.store.delete(IMAGENET.key)
    with pytest.raises(NotFoundError, match=r"The weights with which .*k3qz began \(ImageNet V1\)") as lost:
        wish_of(workspace, None, {}, repeat=repeat)
    assert "--weights imagenet" in lost.value.next
    workspace.store.delete(layout.manifest_key("trees", dataset.version))
    with pytest.raises(NotFoundError, match=f"The version {dataset.version[:12]} of trees") as gone:
        wish_of(workspace, None, {}, repeat=repeat)
    assert "--dataset trees" in gone.value.next
    with pytest.raises(NotFoundError, match="There is no run 'nope'"):
        wish_of(workspace, None, {}, repeat=Repeat("nope"))


def test_another_scenario_or_one_that_trained_nothing_is_refused(
    workspace: Workspace, dataset: DatasetRef
) -> None:
    spec = earlier(workspace, dataset)
    with pytest.raises(ConfigError, match="is a run of fixed-extractor, not of from-scratch"):
        wish_of(workspace, "from-scratch", {}, repeat=Repeat("k3qz"))
    evaluated = EvaluatedRun(spec.run_id, "a" * 64, dataset, "test", "nothing", 1, 1, 1.0)
    earlier(workspace, dataset, job="evaluate", evaluates=evaluated)
    with pytest.raises(ConfigError, match="trained nothing") as raised:
        wish_of(workspace, None, {}, repeat=Repeat("k3qz"))
    assert raised.value.next.startswith("tlvm evaluate k3qz")


@pytest.mark.parametrize(
    ("fields", "kind", "said"),
    [
        ({"seed": -1}, CloudError, "can't be repeated"),
        ({"max_hours": 1e9}, CloudError, "can't be repeated"),
        ({"parameters": {"folds": "rm -rf"}}, ConfigError, "folds is 'rm -rf'"),
        ({"parameters": {"\x1b[31m": 1}}, ConfigError, "has no parameter"),
        ({"schema": 99}, CloudError, "can't be read"),
        ({"weights": {"source": "x", "sha256": "a" * 64, "key": "../../etc"}}, CloudError, "can't be read"),
        ({"weights": {"source": "x", "sha256": "a" * 64, "key": "packs/x"}}, NotFoundError, "are not in"),
        ({"scenario": "nonsense"}, ConfigError, "There is no scenario"),
    ],
)
def test_a_spec_is_somebody_elses_word(
    workspace: Workspace, dataset: DatasetRef, fields: dict[str, Any], kind: type[Exception], said: str
) -> None:
    spec = earlier(workspace, dataset)
    written = json.loads(document.encode(spec)) | fields
    put(workspace, layout.run_key(spec.run_id, "spec.json"), json.dumps(written).encode())
    with pytest.raises(kind, match=said):
        wish_of(workspace, None, {}, repeat=Repeat("k3qz"))


def test_a_repeated_run_has_the_same_spec(project: Path) -> None:
    workspace = on_machine(project, seed=8)
    first = run(workspace, "initial-layers", parameters={"folds": 3})
    again = run(on_machine(project), repeat=Repeat(first.run_id[-4:]))
    one, other = (stored_run(workspace.store, found.run_id) for found in (first, again))
    assert one and other and one.spec.run_id != other.spec.run_id
    same = dataclasses.replace(other.spec, run_id=one.spec.run_id, created=one.spec.created)
    assert same == one.spec
    assert (same.seed, same.parameters["folds"]) == (8, 3)
