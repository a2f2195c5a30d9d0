"""The network stays as it is: features at every depth, kept for later runs; a classifier on stages; a network cut in two."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from safetensors.torch import load_file

from remote import predict, train
from remote.contract import document
from remote.contract.layout import MachineHome
from remote.contract.metrics import Metrics
from remote.errors import CannotRun
from remote.features import extraction, views
from remote.features.feature_cache import FeatureCache, key_of
from remote.networks import backbones, depths
from remote.training import cut
from tests.remote import fixtures

_FAMILIES = ("efficientnet_b0", "mobilenet_v2", "mobilenet_v3_small", "resnet18", "squeezenet1_0", "vgg11_bn")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes that differ by the direction of their stripes: what a first layer sees."""
    folder = tmp_path_factory.mktemp("stripes")
    random = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 6)):
        for name in ("across", "upright"):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                values = random.integers(0, 60, (64, 64, 3)).astype(np.uint8)
                lines = np.arange(64) // random.integers(2, 5) % 2 * 150
                values += (lines[:, None, None] if name == "across" else lines[None, :, None]).astype(
                    np.uint8
                )
                Pillow.fromarray(values).save(folder / split / name / f"{number}.png")
    return folder


def _run(machine: MachineHome, photos: Path, scenario: str, tail: str, **parameters: Any) -> Path:
    dataset = fixtures.pack_folder(machine, photos)
    folder = fixtures.put_run(
        machine, dataset, scenario=scenario, tail=tail, image_size=64, batch_size=8, **parameters
    )
    assert train.main(folder.spec) == train.DONE, folder.events.read_text()
    return folder.result


def _metrics(result: Path) -> Metrics:
    return document.decode(Metrics, (result / "metrics.json").read_bytes(), what="metrics.json")


@pytest.mark.parametrize("model", _FAMILIES)
def test_the_stages_of_every_family_are_named(model: str) -> None:
    network = backbones.build(model, 2, seed=0)
    backbones.freeze(network.module)
    ends = depths.stage_ends(network)
    with torch.inference_mode(), depths.watched(network, ends) as blocks:
        network.module(torch.rand(2, 3, 64, 64))
    assert len(ends) >= 4
    assert list(blocks) == [
        block for end in ends for block in (depths.mean_of(end), depths.deviation_of(end))
    ]
    assert not any(block.isnan().any() for block in blocks.values())


def test_a_module_that_is_not_there_is_named() -> None:
    network = backbones.build("resnet18", 2, seed=0)
    assert depths.stage_ends(network, "conv1, layer2.0") == ["conv1", "layer2.0"]
    with pytest.raises(CannotRun, match=r"no module 'layer9'.*conv1, bn1"):
        depths.stage_ends(network, "layer9")


def test_pooling_is_mean_and_deviation_over_positions() -> None:
    maps = torch.rand(2, 3, 7, 5)
    mean, deviation = depths.pooled(maps)
    torch.testing.assert_close(mean, maps.mean((2, 3)))
    torch.testing.assert_close(deviation, maps.std((2, 3), correction=0))
    assert depths.pooled(torch.rand(2, 9, 4))[0].shape == (2, 4)  # tokens


def test_a_second_scenario_decodes_and_forwards_nothing(tmp_path: Path, photos: Path) -> None:
    machine = fixtures.home(tmp_path / "home")
    first = _metrics(_run(machine, photos, "fixed-extractor", "aaaa"))
    second = _metrics(_run(machine, photos, "initial-layers", "bbbb"))
    assert (first.counters.decoded, first.counters.forwarded) == (36, 36)
    assert (second.counters.decoded, second.counters.forwarded) == (0, 0)
    assert [depth.name for depth in first.by_depth] == [
        "features.2",
        "features.5",
        "features.8",
        "features.12",
        "features",
    ]


def test_found_features_give_the_same_model_to_the_bit(tmp_path: Path, photos: Path) -> None:
    machine = fixtures.home(tmp_path / "home")
    results = [
        _run(machine, photos, "initial-layers", tail, cache_gb=gb)
        for tail, gb in (("aaaa", 1.0), ("bbbb", 1.0), ("cccc", 0.0))
    ]
    models = {(result / "model" / "model.safetensors").read_bytes() for result in results}
    assert len(models) == 1
    assert [_metrics(result).counters.forwarded for result in results] == [36, 0, 36]


def test_what_stripes_need_is_found_in_early_layers_and_predicts_alone(tmp_path: Path, photos: Path) -> None:
    machine = fixtures.home(tmp_path / "home")
    result = _run(machine, photos, "initial-layers", "aaaa")
    metrics = _metrics(result)
    assert metrics.result.accuracy >= 0.9
    assert metrics.frozen.equal == metrics.frozen.tensors > 0
    assert (
        metrics.trained_parameters
        == load_file(result / "model" / "model.safetensors")["stages_head.weight"].numel() + 2
    )
    assert ElementTree.parse(result / "by_depth.svg").getroot().tag.endswith("svg")
    rows = (result / "predictions.csv").read_text().splitlines()[1:]
    said = {row.split(",")[0]: float(row.split(",")[4]) for row in rows}
    for line in predict.predict(result / "model", [photos / path for path in said]):
        path = str(Path(line["path"]).relative_to(photos))
        assert line["probabilities"]["across"] == pytest.approx(said[path], abs=1e-4)


def test_the_readme_of_a_classifier_on_stages_says_the_truth(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = fixtures.home(tmp_path / "home")
    result = _run(machine, photos, "initial-layers", "aaaa")
    code = (result / "model" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    photo = photos / "val" / "across" / "0.png"
    monkeypatch.chdir(result / "model")
    Pillow.open(photo).save("photo.jpg", format="png")
    capsys.readouterr()
    exec(code, {})
    (ours,) = predict.predict(result / "model", [photo])
    theirs = json.loads(capsys.readouterr().out.replace("'", '"'))
    assert theirs == pytest.approx(ours["probabilities"], abs=1e-3)


def test_a_model_on_stages_is_a_beginning_for_other_runs(tmp_path: Path, photos: Path) -> None:
    machine = fixtures.home(tmp_path / "home")
    model = _run(machine, photos, "initial-layers", "aaaa") / "model" / "model.safetensors"
    weights = fixtures.put_weights(machine, model, source="run aaaa")
    assert _metrics(_run(machine, photos, "fixed-extractor", "bbbb", weights=weights)).weights == "run aaaa"


def test_views_of_an_image_are_learned_from_and_do_not_judge(tmp_path: Path, photos: Path) -> None:
    machine = fixtures.home(tmp_path / "home")
    metrics = _metrics(_run(machine, photos, "fixed-extractor", "aaaa", views=3))
    assert metrics.counters.forwarded == 36 + 2 * 24
    assert metrics.evaluations[0].n == 24
    names = [view.name for view in views.views(4, "horizontal")]
    assert names == ["centre", "centre flipped", "crop 1", "crop 2 flipped"]
    assert [view.flipped for view in views.views(4, "none")] == [False] * 4


def test_the_cache_knows_what_it_holds(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, key_of({"weights": "a"}), bytes_max=10**6)
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    cache.write(["x", "y", "z"], {"b": values})
    assert cache.find(["z", "q", "x"], {"b": 2}) == {"x", "z"}
    assert cache.find(["x"], {"b": 3}) == set()
    assert cache.find(["x"], {"b": 2, "c": 1}) == set()
    cache.find(["z", "x"], {"b": 2})
    into = np.zeros((2, 2), np.float32)
    assert cache.read(["z", "x"], {"b": into}, [0, 1]) == {"x", "z"}
    assert into.tolist() == [[4, 5], [0, 1]]
    assert key_of({"weights": "a"}) != key_of({"weights": "b"})


def test_a_damaged_file_of_the_cache_is_not_believed(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, "key", bytes_max=10**6)
    cache.write(["x"], {"b": np.ones((1, 4), np.float32)})
    (file,) = tmp_path.glob("key/*")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert cache.find(["x"], {"b": 4}) == {"x"}  # only its header was read
    assert cache.read(["x"], {"b": np.empty((1, 4), np.float32)}, [0]) == set()
    assert not file.exists()
    file.write_bytes(b"half")
    assert cache.find(["x"], {"b": 4}) == set()


def test_what_was_unused_for_longest_makes_room(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, "key", bytes_max=2_500)
    for number, name in enumerate("xyz"):
        cache.write([name], {"b": np.full((1, 200), number, np.float32)})
        for file in tmp_path.glob("key/*"):
            if file.stat().st_mtime > len("xyz"):  # the one just written
                os.utime(file, (number, number))
    assert cache.find(["x", "y", "z"], {"b": 200}) == {"y", "z"}
    assert FeatureCache(tmp_path, "key", bytes_max=0).find(["z"], {"b": 200}) == set()


def test_a_full_disk_ends_the_keeping_and_not_the_run(tmp_path: Path, photos: Path) -> None:
    machine = fixtures.home(tmp_path / "home")
    machine.cache.mkdir()
    (machine.cache / "features").write_text("a file where the folder should be")
    result = _run(machine, photos, "fixed-extractor", "aaaa")
    assert _metrics(result).counters.forwarded == 36
    assert "Features are not kept" in (result.parent / "events.jsonl").read_text()


def test_too_little_memory_for_a_batch_halves_it(tmp_path: Path, photos: Path) -> None:
    """Batches of 8, in a memory for 3 images: 2 pass at a time, and the features are those of the whole batch."""
    machine = fixtures.home(tmp_path / "home")
    whole = _metrics(_run(machine, photos, "fixed-extractor", "aaaa", cache_gb=0.0))

    def room_for_3(module: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        if isinstance(module, torch.nn.Conv2d) and given[0].device.type != "meta" and len(given[0]) > 3:
            raise torch.OutOfMemoryError(f"{len(given[0])} images")

    hook = torch.nn.modules.module.register_module_forward_pre_hook(room_for_3)
    try:
        result = _run(machine, photos, "fixed-extractor", "bbbb", cache_gb=0.0)
    finally:
        hook.remove()
    halved = _metrics(result)
    assert (halved.counters.decoded, halved.counters.forwarded) == (36, 36)
    assert halved.evaluations[0].accuracy == whole.evaluations[0].accuracy
    assert "2 images passed through the network at a time" in (result.parent / "events.jsonl").read_text()


@pytest.mark.parametrize("model", [name for name in _FAMILIES if name != "vgg11_bn"])
def test_a_network_in_two_parts_is_the_network(model: str) -> None:
    network = backbones.build(model, 2, seed=0)
    where = cut.cut(network, "")
    inputs = torch.rand(4, 3, 64, 64)
    network.module.eval()
    upper = cut.upper(network, where, inputs)
    assert upper is not None
    with torch.no_grad():
        assert torch.equal(network.module(inputs), upper(cut.below(network, where, inputs)))


def test_a_cut_that_cannot_be_is_refused() -> None:
    network = backbones.build("resnet18", 2, seed=0)
    with pytest.raises(CannotRun, match="no module 'layer9'"):
        cut.cut(network, "layer9")
    with pytest.raises(CannotRun, match="for all layers, run fine-tune-all"):
        cut.cut(network, "conv1")
    inside = cut.cut(network, "layer4.0.conv2")  # what goes around it would be lost
    network.module.eval()
    assert cut.upper(network, inside, torch.rand(2, 3, 64, 64)) is None


@pytest.mark.parametrize("activations_gb", [0.0, 1.0])
def test_only_the_top_is_tuned(tmp_path: Path, photos: Path, activations_gb: float) -> None:
    machine = fixtures.home(tmp_path / "home")
    result = _run(
        machine,
        photos,
        "fine-tune-top",
        "aaaa",
        model="resnet18",
        epochs=2,
        unfreeze_from="layer4",
        activations_gb=activations_gb,
    )
    metrics, tuned = _metrics(result), load_file(result / "model" / "model.safetensors")
    start = backbones.build("resnet18", 2, seed=0).module.state_dict()
    moved = {name for name, tensor in tuned.items() if not torch.equal(tensor, start[name])}
    assert all(name.startswith(("layer4.", "fc.")) for name in moved)
    assert metrics.frozen.equal == metrics.frozen.tensors == 90
    assert metrics.training["activations_kept"] is bool(activations_gb)
    assert len(metrics.by_depth) == 6


def test_row_names_do_not_depend_on_files(photos: Path, tmp_path: Path) -> None:
    dataset = fixtures.pack_folder(fixtures.home(tmp_path / "home"), photos)
    image = dataset.manifest.images[0]
    assert extraction.Row(image).name == f"{image.sha256}:0:centre"
