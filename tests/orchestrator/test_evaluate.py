"""Another prevalence, and a run's own figures again: what needs no machine."""

from __future__ import annotations

import io
import random
import re
from pathlib import Path

import pytest

from orchestrator.cli.options import shares as read_shares
from orchestrator.errors import ConfigError, DataError, NotFoundError
from orchestrator.render.compare import compared
from orchestrator.render.console import Screen
from orchestrator.render.evaluate import evaluated
from orchestrator.workflows.results.compare import compare
from orchestrator.workflows.results.evaluate import evaluate
from orchestrator.workflows.results.prevalence import moved, prevalence
from orchestrator.workflows.results.weighted import Rate, rate, share_of, total
from orchestrator.workflows.workspace import Workspace
from remote.contract.dataset_manifest import Image
from remote.contract.intervals import wilson
from tests.orchestrator.finished_runs import image, opened, put_dataset, put_run, regrouped


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


def test_each_figure_at_other_shares_has_an_interval(workspace: Workspace, trees: str) -> None:
    rare = evaluate(workspace, trees, prior={"birch": 0.3})
    found = rare.adjusted
    assert found is not None
    birch, oak = found.classes
    assert birch.recall_interval == pytest.approx(wilson(6, 10)) and oak.recall_interval == wilson(9, 10)
    low, high = found.accuracy_interval
    assert low < found.accuracy < high and found.before_interval != found.accuracy_interval
    assert birch.precision_interval is not None and birch.precision is not None
    low, high = birch.precision_interval
    assert low < birch.precision < high <= 1
    out = io.StringIO()
    evaluated(Screen(out, io.StringIO()), rare)
    assert f"accuracy {found.accuracy:.3f} (95 %: {found.accuracy_interval[0]:.3f}" in out.getvalue()
    assert f"{birch.precision:.3f} {low:.2f} – {high:.2f}" in " ".join(out.getvalue().split())


def test_groups_make_the_intervals_wider(workspace: Workspace) -> None:
    images = [image(f"{n}.jpg", name) for name in ("birch", "oak") for n in range(20)]
    shares = [[0.9, 0.1] if n % 20 < 16 else [0.2, 0.8] for n in range(20)] + [[0.1, 0.9]] * 20
    found = []
    for tail, name, some in (("aaaa", "alone", images), ("bbbb", "grouped", regrouped(images, 4))):
        put_run(workspace, tail, put_dataset(workspace, some, name), some, shares)
        adjusted = evaluate(workspace, tail, prior={"birch": 0.5}).adjusted
        assert adjusted is not None
        found.append(adjusted)
    alone, in_groups = found
    assert in_groups.accuracy_interval[0] < alone.accuracy_interval[0]
    assert in_groups.accuracy == alone.accuracy


def test_one_class_alone_has_the_interval_of_its_images() -> None:
    alone = total([rate([True] * 8 + [False] * 2)], [1.0])
    assert [alone.low, alone.high] == pytest.approx(wilson(8, 10))


def test_a_rare_class_is_not_told_for_sure_because_nothing_was_mistaken_for_it() -> None:
    """60 of 100 found, none of 100 others taken for it: one in a hundred images is of it, so its precision may be low."""
    own, other = rate([True] * 60 + [False] * 40), rate([False] * 100)
    precision = share_of(total([own], [0.01]), total([other], [0.99]))
    assert precision is not None
    assert precision.value == precision.high == 1.0 and 0.05 < precision.low < 0.25
    assert share_of(Rate(0.0, 0.0, 0.1), Rate(0.0, 0.0, 0.1)) is None


def test_the_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Images drawn a thousand times from a world that is known, by chance that is always the same."""
    chance, held = random.Random(0), [0, 0]
    shares, recalls = [0.2, 0.8], [0.7, 0.9]
    accuracy = sum(share * recall for share, recall in zip(shares, recalls, strict=True))
    precision = 0.2 * 0.7 / (0.2 * 0.7 + 0.8 * 0.1)
    for _ in range(1000):
        birches, oaks = ([chance.random() < recall for _ in range(40)] for recall in recalls)
        of_all = total([rate(birches), rate(oaks)], shares)
        mistaken = rate([not one for one in oaks])
        of_birches = share_of(total([rate(birches)], [0.2]), total([mistaken], [0.8]))
        assert of_birches is not None
        held[0] += of_all.low <= accuracy <= of_all.high
        held[1] += of_birches.low <= precision <= of_birches.high
    assert all(930 <= count <= 975 for count in held), held


def test_evaluate_and_compare_count_the_same_looks(workspace: Workspace) -> None:
    images = [image(f"{number}.jpg", "birch") for number in range(4)]
    dataset = put_dataset(workspace, images)
    for tail in ("aaaa", "bbbb"):
        put_run(workspace, tail, dataset, images, [[0.9, 0.1]] * 4)
    out = io.StringIO()
    evaluated(Screen(out, io.StringIO()), evaluate(workspace, "aaaa"))
    evaluated(Screen(out, io.StringIO()), evaluate(workspace, "bbbb"))
    compared(Screen(out, io.StringIO()), compare(workspace, ["aaaa", "bbbb"]))
    said = re.findall(r"(\w+ (?:of \d+ )?looks?)\b", out.getvalue())
    assert said == ["first of 2 looks", "second look", "second look"]


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
