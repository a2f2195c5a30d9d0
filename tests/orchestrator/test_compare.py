"""Runs held against each other on the same images: the tests are those of the books, and the sentence is true."""

from __future__ import annotations

import io
import itertools
import math
from pathlib import Path

import pytest

from orchestrator.errors import ConfigError, DataError, NotFoundError
from orchestrator.render.compare import compared
from orchestrator.render.console import Screen
from orchestrator.workflows.results.compare import CompareResult, compare
from orchestrator.workflows.results.looks import ordinal
from orchestrator.workflows.results.paired import holm, images_needed, luck, mcnemar, pair
from orchestrator.workflows.workspace import Workspace
from remote.contract.dataset_manifest import Image
from remote.contract.intervals import grouped, wilson
from remote.contract.metrics import Counters
from remote.contract.run_spec import DatasetRef
from tests.orchestrator.finished_runs import image, opened, put_dataset, put_run, regrouped

RIGHT, WRONG = [0.9, 0.1], [0.2, 0.8]  # of a birch


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return opened(tmp_path)


def birches(count: int) -> list[Image]:
    return [image(f"{number:03}.jpg", "birch") for number in range(count)]


def shares(right: int, count: int, *, start: int = 0) -> list[list[float]]:
    return [RIGHT if start <= number < start + right else WRONG for number in range(count)]


def shown(result: CompareResult) -> str:
    out = io.StringIO()
    compared(Screen(out, io.StringIO()), result)
    return out.getvalue()


def test_mcnemar_is_the_sign_test() -> None:
    for gained, lost in itertools.product(range(8), repeat=2):
        n = gained + lost
        ways = sum(
            math.comb(n, k)
            for k in range(n + 1)
            if math.comb(n, k) <= math.comb(n, gained) and 2 * abs(k - n / 2) >= abs(gained - lost)
        )
        assert mcnemar(gained, lost) == pytest.approx(ways / 2**n)


def test_the_figures_of_the_terminal_page() -> None:
    first = [True] * 171 + [False] * 9
    second = [False] * 2 + [True] * 173 + [False] * 5
    found = pair(first, second)
    assert (found.gained, found.lost) == (4, 2)
    assert found.p == pytest.approx(0.6875)
    assert 100 * found.difference == pytest.approx(1.11, abs=0.01)
    assert [round(100 * end, 1) for end in found.interval] == [-1.7, 3.9]
    assert images_needed(found) == pytest.approx(2100, rel=0.02)


def test_equal_models_are_not_told_apart() -> None:
    found = pair([True, False] * 20, [True, False] * 20)
    assert (found.p, found.difference, images_needed(found)) == (1.0, 0.0, None)
    assert found.interval[0] < 0 < found.interval[1]


def test_groups_of_one_are_no_groups() -> None:
    first = [True] * 20 + [False] * 10
    second = [False] * 2 + [True] * 26 + [False] * 2
    alone = pair(first, second)
    in_groups = pair(first, second, [str(number) for number in range(30)])
    assert in_groups.p == pytest.approx(alone.p)
    assert grouped(first, [str(number) for number in range(30)])[0] <= wilson(20, 30)[0]


def test_ten_images_of_one_patient_are_one_witness() -> None:
    first, second = [False] * 60, [True] * 60
    groups = [f"p{number // 10}" for number in range(60)]
    assert pair(first, second).p < 1e-10
    assert pair(first, second, groups).p == pytest.approx(2 / 2**6)
    mixed = [number // 10 % 2 == 0 for number in range(60)]
    low, high = grouped(mixed, groups)
    assert high - low > 2 * (wilson(30, 60)[1] - wilson(30, 60)[0])


def test_an_interval_by_groups_where_all_are_right_counts_groups() -> None:
    low, high = grouped([True] * 100, [str(number // 20) for number in range(100)])
    assert low < wilson(5, 5)[0] and high == 1.0
    assert grouped([True] * 5, ["one"] * 5) == [0.0, 1.0]


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_the_luck_of_the_best_grows_with_the_looks() -> None:
    one = pair([True] * 90 + [False] * 10, [False] * 4 + [True] * 92 + [False] * 4)
    assert luck([one], 1) == 0 < luck([one], 2) < luck([one], 5) == luck([one], 5) < luck([one], 500) < 0.1


def test_no_difference_take_the_quickest(workspace: Workspace) -> None:
    images = birches(180)
    dataset = put_dataset(workspace, images)
    put_run(workspace, "k3qz", dataset, images, shares(171, 180), seconds=41)
    put_run(
        workspace, "9w2d", dataset, images, shares(173, 180, start=2), scenario="fine-tune-all", seconds=480
    )
    result = compare(workspace, ["k3qz", "9w2d"])
    assert (result.images, result.left_out, result.looks, result.groups) == (180, 0, 2, None)
    assert not result.differ and result.take.endswith("k3qz") and result.best.endswith("9w2d")
    assert result.runs[0].p is None and result.runs[1].p == pytest.approx(0.6875)
    text = shown(result)
    assert "the same 180 test images, second look: about 0.6 points of the best figure may be luck" in text
    assert "+1.1" in text and "(−1.7 … +3.9)" in text and "p 0.69" in text
    assert (
        "No difference is larger than chance; telling 0.950 from 0.961 takes about 2,100 test images. "
        "Take the quickest: fixed-extractor.\n"
    ) in text
    assert text.endswith("next: tlvm predict k3qz IMAGES\n")


def test_a_run_that_found_its_features_is_charged_with_them(workspace: Workspace) -> None:
    images = birches(20)
    dataset = put_dataset(workspace, images)
    kept, anew = Counters(1000, 1000, 0), Counters(1000, 1000, 1000)
    put_run(workspace, "k3qz", dataset, images, shares(18, 20), seconds=2, counters=kept, images_per_s=50_000)
    result = compare(
        workspace, ["k3qz", _tuned(workspace, dataset, images, seconds=20, counters=anew, rate=20)]
    )
    assert [(run.seconds, run.kept, run.seconds_alone) for run in result.runs] == [(2, 1000, 52), (20, 0, 20)]
    assert result.take.endswith("9w2d")
    assert "2.0 s (about 52 s without the features kept from an earlier run)" in shown(result)
    assert "Take the quickest: fine-tune-all.\n" in shown(result)


def test_where_nobody_knows_what_features_take_that_is_said(workspace: Workspace) -> None:
    images = birches(20)
    dataset = put_dataset(workspace, images)
    kept = Counters(1000, 1000, 0)
    put_run(workspace, "k3qz", dataset, images, shares(18, 20), seconds=2, counters=kept)
    put_run(
        workspace,
        "9w2d",
        dataset,
        images,
        shares(18, 20),
        seconds=3,
        counters=kept,
        scenario="initial-layers",
    )
    text = shown(compare(workspace, ["k3qz", "9w2d"]))
    assert "2.0 s (longer without the features kept from an earlier run)" in text
    assert (
        "Take the quickest: fixed-extractor (whose own time is not known: an earlier run had computed its features).\n"
    ) in text


def test_a_run_whose_hours_were_over_is_told_apart(workspace: Workspace) -> None:
    images = birches(20)
    dataset = put_dataset(workspace, images)
    cut = {"ended_by": "max_hours", "epochs": [{"epoch": 2}], "recipe": {"epochs": 30}}
    put_run(workspace, "k3qz", dataset, images, shares(18, 20))
    put_run(workspace, "9w2d", dataset, images, shares(18, 20), scenario="fine-tune-all", training=cut)
    result = compare(workspace, ["k3qz", "9w2d"])
    assert [run.cut_short for run in result.runs] == ["", "after 2 of 30 epochs"]
    assert shown(result).count("(its hours were over after 2 of 30 epochs)") == 1


def _tuned(
    workspace: Workspace,
    dataset: DatasetRef,
    images: list[Image],
    *,
    seconds: float,
    counters: Counters,
    rate: float,
) -> str:
    return put_run(
        workspace, "9w2d", dataset, images, shares(18, 20), scenario="fine-tune-all", seconds=seconds,
        counters=counters, images_per_s=rate,
    )  # fmt: skip


def test_equal_runs_are_told_in_whole_sentences(workspace: Workspace) -> None:
    images = birches(20)
    dataset = put_dataset(workspace, images)
    put_run(workspace, "k3qz", dataset, images, shares(18, 20))
    put_run(workspace, "9w2d", dataset, images, shares(18, 20), scenario="fine-tune-all", seconds=480)
    assert "No difference is larger than chance. Take the quickest: fixed-extractor.\n" in shown(
        compare(workspace, ["k3qz", "9w2d"])
    )


def test_a_single_p_below_the_level_is_told_with_its_correction(workspace: Workspace) -> None:
    """Six images gained and none lost is p 0.031 alone; one of two comparisons it is 0.062, which is said."""
    images = birches(100)
    dataset = put_dataset(workspace, images)
    for tail, start, right in (("aaaa", 6, 80), ("bbbb", 0, 86), ("cccc", 6, 80)):
        put_run(workspace, tail, dataset, images, shares(right, 100, start=start))
    result = compare(workspace, ["aaaa", "bbbb", "cccc"])
    assert [run.p_corrected for run in result.runs[1:]] == pytest.approx([0.0625, 1.0])
    assert result.runs[1].p == pytest.approx(0.03125) and not result.differ
    text = shown(result)
    assert "p 0.031 (Holm: 0.062)" in text and "p 1.00 (Holm: 1.00)" in text
    assert (
        "No difference is larger than chance (the smallest p, 0.031, is 0.062 by Holm's correction for 2 comparisons)"
        in text
    )


def test_a_real_difference_is_said(workspace: Workspace) -> None:
    images = birches(100)
    dataset = put_dataset(workspace, images)
    put_run(workspace, "aaaa", dataset, images, shares(60, 100))
    put_run(workspace, "bbbb", dataset, images, shares(95, 100), seconds=100)
    result = compare(workspace, ["aaaa", "bbbb"])
    assert result.differ and result.take == result.best
    assert "fixed-extractor …bbbb is the best, by more than chance." in shown(result)


def test_groups_of_the_manifest_count(workspace: Workspace) -> None:
    images = regrouped(birches(40), 10)
    dataset = put_dataset(workspace, images)
    put_run(workspace, "aaaa", dataset, images, shares(20, 40))
    put_run(workspace, "bbbb", dataset, images, shares(40, 40))
    result = compare(workspace, ["aaaa", "bbbb"])
    assert result.groups == 4 and result.runs[1].p == pytest.approx(0.5)
    assert not result.differ
    assert "40 test images in 4 groups" in shown(result)


def test_another_version_is_compared_on_the_images_that_both_hold(workspace: Workspace) -> None:
    images = birches(30)
    old = put_dataset(workspace, images[:20])
    put_run(workspace, "aaaa", old, images[:20], shares(15, 20))
    new = put_dataset(workspace, images)
    put_run(workspace, "bbbb", new, images, shares(25, 30))
    result = compare(workspace, ["aaaa", "bbbb"])
    assert (result.images, result.left_out) == (20, 10)
    assert result.runs[1].correct == 20


def test_other_images_are_refused_with_the_way_out(workspace: Workspace) -> None:
    images, others = birches(5), [image(f"other{number}", "birch") for number in range(5)]
    put_run(workspace, "aaaa", put_dataset(workspace, images), images, shares(5, 5))
    put_run(workspace, "bbbb", put_dataset(workspace, others, "parks"), others, shares(5, 5))
    with pytest.raises(DataError) as error:
        compare(workspace, ["aaaa", "bbbb"])
    assert "tlvm evaluate" in error.value.next and "--on trees@" in error.value.next


def test_what_cannot_be_compared(workspace: Workspace) -> None:
    images = birches(5)
    put_run(workspace, "aaaa", put_dataset(workspace, images), images, shares(5, 5))
    for runs in (["aaaa"], ["aaaa", "aaaa"]):
        with pytest.raises(ConfigError):
            compare(workspace, runs)
    with pytest.raises(NotFoundError):
        compare(workspace, ["aaaa", "zzzz"])


def test_ordinals() -> None:
    assert [ordinal(number) for number in (1, 3, 11, 21, 112, 123)] == [
        "first",
        "third",
        "11th",
        "21st",
        "112th",
        "123rd",
    ]
