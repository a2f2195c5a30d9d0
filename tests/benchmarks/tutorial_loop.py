"""The other side of `tutorial`: a fixed extractor trained the way PyTorch's tutorial teaches it, as people copy it.

Every epoch decodes every image, augments it, passes it through the whole network in batches of 4 and makes one step
of SGD a batch (rate 0.001, momentum 0.9, a tenth of that every 7 epochs), then measures on `val`; the best epoch is
the result, so its accuracy is chosen on the images that it is measured on. The network is in training mode: the
statistics of its normalisation layers move although its weights do not.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from remote.torchvision_guard import torchvision
from tests.benchmarks.measure import report

transforms = torchvision.transforms
BATCH = 4


class Photos(Dataset[tuple[Tensor, int]]):
    """The images below `<folder>/<class>/`, decoded on every access."""

    def __init__(self, folder: Path, transform: Any) -> None:
        classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
        self.files = [(path, classes.index(path.parent.name)) for path in images(folder)]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.files[index]
        with Image.open(path) as image:
            return self.transform(image.convert("RGB")), label


def images(folder: Path) -> Iterator[Path]:
    """The JPEG files below `<folder>/<class>/`: what torchvision's ImageFolder would list here, without the GIF."""
    return iter(sorted(path for path in folder.glob("*/*") if path.suffix.lower() in (".jpg", ".jpeg")))


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("model")
    parser.add_argument("weights", help='a file, or "none"')
    parser.add_argument("epochs", type=int)
    parser.add_argument("threads", type=int)
    parser.add_argument("workers", type=int)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    report(lambda: train(chosen.folder, chosen.model, chosen.weights, chosen.epochs, chosen.workers))


def train(folder: Path, model: str, weights: str, epochs: int, workers: int) -> dict[str, Any]:
    """The whole of it, from the files to the best epoch's accuracy."""
    normalise = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    augmented = [
        transforms.RandomResizedCrop(224),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        normalise,
    ]
    plain = [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), normalise]
    photos = {
        "train": Photos(folder / "train", transforms.Compose(augmented)),
        "val": Photos(folder / "val", transforms.Compose(plain)),
    }
    loaders = {split: _loader(of, workers) for split, of in photos.items()}
    network, head = _frozen(model, weights, classes=2)
    loss_of = nn.CrossEntropyLoss()
    optimiser = torch.optim.SGD(head.parameters(), lr=0.001, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, step_size=7, gamma=0.1)
    best, best_weights = -1, None
    right = 0
    for _ in range(epochs):
        network.train()
        for inputs, labels in loaders["train"]:
            optimiser.zero_grad()
            loss = loss_of(network(inputs), labels)
            loss.backward()
            optimiser.step()
        schedule.step()
        network.eval()
        with torch.no_grad():
            right = sum(int((network(inputs).argmax(1) == labels).sum()) for inputs, labels in loaders["val"])
        if right > best:
            best, best_weights = right, copy.deepcopy(network.state_dict())
    assert best_weights is not None
    network.load_state_dict(best_weights)
    return {"best": best, "last": right, "n": len(photos["val"])}


def _loader(photos: Photos, workers: int) -> DataLoader[tuple[Tensor, int]]:
    return DataLoader(photos, batch_size=BATCH, shuffle=True, num_workers=workers)


def _frozen(model: str, weights: str, *, classes: int) -> tuple[nn.Module, nn.Module]:
    """The network with its parameters frozen and a new last layer, and that layer."""
    network = getattr(torchvision.models, model)()
    if weights != "none":
        network.load_state_dict(torch.load(weights, weights_only=True))
    for parameter in network.parameters():
        parameter.requires_grad = False
    head: nn.Module
    if hasattr(network, "fc"):
        head = network.fc = nn.Linear(network.fc.in_features, classes)
    elif model.startswith("squeezenet"):
        head = network.classifier[1] = nn.Conv2d(network.classifier[1].in_channels, classes, 1)
    else:
        head = network.classifier[-1] = nn.Linear(network.classifier[-1].in_features, classes)
    return network, head


if __name__ == "__main__":
    main(sys.argv[1:])
