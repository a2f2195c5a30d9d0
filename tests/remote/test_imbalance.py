"""Unequal classes: said, and past 3 to 1 balanced; the probabilities say for which shares they hold."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from remote import train
from remote.contract import document
from remote.contract.metrics import Metrics
from tests.remote import fixtures

COUNTS = {"common": 60, "rare": 10}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Metrics]:
    """The same overlapping classes, 60 to 10, with `balance` off, auto and on."""
    base = tmp_path_factory.mktemp("unequal")
    generator = np.random.default_rng(5)
    for split in ("train", "val"):
        for name, count in COUNTS.items():
            folder = base / "images" / split / name
            folder.mkdir(parents=True)
            for index in range(count if split == "train" else 12):
                level = generator.normal(120 if name == "rare" else 90, 14)
                pixels = generator.normal(level, 20, (32, 32, 3)).clip(0, 255).astype(np.uint8)
                Pillow.fromarray(pixels).save(folder / f"{index}.png")
    machine = fixtures.home(base / "tlvm")
    dataset = fixtures.pack_folder(machine, base / "images")
    found = {}
    for tail, balance in (("aaaa", "off"), ("bbbb", "auto"), ("cccc", "on")):
        run = fixtures.put_run(machine, dataset, tail=tail, image_size=32, balance=balance)
        assert train.main(run.spec) == 0
        found[balance] = document.decode(Metrics, (run.result / "metrics.json").read_bytes(), what="metrics")
    return found


def test_past_three_to_one_it_is_balanced_as_far_as_held_out_images_find_worth_it(
    results: dict[str, Metrics],
) -> None:
    assert results["off"].imbalance == 6.0
    assert results["off"].prior is None and results["on"].prior == [0.5, 0.5]
    told = results["auto"].training["balance"]
    judged = {one["strength"]: one for one in told["held_out"]}
    assert 0 < told["strength"] <= 1
    chosen = judged[told["strength"]]
    assert chosen["accuracy"] >= judged[0.0]["accuracy"] - chosen["accuracy_error"]
    assert chosen["balanced_accuracy"] > judged[0.0]["balanced_accuracy"]
    common, rare = results["auto"].prior or [0, 0]
    assert rare / common == pytest.approx((10 / 60) ** (1 - told["strength"]))


def test_what_was_judged_inside_train_is_what_the_result_says(results: dict[str, Metrics]) -> None:
    for name in ("auto", "on"):
        told, held_out = results[name].training["balance"], results[name].evaluations[0]
        chosen = next(one for one in told["held_out"] if one["strength"] == told["strength"])
        assert held_out.accuracy == pytest.approx(chosen["accuracy"], abs=1e-6)
        assert held_out.balanced_accuracy == pytest.approx(chosen["balanced_accuracy"], abs=1e-6)


def test_rare_classes_are_said_more_often(results: dict[str, Metrics]) -> None:
    off, auto = results["off"].result, results["auto"].result
    assert (auto.classes[1].recall or 0) > (off.classes[1].recall or 0)
    assert auto.balanced_accuracy >= off.balanced_accuracy


def test_the_figures_inside_train_are_balanced_too(results: dict[str, Metrics]) -> None:
    off, auto = (results[name].evaluations[0] for name in ("off", "auto"))
    assert auto.split == "train, held out"
    assert sum(n for _, said, n in auto.confusion if said == 1) > sum(
        n for _, said, n in off.confusion if said == 1
    )


def test_equal_classes_are_left_alone(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    for split, name in (("train", "a"), ("train", "b"), ("val", "a"), ("val", "b")):
        folder = tmp_path / "images" / split / name
        folder.mkdir(parents=True)
        for index in range(3):  # two classes with three images each
            level = 60 if name == "a" else 160
            pixels = generator.normal(level, 20, (32, 32, 3)).clip(0, 255).astype(np.uint8)
            Pillow.fromarray(pixels).save(folder / f"{index}.png")
    machine = fixtures.home(tmp_path / "tlvm")
    run = fixtures.put_run(machine, fixtures.pack_folder(machine, tmp_path / "images"), image_size=32)
    assert train.main(run.spec) == 0
    found = document.decode(Metrics, (run.result / "metrics.json").read_bytes(), what="metrics")
    assert found.prior is None and found.train_images == [3, 3] and found.imbalance == 1.0
    assert dataclasses.replace(found, train_images=[]).imbalance == 1.0
