"""How far rare classes are favoured: as far as held-out images of train find worth it, and the figures say so."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from remote.heads import balance, logistic
from remote.measures.evaluation import probabilities

COUNTS = [120, 60, 12]


def _data(seed: int, counts: list[int]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), counts)
    centres = np.array([[0, 0, 0], [1.5, 0, 0], [0, 1.5, 0]])
    return (centres[labels] + generator.normal(size=(len(labels), 3))).astype(np.float32), labels


@pytest.fixture(scope="module")
def head() -> logistic.LinearHead:
    features, labels = _data(0, COUNTS)
    return logistic.fit(features, labels, np.arange(len(labels)) % 4, [1e-2, 1e-3], classes=3)


def test_more_of_it_says_rare_classes_more_often(head: logistic.LinearHead) -> None:
    labels = _data(0, COUNTS)[1][head.held_out]
    judged = balance.judge(head, labels, COUNTS).each
    assert [one.strength for one in judged] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert judged[0].accuracy == head.accuracy
    assert judged[-1].balanced_accuracy > judged[0].balanced_accuracy + 0.05
    assert judged[-1].accuracy < judged[0].accuracy


def judged(images: int, *gained: tuple[int, int]) -> balance.Judged:
    """Nine of ten images are of the common class, all right without balance; the rare ones are all wrong.

    gained      by each strength above 0: rare images that it has right, and common ones that it loses
    """
    labels = np.repeat([0, 1], [9 * images // 10, images // 10])
    right = np.tile(labels == 0, (5, 1))
    for row, (rare, common) in zip(right[1:], gained, strict=True):
        row[:common] = False
        row[9 * images // 10 :][:rare] = True
    return balance.judged_by(right, labels)


def test_as_little_as_serves_as_well_as_the_best() -> None:
    clear = judged(1000, (20, 0), (60, 5), (65, 90), (95, 200))
    assert balance.choose(clear).strength == 0.5  # more costs accuracy for sure
    flat = judged(1000, (60, 0), (61, 1), (61, 0), (10, 0))
    assert balance.choose(flat).strength == 0.25  # 0.75 is the best by one image: luck
    assert balance.choose(judged(20, (0, 0), (1, 0), (1, 0), (1, 1))).strength == 0.0  # by one of two
    assert balance.choose(judged(20, *[(0, 0)] * 4)).strength == 0.0


def test_what_costs_accuracy_for_sure_is_not_asked() -> None:
    assert balance.choose(judged(1000, *[(3, 20)] * 4)).strength == 0.0


def test_the_error_is_that_of_the_same_images(head: logistic.LinearHead) -> None:
    """Four images lost of 300 and none gained is no chance, though 0.887 and 0.9 alone are within an error."""
    labels = _data(0, COUNTS)[1][head.held_out]
    first, *others = balance.judge(head, labels, COUNTS).each
    assert first.accuracy_error == 0.0
    for one in others:
        shift = np.log(balance.prior(COUNTS, one.strength)) - np.log(np.array(COUNTS) / sum(COUNTS))
        said = (head.held_out_logits + head.temperature * shift).argmax(1)
        changed = (said == labels).astype(int) - (head.held_out_logits.argmax(1) == labels)
        n = len(labels)
        expected = ((changed**2).sum() / n - (changed.sum() / n) ** 2) ** 0.5 / n**0.5
        assert one.accuracy_error == pytest.approx(expected)
    alone = (0.9 * 0.1 / 300) ** 0.5
    lost = judged(300, *[(0, 4)] * 4).each[1]
    assert alone > 0.9 - lost.accuracy > lost.accuracy_error


@pytest.mark.parametrize("strength", [0.25, 1.0])
def test_the_probabilities_are_for_the_shares_that_are_told(
    head: logistic.LinearHead, strength: float
) -> None:
    features = _data(1, [2000, 2000, 2000])[0]
    moved = balance.apply(head, _data(0, COUNTS)[1][head.held_out], COUNTS, balance.prior(COUNTS, strength))
    before, after = (probabilities(one.logits(features), one.temperature) for one in (head, moved))
    train, supposed = np.array(COUNTS) / sum(COUNTS), np.array(balance.prior(COUNTS, strength))
    expected = before * supposed / train
    assert np.allclose(after, expected / expected.sum(1, keepdims=True), atol=1e-5)
    assert moved.accuracy == float(
        (moved.held_out_logits.argmax(1) == _data(0, COUNTS)[1][head.held_out]).mean()
    )


def test_the_shares_go_from_those_of_train_to_equal_ones() -> None:
    assert balance.prior([8, 2], 0.0) == [0.8, 0.2]
    assert balance.prior([8, 2], 1.0) == [0.5, 0.5]
    assert balance.prior([9, 1], 0.5) == [0.75, 0.25]
