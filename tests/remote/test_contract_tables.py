"""The tables of the contract say what the configuration files and torchvision say."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from remote.contract import layout, models, scenarios
from remote.contract.document import ContractError
from remote.contract.wording import count, listed, listed_in_lines

CONFIGS = Path(__file__).parents[2] / "configs" / "scenarios"


@pytest.mark.parametrize("name", scenarios.SCENARIOS)
def test_the_configuration_file_gives_the_defaults(name: str) -> None:
    text = (CONFIGS / f"{name}.toml").read_text(encoding="utf-8")
    assert text.startswith(f"# tlvm run {name}\n")
    values = tomllib.loads(text)
    assert list(values) == [parameter.name for parameter in scenarios.scenario(name).parameters]
    assert scenarios.resolve(name, values) == scenarios.resolve(name, {}) == values
    assert all(type(values[p.name]) is p.kind for p in scenarios.scenario(name).parameters)


def test_every_configuration_file_has_a_scenario() -> None:
    assert {path.stem for path in CONFIGS.glob("*.toml")} == set(scenarios.SCENARIOS)


def test_text_from_flags_becomes_the_parameters_type() -> None:
    values = scenarios.resolve("from-scratch", {"epochs": "3", "learning_rate": "1e-2", "warmup_epochs": 2})
    assert (values["epochs"], values["learning_rate"], values["warmup_epochs"]) == (3, 0.01, 2.0)


@pytest.mark.parametrize(
    ("name", "overrides", "says"),
    [
        ("fixed-extracter", {}, "Did you mean 'fixed-extractor'"),
        ("zzz", {}, "There are: fine-tune-all, fine-tune-top, fixed-extractor, from-scratch, initial-layers"),
        ("fixed-extractor", {"bach_size": 3}, "Did you mean 'batch_size'"),
        ("fixed-extractor", {"folds": 1}, "folds is '1', not in the range 2 to 20"),
        ("fixed-extractor", {"folds": 2.5}, "folds is '2.5', not a whole number"),
        ("fixed-extractor", {"folds": "many"}, "not a whole number"),
        ("fixed-extractor", {"folds": True}, "not a whole number"),
        ("fixed-extractor", {"penalty_max": "nan"}, "not in the range"),
        ("fixed-extractor", {"penalty_max": None}, "not a number"),
        ("fixed-extractor", {"image_size": 1}, "image_size is '1', not in the range 0, or 16 to 1024"),
        ("from-scratch", {"augmentation": "much"}, "not none, light or strong"),
        ("from-scratch", {"augmentation": 3}, "not text"),
    ],
)
def test_what_cannot_be_is_refused_by_name(name: str, overrides: dict[str, object], says: str) -> None:
    with pytest.raises(ContractError, match=says):
        scenarios.resolve(name, overrides)


def test_the_models_are_torchvisions() -> None:
    from remote.torchvision_guard import models as torchvision_models

    names = torchvision_models.list_models(module=torchvision_models)
    assert list(models.MODELS) == sorted(names)
    for name in names:
        entry = models.model_file(name)
        weights = torchvision_models.get_model_weights(name)
        names_of_sets = [member.name for member in weights]
        expected = "IMAGENET1K_V1" if "IMAGENET1K_V1" in names_of_sets else names_of_sets[0]
        assert (entry.weights, entry.url) == (expected, weights[expected].url)
        assert entry.url.endswith("/" + entry.file)
        assert layout.inside(entry.file) == entry.file
        assert f"-{entry.sha256}.pth" in entry.file


def test_the_key_of_a_manifest_tells_its_dataset_and_version() -> None:
    version = "0" * 64
    key = layout.manifest_key("trees", version)
    assert layout.is_manifest_key(key)
    assert layout.manifest_of(key) == ("trees", version)
    for other in (layout.head_key("trees"), f"{key}.part", f"{layout.DATASETS}a/{key}"):
        assert not layout.is_manifest_key(other)
        with pytest.raises(ContractError, match="not the key of a manifest"):
            layout.manifest_of(other)


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(ContractError, match="resnet19"):
        models.model_file("resnet19")


@pytest.mark.parametrize(
    ("number", "noun", "written"),
    [(0, ["image"], "0 images"), (1, ["image"], "1 image"), (1200, ["copy", "copies"], "1,200 copies")],
)
def test_one_image_is_no_plural(number: int, noun: list[str], written: str) -> None:
    assert count(number, *noun) == written


def test_a_long_list_says_how_many_are_left() -> None:
    assert listed(["ants", "bees"], 2) == "ants, bees"
    assert listed([1, 2, 3, 4, 5], 2, lambda number: f"#{number}") == "#1, #2 and 3 more"
    assert listed_in_lines(["ants", "bees"], 2) == "ants\nbees"
    assert listed_in_lines(["ants", "bees", "cats"], 2, str.upper) == "ANTS\nBEES\nand 1 more"
