"""Every classification network of torchvision: loaded whole or refused, frozen, its head found and replaced."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from remote.contract.models import MODELS
from remote.errors import CannotRun
from remote.networks import backbones, stages, weights
from remote.sources import torchvision
from remote.torchvision_guard import models
from tests.shared_data import shared

# One of each family; the others differ in depth and width only.
FAMILIES = [
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "googlenet",
    "inception_v3",
    "maxvit_t",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "regnet_y_400mf",
    "resnet18",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "swin_t",
    "vit_b_32",
]


@pytest.mark.parametrize("model", FAMILIES)
def test_the_head_is_what_turns_features_into_logits(model: str) -> None:
    size = {"maxvit_t": 224, "vit_b_32": 224, "inception_v3": 80}.get(model, 64)
    network = backbones.build(model, 7, seed=3)
    found = stages.stages(network, 299 if model == "inception_v3" else 224)
    assert sum(stage.parameters for stage in found) == backbones.parameter_count(network.module)
    assert (found[-1].name, found[-1].shape) == ("head", (7,))
    backbones.freeze(network.module)
    weight = torch.randn(5, network.feature_count, generator=torch.Generator().manual_seed(0))
    bias = torch.randn(5, generator=torch.Generator().manual_seed(1)) * network.has_bias
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        backbones.remove_head(network)
        features = network.module(images).flatten(1)
        network.set_head(backbones.new_head(network, weight, bias))
        shares = network.module(images).softmax(1)
    assert features.shape == (2, network.feature_count)
    assert torch.allclose(shares, (features @ weight.T + bias).softmax(1), atol=1e-5)
    with torch.device("cpu" if model == "regnet_y_400mf" else "meta"):  # its builder computes with tensors
        plain = models.get_model(model, num_classes=5, **torchvision.arguments(model))
    state = plain.state_dict()
    given = network.module.state_dict()
    assert {name: tensor.shape for name, tensor in state.items()} == {n: t.shape for n, t in given.items()}


def test_every_model_has_a_head_of_a_known_kind() -> None:
    for model in MODELS:
        path = torchvision.head_path(model)
        family = max((name for name in torchvision.HEADS if model.startswith(name)), key=len)
        assert path == torchvision.HEADS[family]
    assert {max((n for n in torchvision.HEADS if m.startswith(n)), key=len) for m in MODELS} == set(
        torchvision.HEADS
    )


def test_new_weights_are_a_function_of_the_seed_alone() -> None:
    before = torch.random.get_rng_state()
    one, two, three = (
        backbones.fingerprint(backbones.build("resnet18", 2, seed=s).module) for s in (1, 1, 2)
    )
    assert one == two != three
    assert torch.equal(before, torch.random.get_rng_state())


def test_frozen_means_no_gradient_and_no_moving_statistics() -> None:
    network = backbones.build("mobilenet_v2", 2, seed=0)
    backbones.freeze(network.module)
    before = backbones.fingerprint(network.module)
    network.module(torch.rand(2, 3, 32, 32))
    after = backbones.fingerprint(network.module)
    assert before == after
    assert not any(parameter.requires_grad for parameter in network.module.parameters())
    with torch.no_grad():
        next(network.module.parameters()).view(-1)[0] += 1e-7
    assert backbones.equal_tensors(before, backbones.fingerprint(network.module)) == len(before) - 1


@pytest.mark.parametrize("model", ["squeezenet1_1", "mobilenet_v2"])
def test_real_weights_load_whole(model: str) -> None:
    path = next(shared("weights").glob(f"{model}*.pth"))
    network = backbones.build(model, 5, seed=0)
    head = backbones.fingerprint(network.head)
    weights.load(network, weights.read(path, sha256=weights.file_sha256(path)).tensors, with_head=False)
    assert backbones.fingerprint(network.head) == head
    stored = torch.load(path, weights_only=True)
    loaded = network.module.state_dict()
    assert all(torch.equal(loaded[n], t) for n, t in stored.items() if not n.startswith(network.head_path))


@pytest.mark.parametrize("model", ["mnasnet0_5", "densenet121", "googlenet", "resnet18"])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_file_of_torchvision_loads_whole(model: str, suffix: str, tmp_path: Path) -> None:
    extra = {"init_weights": False} if model == "googlenet" else {}
    original = models.get_model(model, num_classes=9, **extra)
    state = original.state_dict()
    if model == "densenet121":  # as the files of torchvision name them
        state = {
            name.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): t for name, t in state.items()
        }
    path = tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        torch.save(state, path)
    else:
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    network = backbones.build(model, 3, seed=1)
    weights.load(network, weights.read(path).tensors, with_head=False)
    original.eval()
    backbones.freeze(network.module)
    backbones.remove_head(network)
    captured: list[torch.Tensor] = []
    head = original.get_submodule(network.head_path)
    head.register_forward_pre_hook(lambda _, given: captured.append(given[0]))
    with torch.inference_mode():
        images = torch.rand(1, 3, 64, 64)
        original.transform_input = True
        original(images)
        assert torch.allclose(network.module(images), captured[0].flatten(1), atol=1e-5)


def _refused(path: Path, model: str = "squeezenet1_1", sha256: str | None = None) -> str:
    with pytest.raises(CannotRun) as caught:
        weights.load(
            backbones.build(model, 2, seed=0), weights.read(path, sha256=sha256).tensors, with_head=False
        )
    return str(caught.value)


def test_a_training_checkpoint_is_refused_with_what_to_do() -> None:
    text = _refused(shared("weights/resnet20-12fca82f.th"))
    assert "a training checkpoint with" in text
    assert "torch.save(checkpoint['state_dict'], FILE)" in text


def test_weights_of_another_network_are_refused_by_name() -> None:
    text = _refused(next(shared("weights").glob("mobilenet_v2*")))
    assert "not those of a squeezenet1_1" in text
    assert "--model says which" in text and len(text) < 300
    assert "missing: features.0.weight" in text
    assert "unexpected: features.0.0.weight" in text


def test_missing_unexpected_and_mismatched_tensors_are_named(tmp_path: Path) -> None:
    state = dict(backbones.build("squeezenet1_1", 2, seed=0).module.state_dict())
    state["features.0.weight"] = torch.zeros(64, 3, 5, 5)
    state["extra"] = state.pop("features.0.bias")
    save_file(state, tmp_path / "x")
    text = _refused(tmp_path / "x")
    assert "1 missing: features.0.bias; 1 unexpected: extra" in text
    assert "1 of another shape: features.0.weight (64×3×5×5, not 64×3×3×3)" in text
    save_file({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "y")
    assert "take that off" in _refused(tmp_path / "y")


class _Evil:
    def __reduce__(self) -> Any:
        return print, ("code ran",)


def test_code_in_a_pickle_never_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(_Evil()))
    torch.save({"weight": _Evil()}, tmp_path / "evil2.pth")
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    for name in ("evil.pth", "evil2.pth", "module.pth"):
        assert "without running code" in _refused(tmp_path / name)
    assert capsys.readouterr().out == ""


def test_what_is_no_weights_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"not weights")
    assert "can't be read" in _refused(path)
    assert "have the hash" in _refused(path, sha256="0" * 64)
    save_file({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:-8])
    assert "not a whole safetensors file" in _refused(path)
    torch.save(torch.zeros(3), path)
    assert "not a state dict" in _refused(path)
    assert "not on this machine" in _refused(tmp_path / "missing", sha256="0" * 64)


def test_the_stages_are_those_that_people_name() -> None:
    network = backbones.build("resnet18", 3, seed=0)
    backbones.freeze(network.module)
    network.head.requires_grad_(True)
    found = stages.stages(network, 224)
    assert [stage.name for stage in found] == ["stem", "layer1", "layer2", "layer3", "layer4", "head"]
    assert [stage.shape for stage in found][:2] == [(64, 56, 56), (64, 56, 56)]
    assert [stage.frozen for stage in found] == [True] * 5 + [False]
    assert sum(stage.parameters for stage in found[:-1]) == 11_176_512


def test_images_too_small_for_a_network_are_refused() -> None:
    with pytest.raises(CannotRun, match="can't take images of 16 × 16"):
        stages.stages(backbones.build("alexnet", 3, seed=0), 16)


def test_a_saved_model_is_read_back(tmp_path: Path) -> None:
    network = backbones.build("squeezenet1_1", 3, seed=0)
    save_file(
        dict(network.module.state_dict()), tmp_path / "m", metadata={"tlvm": '{"model": "squeezenet1_1"}'}
    )
    file = weights.read(tmp_path / "m")
    assert file.metadata == {"model": "squeezenet1_1"}
    other = backbones.build("squeezenet1_1", 3, seed=1)
    weights.load(other, file.tensors, with_head=True)
    assert backbones.fingerprint(other.module) == backbones.fingerprint(network.module)
    assert set(load_file(tmp_path / "m")) == set(other.module.state_dict())
