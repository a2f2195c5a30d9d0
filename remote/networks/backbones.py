"""Pre-trained networks: built, loaded from a verified file, frozen, and given a new head.

A network without its head gives the head's input: that is what "features" means here, whatever the family. With a new
head of the same kind in its place, the network is a plain model of the library that it comes from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from remote import devices
from remote.errors import CannotRun
from remote.sources import source_of


@dataclass(frozen=True)
class Network:
    """A model and where its head is. The module is changed in place."""

    model: str
    module: nn.Module
    head_path: str
    feature_count: int  # numbers that the head is given for each image

    has_bias: bool  # of the head; MaxViT's has none
    by_position: bool = (
        False  # the head is a convolution, as SqueezeNet's is: a ReLU and the mean over positions follow
    )

    @property
    def head(self) -> nn.Module:
        return self.module.get_submodule(self.head_path)

    def set_head(self, head: nn.Module) -> None:
        parent, _, name = self.head_path.rpartition(".")
        setattr(self.module.get_submodule(parent), name, head)


def build(model: str, classes: int, *, seed: int) -> Network:
    """The architecture with new weights, a function of the seed alone."""
    source = source_of(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = source.build(model, classes)
    head_path = source.head_path(model)
    head = module.get_submodule(head_path)
    return Network(
        model, module, head_path, _inputs(head), head.bias is not None, isinstance(head, nn.Conv2d)
    )


def new_head(network: Network, weight: torch.Tensor, bias: torch.Tensor) -> nn.Module:
    """A head of the kind that the network has, with the probabilities of weight @ features + bias.

    weight  (classes, features)
    bias    (classes,), zeros for a network whose head has none
    """
    if network.by_position:
        return _convolution(weight, bias)
    head = nn.Linear(weight.shape[1], weight.shape[0], bias=network.has_bias)
    head.weight = nn.Parameter(weight.clone())
    if network.has_bias:
        head.bias = nn.Parameter(bias.clone())
    return head


def remove_head(network: Network) -> None:
    """From here on the module gives the features."""
    network.set_head(nn.Identity())


def _convolution(weight: torch.Tensor, bias: torch.Tensor) -> nn.Module:
    """SqueezeNet applies ReLU to its logits at each position, before the mean; a linear classifier has no ReLU.

    Adding the same numbers to every class changes no probability. So no weight and no bias need be negative, and as
    what they are applied to comes out of a ReLU too, the one behind them never has anything to cut.
    """
    head = nn.Conv2d(weight.shape[1], weight.shape[0], kernel_size=1)
    head.weight = nn.Parameter((weight - weight.amin(0))[:, :, None, None])
    head.bias = nn.Parameter(bias - bias.min())
    return head


def freeze(module: nn.Module) -> None:
    """No gradient, and normalisation in eval mode: in training mode it would go on moving its statistics."""
    module.requires_grad_(False)
    module.eval()


def place(module: nn.Module, device: torch.device) -> nn.Module:
    """To the device, lying in memory as suits it."""
    module.to(device)
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=devices.layout(device))
    return module


def fingerprint(module: nn.Module) -> dict[str, str]:
    """The hash of every parameter and buffer, to the bit."""
    return {name: _digest(tensor) for name, tensor in module.state_dict().items()}


def equal_tensors(before: Mapping[str, str], after: Mapping[str, str]) -> int:
    return sum(after.get(name) == digest for name, digest in before.items())


def pass_without_numbers(module: nn.Module, size: int) -> None:
    """A forward pass that computes shapes only (on the device "meta"), for hooks to look at: it costs nothing.

    RuntimeError    the network can't take square images of this size
    """
    tensors = [*module.named_parameters(), *module.named_buffers()]
    without_numbers = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors}
    torch.func.functional_call(module, without_numbers, (torch.empty(1, 3, size, size, device="meta"),))


def parameter_count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _digest(tensor: torch.Tensor) -> str:
    values = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{values.dtype} {tuple(values.shape)} ".encode())
    digest.update(values.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _inputs(head: nn.Module) -> int:
    if isinstance(head, nn.Linear):
        return head.in_features
    if isinstance(head, nn.Conv2d):
        return head.in_channels
    raise CannotRun(f"A head of kind {type(head).__name__} can't be replaced")
