"""How far rare classes are favoured: as far as held-out images of train find worth it, and the figures say so."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from remote.heads import balance, logistic
from remote.heads.balance import Balance
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
    judged = balance.judge(head, labels, COUNTS)
    assert [one.strength for one in judged] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert judged[0].accuracy == head.accuracy
    assert judged[-1].balanced_accuracy > judged[0].balanced_accuracy + 0.05
    assert judged[-1].accuracy < judged[0].accuracy


def test_no_more_accuracy_is_given_than_mean_recall_is_gained() -> None:
    def judged(error: float) -> list[Balance]:
        return [
            Balance(0.0, 0.90, 0.60, 0.0),
            Balance(0.25, 0.90, 0.65, error),
            Balance(0.5, 0.88, 0.72, error),
            Balance(0.75, 0.86, 0.73, error),
            Balance(1.0, 0.80, 0.75, error),
        ]

    assert balance.choose(judged(0.05)).strength == 0.5
    assert balance.choose(judged(0.001)).strength == 0.25  # more would cost accuracy for sure
    assert balance.choose([Balance(0.0, 1.0, 1.0, 0.0), Balance(1.0, 1.0, 1.0, 0.0)]).strength == 0.0


def test_the_error_is_that_of_the_same_images(head: logistic.LinearHead) -> None:
    """Six images lost of 300 and none gained is no chance, though 0.80 and 0.82 alone are within an error."""
    labels = _data(0, COUNTS)[1][head.held_out]
    first, *others = balance.judge(head, labels, COUNTS)
    assert first.accuracy_error == 0.0
    for one in others:
        shift = np.log(balance.prior(COUNTS, one.strength)) - np.log(np.array(COUNTS) / sum(COUNTS))
        said = (head.held_out_logits + head.temperature * shift).argmax(1)
        changed = (said == labels).astype(int) - (head.held_out_logits.argmax(1) == labels)
        n = len(labels)
        expected = ((changed**2).sum() / n - (changed.sum() / n) ** 2) ** 0.5 / n**0.5
        assert one.accuracy_error == pytest.approx(expected)
    lost = Balance(1.0, 0.80, 0.95, (6 / 300 - (6 / 300) ** 2) ** 0.5 / 300**0.5)
    assert (0.82 * 0.18 / 300) ** 0.5 > 0.82 - lost.accuracy > lost.accuracy_error
    assert balance.choose([Balance(0.0, 0.82, 0.70, 0.0), lost]).strength == 0.0


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
