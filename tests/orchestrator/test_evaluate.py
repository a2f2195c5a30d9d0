"""Another prevalence, and a run's own figures again: what needs no machine."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from orchestrator.cli.options import shares as read_shares
from orchestrator.errors import ConfigError, DataError, NotFoundError
from orchestrator.render.console import Screen
from orchestrator.render.evaluate import evaluated
from orchestrator.workflows.evaluate import evaluate
from orchestrator.workflows.prevalence import moved, prevalence
from orchestrator.workflows.workspace import Workspace
from remote.contract.dataset_manifest import Image
from tests.orchestrator.finished_runs import image, opened, put_dataset, put_run


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return opened(tmp_path)


@pytest.fixture
def trees(workspace: Workspace) -> str:
    """A run on 10 birches, of which 8 are recognised, and 10 oaks, of which 9 are; 100 birches and 100 oaks trained it."""
    images: list[Image] = [image(f"{number}.jpg", "birch") for number in range(10)]
    images += [image(f"{number}.jpg", "oak") for number in range(10)]
    train = [image(f"t{n}.jpg", name, split="train") for n in range(100) for name in ("birch", "oak")]
    birches = [[0.9, 0.1]] * 6 + [[0.6, 0.4]] * 2 + [[0.4, 0.6]] * 2
    oaks = [[0.1, 0.9]] * 9 + [[0.7, 0.3]]
    dataset = put_dataset(workspace, images + train)
    return put_run(workspace, "k3qz", dataset, images, [*birches, *oaks])


def test_a_run_on_its_own_images_is_not_measured_again(workspace: Workspace, trees: str) -> None:
    result = evaluate(workspace, "k3qz")
    assert (result.run_id, result.measured_by, result.split) == (trees, trees, "test")
    assert (result.look, result.looks, result.left_out, result.adjusted) == (1, 1, 0, None)
    assert not workspace.machines()


def test_another_prevalence(workspace: Workspace, trees: str) -> None:
    result = evaluate(workspace, trees, prior={"birch": 0.1})
    found = result.adjusted
    assert found is not None
    # At 1 birch to 9 oaks only a birch with more than 0.9 would be called one; 0.9 is even: the first class wins ties.
    birch, oak = found.classes
    assert [birch.share, oak.share] == pytest.approx([0.1, 0.9])
    assert found.before == pytest.approx(0.1 * 0.8 + 0.9 * 0.9)
    assert oak.recall == 1.0 and birch.recall in (0.0, 0.6)
    assert found.accuracy == pytest.approx(0.1 * (birch.recall or 0) + 0.9)
    out = io.StringIO()
    evaluated(Screen(out, io.StringIO()), result)
    assert "at these shares: accuracy 0.9" in out.getvalue() and "first look" in out.getvalue()


def test_precision_falls_where_a_class_is_rare(workspace: Workspace, trees: str) -> None:
    even = evaluate(workspace, trees, prior={"birch": 0.5, "oak": 0.5}).adjusted
    rare = evaluate(workspace, trees, prior={"birch": 0.3}).adjusted
    assert even is not None and rare is not None
    assert even.changed == 0 and even.accuracy == pytest.approx(0.85)
    assert even.classes[0].precision == pytest.approx(8 / 9)
    assert rare.changed == 2  # birches that were said with 0.6
    assert rare.classes[0].precision == pytest.approx(0.3 * 0.6 / (0.3 * 0.6 + 0.7 * 0.1))


@pytest.mark.parametrize(
    "given", [{"ash": 0.5}, {"birch": 1.5}, {"birch": float("nan")}, {"birch": 0.7, "oak": 0.7}]
)
def test_shares_that_are_none(given: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="--prior"):
        prevalence(given, ["birch", "oak"])


def test_what_is_not_given_shares_the_rest() -> None:
    assert prevalence({"b": 0.4}, ["a", "b", "c"]) == pytest.approx([0.3, 0.4, 0.3])
    assert moved({"a": 0.5, "b": 0.5}, {"a": 3.0, "b": 1.0}) == {"a": 0.75, "b": 0.25}
    assert read_shares(["a=b=0.5"]) == {"a=b": 0.5}
    for word in ("oak", "oak=much"):
        with pytest.raises(ConfigError):
            read_shares([word])


def test_what_cannot_be_evaluated(workspace: Workspace, trees: str) -> None:
    with pytest.raises(NotFoundError):
        evaluate(workspace, trees, on="parks")
    with pytest.raises(NotFoundError):
        evaluate(workspace, trees, on="trees@ffff")
    with pytest.raises(ConfigError, match="--split"):
        evaluate(workspace, trees, split="tset")
    put_dataset(workspace, [image("1.jpg", "birch"), image("2.jpg", "yew")], "parks")
    with pytest.raises(DataError, match="does not know every class of parks") as error:
        evaluate(workspace, trees, on="parks")
    assert "yew" in error.value.detail
