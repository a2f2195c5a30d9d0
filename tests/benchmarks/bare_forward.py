"""The yardstick for memory: decode every image, pass it through the network in batches, keep nothing."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from PIL import Image

from remote.torchvision_guard import torchvision
from tests.benchmarks.measure import report
from tests.benchmarks.tutorial_loop import images

transforms = torchvision.transforms


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("model")
    parser.add_argument("batch", type=int)
    parser.add_argument("threads", type=int)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    report(lambda: {"images": forward(chosen.folder, chosen.model, chosen.batch)})


def forward(folder: Path, model: str, batch: int) -> int:
    """How many images were passed through."""
    network = getattr(torchvision.models, model)().eval()
    prepare = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    files = [*images(folder / "train"), *images(folder / "val")]
    with torch.inference_mode():
        for start in range(0, len(files), batch):
            tensors = []
            for path in files[start : start + batch]:
                with Image.open(path) as image:
                    tensors.append(prepare(image.convert("RGB")))
            network(torch.stack(tensors))
    return len(files)


if __name__ == "__main__":
    main(sys.argv[1:])
