"""What metrics.json says of images: groups count as groups, doubtful labels are found, another prevalence changes the figures."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from remote.contract import document
from remote.contract.dataset_manifest import Image
from remote.contract.intervals import wilson
from remote.contract.metrics import DOUBTFUL_MAX, MISTAKES_MAX, Evaluation
from remote.measures.evaluation import Floats, Labels, calibration_error, evaluate, probabilities
from tests.documents import image

CLASSES = ["ants", "bees", "wasps"]


def images(labels: Labels, classes: list[str], groups: list[str] | None = None) -> list[Image]:
    return [
        image(f"val/{classes[label]}/{row}.jpg", group=groups[row] if groups else None)
        for row, label in enumerate(labels)
    ]


def honest(n: int, seed: int = 0, classes: int = 3) -> tuple[Floats, Labels]:
    """Logits whose probabilities are true, and what the images are."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(n, classes)) * 2
    shares = probabilities(logits)
    return logits, (shares.cumsum(1) > generator.random((n, 1))).argmax(1).astype(np.int64)


def figures(logits: Floats, labels: Labels, **more: object) -> Evaluation:
    given = {"temperature": 1.0, "chose": "nothing", "images": images(labels, CLASSES)} | more
    return evaluate("val", logits, labels, CLASSES, **given)  # type: ignore[arg-type]


def test_flipped_labels_are_found_and_none_is_dropped() -> None:
    generator = np.random.default_rng(1)
    truth = generator.integers(0, 3, 300)
    logits = generator.normal(size=(300, 3)) * 0.5
    logits[np.arange(300), truth] += 5
    labels, flipped = truth.copy(), generator.choice(300, 15, replace=False)
    labels[flipped] = (labels[flipped] + 1) % 3
    found = figures(logits, labels)
    named = {int(one.path.split("/")[-1].removesuffix(".jpg")) for one in found.doubtful}
    assert named == set(flipped.tolist())
    assert found.doubtful_labels == 15 and found.n == 300
    assert all(one.label_probability < one.probability for one in found.doubtful)


def test_honest_doubts_are_few_and_mistakes_come_surest_first() -> None:
    logits, labels = honest(2000)
    found = figures(logits, labels)
    wrong = found.n - found.correct
    assert len(found.mistakes) == MISTAKES_MAX
    sure = [one.probability for one in found.mistakes]
    assert sure == sorted(sure, reverse=True)
    assert sure[0] == pytest.approx(
        max(
            share.max()
            for share, label in zip(probabilities(logits), labels, strict=True)
            if share.argmax() != label
        ),
        abs=1e-6,
    )
    assert 0 < found.doubtful_labels < wrong and len(found.doubtful) <= DOUBTFUL_MAX


def test_groups_widen_the_interval() -> None:
    logits, labels = honest(400)
    right = logits.argmax(1) == labels
    order = np.argsort(right)  # whole groups are right, whole groups are wrong
    groups = [""] * 400
    for place, row in enumerate(order):
        groups[row] = f"patient {place // 20}"
    alone = figures(logits, labels)
    found = figures(logits, labels, images=images(labels, CLASSES, groups))
    assert (alone.groups, found.groups) == (None, 20)
    assert alone.accuracy_interval == wilson(alone.correct, 400)
    low, high = found.accuracy_interval
    assert high - low > 3 * (alone.accuracy_interval[1] - alone.accuracy_interval[0])


def test_a_prior_weighs_classes_not_images() -> None:
    logits, labels = honest(20_000, seed=2)
    kept = np.flatnonzero((labels != 0) | (np.arange(20_000) % 10 == 0))  # a tenth of the ants
    natural = np.bincount(labels) / 20_000
    skewed = figures(logits[kept], labels[kept])
    found = figures(logits[kept], labels[kept], prior=natural.tolist())
    assert found.calibration_error < 0.02
    assert found.log_loss == pytest.approx(figures(logits, labels).log_loss, abs=0.02)
    assert found.accuracy == skewed.accuracy


def test_weights_of_one_change_nothing() -> None:
    logits, labels = honest(500)
    shares = probabilities(logits)
    assert calibration_error(shares, labels, np.full(500, 1.0)) == calibration_error(shares, labels)


def test_a_thousand_classes_stay_small() -> None:
    classes = [f"c{number:04}" for number in range(1000)]
    logits, labels = honest(3000, classes=1000)
    found = evaluate(
        "val", logits, labels, classes, temperature=1.0, chose="nothing", images=images(labels, classes)
    )
    text = json.dumps(dataclasses.asdict(found))
    assert len(text) < 600_000
    assert sum(number for _, _, number in found.confusion) == 3000
    assert document.decode(Evaluation, text, what="it") == found


def test_one_image() -> None:
    found = figures(np.array([[1.0, 2.0, 0.0]]), np.array([0]))
    assert (found.n, found.correct, len(found.mistakes)) == (1, 0, 1)
