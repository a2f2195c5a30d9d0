"""A classifier on early stages: the layers behind them are not computed, and that changes no bit."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from remote.networks import backbones, depths, stage_head
from remote.networks.backbones import Network


def prepared(model: str, stages: Sequence[str]) -> Network:
    network = backbones.build(model, 2, seed=0)
    backbones.remove_head(network)
    backbones.freeze(network.module)
    with torch.inference_mode(), depths.watched(network, stages) as blocks:
        network.module(torch.rand(1, 3, 64, 64))
    width = sum(block.shape[1] for block in blocks.values())
    stage_head.attach(network, torch.rand(2, width), torch.rand(2))
    return network


def in_full(network: Network, stages: Sequence[str], inputs: torch.Tensor) -> torch.Tensor:
    with depths.watched(network, stages) as blocks:
        network.module(inputs)
    wanted = depths.blocks_of(stages, deviations=True)
    result: torch.Tensor = network.module.get_submodule("stages_head")(
        torch.cat([blocks[name] for name in wanted], dim=1)
    )
    return result


@pytest.mark.parametrize(
    ("stages", "last_passes"),
    [
        (["layer1"], False),
        (["layer2", "maxpool"], False),  # named in another order than they come in
        (["layer1", "layer4"], True),
        (["layer1.0.relu"], True),  # comes twice in a pass, and the second time counts
    ],
)
def test_layers_behind_the_last_stage_are_not_computed(stages: list[str], last_passes: bool) -> None:
    network, inputs = prepared("resnet18", stages), torch.rand(3, 3, 64, 64)
    with torch.inference_mode():
        wanted = in_full(network, stages, inputs)
        passed: list[int] = []
        network.module.get_submodule("layer4").register_forward_hook(lambda *_: passed.append(1))
        for _ in range(2):
            assert torch.equal(stage_head.logits(network, stages, "mean and deviation", inputs), wanted)
    assert bool(passed) == last_passes
