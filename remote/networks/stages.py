"""The network stage by stage, as people see it before training: output shape, parameters, frozen or trained.

The shapes come from a pass without numbers (on the device "meta"), which costs nothing and touches no image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from remote.errors import CannotRun
from remote.networks.backbones import Network, parameter_count, pass_without_numbers

_OPENED = ("features", "trunk_output", "blocks", "layers")  # containers whose children are the layers


@dataclass
class Stage:
    name: str
    shape: tuple[int, ...]  # of the output for one image: channels, height, width
    parameters: int
    frozen: bool


def stages(network: Network, size: int) -> list[Stage]:
    """From the input to the head, for square images of `size` pixels.

    Layers are put together until the resolution falls; what only pools belongs to the stage before it.
    """
    result: list[Stage] = []
    closed = True
    for name, module, shape in _layers(network, size):
        parameters = parameter_count(module)
        frozen = not any(parameter.requires_grad for parameter in module.parameters())
        block = "." not in name and any(True for _ in module.children())
        if name == network.head_path:
            result.append(Stage("head", shape[:1], parameters, frozen))
        elif not parameters:
            if result and 1 < shape[-1] < result[-1].shape[-1] and len(shape) == 3:
                result[-1].shape = shape
                closed = True
        elif closed or block or shape[1:] != result[-1].shape[1:]:
            result.append(Stage(name, shape, parameters, frozen))
            closed = False
        else:
            stage = result[-1]
            first, last = stage.name.split("…")[0], name.rpartition(".")[2]
            stage.name = "stem" if len(result) == 1 and "." not in name else f"{first}…{last}"
            stage.shape = shape
            stage.parameters += parameters
            stage.frozen = stage.frozen and frozen
    # Of the network itself, outside of every layer: the class token of vision transformers.
    result[0].parameters += sum(own.numel() for own in network.module.parameters(recurse=False))
    return result


def as_event(found: list[Stage]) -> list[dict[str, Any]]:
    """For the event `network`."""
    return [
        {
            "name": stage.name,
            "shape": list(stage.shape),
            "parameters": stage.parameters,
            "frozen": stage.frozen,
        }
        for stage in found
    ]


def _layers(network: Network, size: int) -> list[tuple[str, nn.Module, tuple[int, ...]]]:
    """The layers in the order in which they are called: name, module, shape of the output for one image."""
    called: list[tuple[str, nn.Module, tuple[int, ...]]] = []

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, _: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor):
                called.append((name, module, tuple(output.shape[1:])))

        return hook

    hooks = [
        module.register_forward_hook(note(name))
        for name, module in _children(network.module, network.head_path)
    ]
    training = network.module.training
    network.module.eval()
    try:
        pass_without_numbers(network.module, size)
    except RuntimeError as error:
        raise CannotRun(
            f"{network.model} can't take images of {size} × {size}: {error}. Set image_size."
        ) from None
    finally:
        for hook in hooks:
            hook.remove()
        network.module.train(training)
    return called


def _children(module: nn.Module, head_path: str, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        path = prefix + name
        if name in _OPENED or head_path.startswith(path + "."):
            yield from _children(child, head_path, path + ".")
        else:
            yield path, child
