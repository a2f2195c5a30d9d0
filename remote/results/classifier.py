"""A finished model, ready to be asked: what model.json and model.safetensors say, on the device of this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from remote.images.preprocessing import Pixels, network_input
from remote.measures.evaluation import Floats
from remote.networks import backbones, stage_head, weights
from remote.results.artefacts import ModelCard


@dataclass(frozen=True)
class Classifier:
    card: ModelCard
    network: backbones.Network
    device: torch.device

    def logits(self, batch: list[Pixels]) -> Floats:
        """(n, classes), before the temperature, of preprocessed images; there may be none."""
        if not batch:
            return np.empty((0, len(self.card.classes)))
        given = network_input(self.card.preprocessing, np.stack(batch), self.device)
        with torch.inference_mode():
            if self.card.stages:
                found = stage_head.logits(self.network, self.card.stages, self.card.pooling, given)
            else:
                found = self.network.module(given)
        return np.asarray(found.cpu().double().numpy())


def open_classifier(card: ModelCard, file: Path, device: torch.device) -> Classifier:
    """The model of model.json with the weights in `file`. CannotRun, ContractError, OSError when it can't be used."""
    network = backbones.build(card.model, len(card.classes), seed=0)
    tensors = weights.read(file).tensors
    if card.stages:
        stage_head.prepare(network, tensors)
    weights.load(network, tensors, with_head=True)
    backbones.freeze(network.module)
    backbones.place(network.module, device)
    return Classifier(card, network, device)
