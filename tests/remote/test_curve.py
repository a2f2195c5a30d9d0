"""The stage that is chosen: the simplest that held-out images cannot tell from the best."""

from __future__ import annotations

import numpy as np
import pytest

from remote.contract.metrics import Depth
from remote.heads import curve
from remote.heads.curve import Choice, Judged
from remote.measures.evaluation import Floats


def _judged(name: str, features: int, losses: Floats) -> Judged:
    depth = Depth(name, [name], features, len(losses), 0.9, 0.02, float(losses.mean()))
    return Judged(Choice(name, (name,), (name,)), depth, losses)


@pytest.fixture(scope="module")
def losses() -> Floats:
    return np.random.default_rng(0).exponential(0.4, 400)


def test_of_equals_the_one_with_the_fewest_features(
    losses: Floats,
) -> None:
    shuffled = losses + np.random.default_rng(1).normal(0, 0.3, 400)
    shuffled += losses.mean() - shuffled.mean()
    choices = [_judged("all", 1920, losses), _judged("one", 128, shuffled + 0.005)]
    assert curve.simplest(choices).choice.name == "one"  # 0.005 ± 0.015 behind


def test_what_is_behind_on_the_same_images_is_not_taken(
    losses: Floats,
) -> None:
    choices = [_judged("one", 128, losses + 0.005), _judged("all", 1920, losses)]
    assert curve.simplest(choices).choice.name == "all"  # by little, but on every image


def test_one_alone_is_chosen(losses: Floats) -> None:
    assert curve.simplest([_judged("one", 128, losses)]).choice.name == "one"
