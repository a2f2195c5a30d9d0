"""Mixup (Zhang et al., arXiv 1710.09412): each image of a batch is blended with another one, and so are the labels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def mixed(
    inputs: Tensor, labels: Tensor, classes: int, strength: float, *, seed: int, step: int
) -> tuple[Tensor, Tensor]:
    """The blended inputs, and the share of each class in them, (n, classes): a function of seed and step.

    strength    of the beta distribution from which the blend is drawn: 0.2 mixes most pairs a little
    """
    generator = np.random.Generator(np.random.Philox(key=[seed % 2**64, step]))
    blend = float(generator.beta(strength, strength))
    partner = torch.from_numpy(generator.permutation(len(labels))).to(inputs.device)
    targets = functional.one_hot(labels, classes).to(torch.float32)
    return torch.lerp(inputs[partner], inputs, blend), torch.lerp(targets[partner], targets, blend)
