"""The split that is made once: stratified, keyed by content, and it stays put."""

from __future__ import annotations

import hashlib
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.datasets.checks.checked import Checked
from orchestrator.datasets.checks.judge import Verdict
from orchestrator.datasets.folder.scan import Labelled
from orchestrator.datasets.splits.split import assign
from remote.contract.dataset_manifest import Split
from tests.orchestrator.splitting import earlier, sides_of


def content(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


labelled = st.dictionaries(st.integers(0, 10_000), st.sampled_from("abc"), max_size=120).map(
    lambda numbers: [(content(number), label) for number, label in sorted(numbers.items())]
)


@given(labelled)
def test_a_fifth_of_each_class_and_one_of_each_at_least(images: list[tuple[str, str]]) -> None:
    sides = sides_of(images, {})
    for label in "abc":
        found = Counter(sides[sha256] for sha256, other in images if other == label)
        if found.total() > 1:
            assert found["val"] == max(1, round(found.total() / 5))
        assert found["train"] or not found.total()


@given(labelled, labelled, st.randoms(use_true_random=False))
def test_it_stays_put_when_images_are_added_and_does_not_depend_on_order(
    first: list[tuple[str, str]], more: list[tuple[str, str]], random: object
) -> None:
    before = sides_of(first, {})
    known = {sha256 for sha256, _ in first}
    grown = first + [(sha256, label) for sha256, label in more if sha256 not in known]
    after = sides_of(grown, before)
    small = {label for _, label in first if sum(other == label for _, other in first) < 2}
    for sha256, label in first:
        if label not in small:  # a class of one image has no val until it grows
            assert after[sha256] == before[sha256]
    assert sides_of(list(reversed(grown)), before) == after


@given(labelled, st.data())
def test_a_class_that_lost_a_side_gets_it_back(images: list[tuple[str, str]], data: st.DataObject) -> None:
    sides_before: tuple[Split, Split] = ("train", "val")
    before = {sha256: data.draw(st.sampled_from(sides_before)) for sha256, _ in images}
    sides = sides_of(images, before)
    for label in "abc":
        found = [sides[sha256] for sha256, other in images if other == label]
        if len(found) > 1:
            assert set(found) == {"train", "val"}


def test_equal_images_in_two_classes_stay_on_one_side() -> None:
    images = [(content(number), label) for number in range(20) for label in "ab"]
    assert set(sides_of(images, {})) == {content(number) for number in range(20)}


def checked(number: int, split: Split | None) -> Checked:
    verdict = Verdict(content(number), "png", 1, 1, "RGB", 1, 1, b"")
    return Checked(Labelled(b"%d.png" % number, 1, 0, number, split, "ab"[number % 2]), verdict)


def test_folders_that_say_it_all_are_taken_as_they_are() -> None:
    images = [checked(1, "train"), checked(2, "val"), checked(3, "test")]
    assert assign(images) == (["train", "val", "test"], "folders")


def test_train_alone_is_divided() -> None:
    sides, source = assign([checked(number, "train") for number in range(20)])
    assert (Counter(sides), source) == (Counter(train=16, val=4), "hash")


def test_a_test_that_was_given_is_never_divided() -> None:
    images = [checked(number, "train" if number < 20 else "test") for number in range(30)]
    sides, source = assign(images, earlier({content(number): "train" for number in range(20, 30)}))
    assert (Counter(sides), source) == (Counter(train=16, val=4, test=10), "hash")
    assert set(sides[20:]) == {"test"}
