"""The stage that is chosen: the simplest that held-out images cannot tell from the best; and the picture of all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree

import numpy as np
import pytest

from remote.contract.metrics import Depth
from remote.heads import curve
from remote.heads.curve import Choice, Judged
from remote.measures.evaluation import Floats

IMAGES = 400
FOLDS = np.arange(IMAGES) % 5


def _judged(name: str, features: int, losses: Floats, stages: Sequence[str] = ("one",)) -> Judged:
    depth = Depth(name, list(stages), features, len(losses), 0.9, 0.02, float(losses.mean()))
    return Judged(Choice(name, tuple(stages), (name,)), depth, losses, FOLDS)


@pytest.fixture(scope="module")
def losses() -> Floats:
    return np.random.default_rng(0).exponential(0.4, IMAGES)


def test_of_equals_the_one_with_the_fewest_features(losses: Floats) -> None:
    shuffled = losses + np.random.default_rng(1).normal(0, 0.3, IMAGES)
    shuffled += losses.mean() - shuffled.mean()
    choices = [_judged("all", 1920, losses), _judged("one", 128, shuffled + 0.005)]
    assert curve.simplest(choices).choice.name == "one"  # 0.005 ± 0.015 behind


def test_what_is_behind_on_the_same_images_is_not_taken(losses: Floats) -> None:
    choices = [_judged("one", 128, losses + 0.005), _judged("all", 1920, losses)]
    assert curve.simplest(choices).choice.name == "all"  # by little, but on every image


def test_what_nobody_would_notice_decides_nothing(losses: Floats) -> None:
    """A hundred thousandth of a nat on every image has no standard error, and is nothing."""
    choices = [_judged("one", 128, losses + 1e-5), _judged("all", 1920, losses, ("one", "two"))]
    assert curve.simplest(choices).choice.name == "one"


def test_the_error_is_that_of_the_folds_where_their_classifiers_differ(losses: Floats) -> None:
    """Behind in every image of three folds, ahead in all of two: 400 images seem to agree, five classifiers do not."""
    behind = np.where(FOLDS < 3, 0.1, -0.09)
    by_image = behind.std() / np.sqrt(IMAGES)
    by_fold = np.std([0.1, 0.1, 0.1, -0.09, -0.09], ddof=1) / np.sqrt(5)
    assert by_image < behind.mean() < by_fold
    choices = [_judged("one", 128, losses + behind), _judged("all", 1920, losses, ("one", "two"))]
    assert curve.simplest(choices).choice.name == "one"


def test_several_stages_are_taken_only_where_they_win_by_more_than_an_error(losses: Floats) -> None:
    """Whatever they are called and however many features they have: one stage is simpler."""
    noise = np.random.default_rng(2).normal(0, 0.3, IMAGES)
    noise -= noise.mean()
    together = _judged("a … b", 96, losses, ("a", "b"))
    assert curve.simplest([_judged("c", 512, losses + noise + 0.005, ("c",)), together]).choice.name == "c"
    assert curve.simplest([_judged("c", 512, losses + noise + 0.1, ("c",)), together]).choice.name == "a … b"


def test_one_alone_is_chosen(losses: Floats) -> None:
    assert curve.simplest([_judged("one", 128, losses)]).choice.name == "one"


def test_the_picture_shows_each_stage_all_up_to_each_and_which_was_chosen() -> None:
    def depth(name: str, stages: Sequence[str], accuracy: float) -> Depth:
        return Depth(name, list(stages), 10, 100, accuracy, 0.03, 0.5)

    alone = [
        depth("stem", ["stem"], 0.61),
        depth("layer<1>", ["layer<1>"], 0.72),
        depth("features", [], 0.83),
    ]
    both = [depth("stem … layer<1>", ["stem", "layer<1>"], 0.94)]
    drawn = curve.picture(alone, both, both[0].name, title="a & b")
    root = ElementTree.fromstring(drawn)
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert {"0.610", "0.720", "0.830", "0.940", "chosen: stem … layer<1>", "a & b"} <= set(texts)
    (red,) = re.findall(r'cx="([0-9.]+)" cy="(?!46")[0-9.]+" r="5" fill="#cc3311"', drawn)
    (of_stage,) = re.findall(r'<text x="([0-9.]+)"[^>]*rotate[^>]*>layer&lt;1&gt;', drawn)
    assert float(red) == pytest.approx(float(of_stage) + 18)  # beside the last of its stages
    assert drawn.count("<polyline") == 2
    single = curve.picture(alone, [], "features", title="t")
    assert single.count("<polyline") == 1
    for one in (drawn, single):  # what the colours and the upright lines are stands in the picture
        assert "one stage alone" in one and "95 % intervals" in one
    assert "used: features" in single and "all stages" not in single
