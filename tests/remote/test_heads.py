"""The new classifier: as good as scikit-learn's, its penalty chosen honestly, its figures right."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss, precision_score, recall_score

from remote.contract.dataset_manifest import Image
from remote.contract.intervals import wilson
from remote.heads import lbfgs, logistic
from remote.heads.folds import NEVER, folds, holdout
from remote.measures import evaluation
from tests import documents

PENALTIES = np.geomspace(10, 1e-5, 13).tolist()


def _images(classes: Sequence[str], groups: Sequence[str | None] | None = None) -> list[Image]:
    return [
        documents.image(
            f"train/{name}/{index}.png",
            group=groups[index] if groups else None,
            sha256=hashlib.sha256(str(index).encode()).hexdigest(),
        )
        for index, name in enumerate(classes)
    ]


def _data(n: int, width: int, classes: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Overlapping clouds whose columns have very different scales, as features of networks do."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    centres = generator.normal(size=(classes, width)) * 0.25
    values = (centres[labels] + generator.normal(size=(n, width))) * generator.uniform(0.01, 30, width) + 3
    values[:, 0] = 7  # a feature that says nothing
    return values.astype(np.float32), labels.astype(np.int64)


@pytest.mark.parametrize(("n", "width", "classes"), [(120, 20, 2), (150, 12, 5), (40, 200, 3)])
@pytest.mark.parametrize("penalty", [1.0, 1e-3])
def test_the_fit_is_scikit_learns(n: int, width: int, classes: int, penalty: float) -> None:
    features, labels = _data(n, width, classes)
    fold_of = folds(_images([str(label) for label in labels]), most=5, seed=0)
    head = logistic.fit(features, labels, fold_of, [penalty], classes=classes)
    scaled = features.astype(np.float64)
    std = scaled.std(0)
    std[std == 0] = 1
    scaled = (scaled - scaled.mean(0)) / std
    if classes == 2:  # scikit-learn has one vector for two classes, and so half of our penalty
        peer = LogisticRegression(C=2 / (penalty * n), tol=1e-10, max_iter=10_000).fit(scaled, labels)
    else:
        peer = LogisticRegression(C=1 / (penalty * n), tol=1e-10, max_iter=10_000).fit(scaled, labels)
    ours = evaluation.probabilities(head.logits(features))
    assert np.abs(ours - peer.predict_proba(scaled)).max() < 2e-3


def test_weighted_rows_are_scikit_learns_balanced_classes() -> None:
    features, labels = _data(150, 12, 5)
    kept = np.flatnonzero((labels > 1) | (np.arange(150) < 30))  # classes 0 and 1 are rare
    features, labels = features[kept], labels[kept]
    fold_of = folds(_images([str(label) for label in labels]), most=5, seed=0)
    weights = (1 / np.bincount(labels))[labels]
    head = logistic.fit(features, labels, fold_of, [1e-2], classes=5, weights=weights)
    scaled = features.astype(np.float64) - features.astype(np.float64).mean(0)
    scaled /= np.where(scaled.std(0) > 1e-9, scaled.std(0), 1)
    peer = LogisticRegression(C=1e2 / len(labels), class_weight="balanced", tol=1e-10, max_iter=10_000)
    expected = peer.fit(scaled, labels).predict_proba(scaled)
    assert np.abs(evaluation.probabilities(head.logits(features)) - expected).max() < 2e-3


def test_several_problems_at_once_are_the_same_as_one_by_one() -> None:
    features, labels = _data(60, 10, 3)
    inputs = torch.cat([torch.from_numpy(features).double() / 30, torch.ones(60, 1)], dim=1)
    weights = torch.rand(60, 4, generator=torch.Generator().manual_seed(0)).double()
    weights /= weights.sum(0)
    together = lbfgs.Problem(inputs, torch.from_numpy(labels), weights, 3)
    theta, logits = lbfgs.minimise(together, 0.01, together.start())
    for index in range(4):
        one = lbfgs.Problem(inputs, torch.from_numpy(labels), weights[:, index : index + 1], 3)
        alone, _ = lbfgs.minimise(one, 0.01, one.start())
        assert torch.allclose(theta[:, index], alone[:, 0], atol=1e-4)
    assert torch.allclose(logits, together.product(theta), atol=1e-9)


def test_the_penalty_is_the_one_that_serves_held_out_images_best() -> None:
    features, labels = _data(200, 30, 4)
    fold_of = folds(_images([str(label) for label in labels]), most=5, seed=0)
    head = logistic.fit(features, labels, fold_of, PENALTIES, classes=4)
    assert head.penalty == min(head.candidates, key=lambda candidate: candidate.log_loss).penalty
    assert head.folds == 5
    assert head.held_out.all()
    assert head.held_out_logits.shape == (200, 4)
    assert abs(head.accuracy - (head.held_out_logits.argmax(1) == labels).mean()) < 1e-12
    assert 0.1 < head.temperature < 5


def test_a_fit_is_the_same_to_the_bit_each_time() -> None:
    features, labels = _data(90, 40, 3)
    fold_of = folds(_images([str(label) for label in labels]), most=5, seed=0)
    one, two = (logistic.fit(features, labels, fold_of, PENALTIES, classes=3) for _ in range(2))
    assert torch.equal(one.weight, two.weight)
    assert torch.equal(one.bias, two.bias)
    assert one.temperature == two.temperature


def test_two_classes_of_three_images_and_a_class_of_one() -> None:
    features, labels = _data(6, 50, 2)
    head = logistic.fit(
        features, labels, folds(_images(list("ababab")), most=5, seed=0), PENALTIES, classes=2
    )
    assert head.folds == 5
    names = list("aaabbbc")
    fold_of = folds(_images(names), most=5, seed=0)
    assert fold_of[-1] == NEVER
    assert (
        len(set(fold_of[:3])) == len(set(fold_of[3:6])) == 3
    )  # two of each class are in every training part
    features, _ = _data(7, 50, 2)
    head = logistic.fit(features, np.array([0, 0, 0, 1, 1, 1, 2]), fold_of, PENALTIES, classes=3)
    assert torch.isfinite(head.weight).all()
    assert head.held_out.tolist() == [True] * 6 + [False]


def test_folds_are_stratified_and_do_not_move_when_images_are_added() -> None:
    names = ["a"] * 50 + ["b"] * 23
    found = folds(_images(names), most=5, seed=1)
    for name in "ab":
        sizes = Counter(found[[own == name for own in names]].tolist())
        assert max(sizes.values()) - min(sizes.values()) <= 1
    assert (found != folds(_images(names), most=5, seed=2)).any()
    out = holdout(_images(names), share=0.2, seed=1)
    assert (out[:50].sum(), out[50:].sum()) == (10, 5)
    more = holdout(_images([*names, "b"]), share=0.2, seed=1)
    assert (more[:73] != out).sum() <= 2


def test_a_small_class_does_not_take_folds_from_the_others() -> None:
    found = folds(_images(["a"] * 3 + ["b"] * 60 + ["c"]), most=5, seed=0)
    assert len(set(found[:3])) == 3
    assert np.bincount(found[3:63]).tolist() == [12] * 5
    assert found[63] == NEVER


def test_a_group_is_on_one_side() -> None:
    groups = [f"patient {index // 4}" for index in range(80)]
    images = _images(["a", "b"] * 40, groups)
    found = folds(images, most=5, seed=0)
    out = holdout(images, share=0.2, seed=0)
    for group in set(groups):
        members = [index for index, own in enumerate(groups) if own == group]
        assert len(set(found[members].tolist())) == 1
        assert len(set(out[members].tolist())) == 1


def test_figures_are_scikit_learns() -> None:
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 4, 300)
    logits = generator.normal(size=(300, 4)) * 2
    logits[np.arange(300), labels] += 1
    figures = evaluation.evaluate("val", logits, labels, list("abcd"), temperature=1.7, chose="nothing")
    said, shares = logits.argmax(1), evaluation.probabilities(logits, 1.7)
    assert figures.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, said), abs=1e-6)
    assert figures.macro_f1 == pytest.approx(f1_score(labels, said, average="macro"), abs=1e-6)
    assert figures.log_loss == pytest.approx(log_loss(labels, shares), abs=1e-6)
    for index, one in enumerate(figures.classes):
        mine = {"labels": [index], "average": "macro"}
        assert one.precision == pytest.approx(precision_score(labels, said, **mine), abs=1e-6)
        assert one.recall == pytest.approx(recall_score(labels, said, **mine), abs=1e-6)
    assert sum(number for _, _, number in figures.confusion) == figures.n == 300
    assert figures.accuracy == pytest.approx((said == labels).mean(), abs=1e-6)


def test_the_interval_is_wilsons() -> None:
    assert wilson(143, 153) == pytest.approx([0.8839, 0.9641], abs=1e-4)
    assert wilson(10, 10) == pytest.approx([0.7225, 1.0], abs=1e-4)
    assert wilson(0, 10) == pytest.approx([0.0, 0.2775], abs=1e-4)


def test_the_temperature_undoes_overconfidence() -> None:
    generator = np.random.default_rng(0)
    honest = generator.normal(size=(4000, 3)) * 1.5
    shares = evaluation.probabilities(honest)
    labels = (shares.cumsum(1) > generator.random((4000, 1))).argmax(1)
    assert evaluation.fit_temperature(honest * 3, labels) == pytest.approx(3, rel=0.1)
    wrong, right = (evaluation.probabilities(honest * 3, t) for t in (1.0, 3.0))
    assert evaluation.calibration_error(right, labels) < 0.03 < evaluation.calibration_error(wrong, labels)


def test_a_few_images_that_are_all_right_ask_for_no_certainty() -> None:
    """4 of 4 right, of two classes: sure to 5 in 6, however far apart the logits are."""
    logits, labels = np.array([[2.0, -2.0], [-2.0, 2.0]] * 2), np.array([0, 1, 0, 1])
    sure = evaluation.probabilities(logits, evaluation.fit_temperature(logits, labels))
    assert sure.max(1) == pytest.approx(5 / 6, rel=1e-3)


def test_a_head_without_bias_has_none() -> None:
    features, labels = _data(120, 20, 3)
    fold_of = folds(_images([str(label) for label in labels]), most=5, seed=0)
    centred = features - features.mean(0)
    head = logistic.fit(centred, labels, fold_of, PENALTIES, classes=3, bias=False)
    assert not head.bias.any()
    assert head.accuracy > 0.5  # guessing: 0.33
