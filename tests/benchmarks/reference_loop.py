"""The other side of `fine_tuning`: every layer trained in a loop like that of torchvision's reference scripts.

Images are decoded and augmented in worker processes in every epoch, the network is as it comes, SGD with momentum
makes a step a batch, and the loss of each step is read, as their logger does.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from remote.torchvision_guard import torchvision
from tests.benchmarks.measure import report
from tests.benchmarks.tutorial_loop import Photos

transforms = torchvision.transforms


def main(arguments: list[str]) -> None:
    folder, model, precision = Path(arguments[0]), arguments[1], arguments[2]
    size, batch, epochs, threads = map(int, arguments[3:])
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    report(lambda: train(folder, model, precision, size, batch, epochs, threads))


def train(
    folder: Path, model: str, precision: str, size: int, batch: int, epochs: int, workers: int
) -> dict[str, Any]:
    """The seconds of each epoch, and how many of them were spent in forward, backward and step."""
    prepare = transforms.Compose(
        [
            transforms.RandomResizedCrop(size),
            transforms.RandomHorizontalFlip(),
            transforms.PILToTensor(),
            transforms.ConvertImageDtype(torch.float),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    photos = Photos(folder / "train", prepare)
    loader = DataLoader(photos, batch, shuffle=True, num_workers=workers, persistent_workers=True)
    network = torchvision.models.get_model(model, weights=None, num_classes=2).train()
    loss_of = nn.CrossEntropyLoss()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    seconds, step_seconds = [], []
    for _ in range(epochs):
        began, steps = time.perf_counter(), 0.0
        for inputs, labels in loader:
            step = time.perf_counter()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
                loss = loss_of(network(inputs), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            loss.item()
            steps += time.perf_counter() - step
        seconds.append(time.perf_counter() - began)
        step_seconds.append(steps)
    return {"seconds": seconds, "step_seconds": step_seconds, "images": len(photos)}


if __name__ == "__main__":
    main(sys.argv[1:])
