"""`python -m tests.benchmarks.fine_tuning`: an epoch of `fine-tune-all` beside one of a loop like torchvision's reference.

The same images, network, batch, precision (float32 unless asked otherwise), processor and threads. Processes of the two sides take turns, each makes a
few epochs, and the first one of each, in which caches fill, does not count. The promises: an epoch takes at most 1.05
times as long (median over the pairs), and from the second epoch on at most 3 % of it is spent outside forward, backward
and step.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from remote.contract import document
from remote.contract.run_spec import RunSpec
from remote.contract.scenarios import resolve
from remote.networks import backbones
from tests.benchmarks import measure
from tests.benchmarks.prepared import again, prepare
from tests.benchmarks.tutorial_loop import images

TIME_BAR = 1.05
OUTSIDE_BAR = 0.03


@dataclass(frozen=True)
class Epochs:
    """The second epoch and later ones, per image that was learned from."""

    seconds: float  # the median
    outside: float  # share of the time that is neither forward nor backward nor step


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.fine_tuning", description=__doc__)
    parser.add_argument("--photos", type=Path, default=measure.ROOT.parent / "shared/data/hymenoptera")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--each", type=int, default=40, help="train images of each class")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--keep", action="store_true", help="append to RESULTS.md")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="tlvm-bench-") as folder:
        pairs = compare(Path(folder), chosen)
    rows, good = judge(pairs)
    rows.append(
        f"{chosen.model} from random weights, {chosen.photos.name}, {chosen.each} images of each class at "
        f"{chosen.size} px, batch {chosen.batch}, {chosen.precision}, {chosen.threads} threads, {chosen.epochs} epochs a "
        "process"
    )
    print(*rows, sep="\n")
    if chosen.keep:
        measure.keep(f"Trained scenarios: an epoch of fine-tune-all, {chosen.pairs} pairs", rows)
    return 0 if good else 1


def compare(folder: Path, chosen: argparse.Namespace) -> list[tuple[Epochs, Epochs]]:
    """Ours and theirs, in turns."""
    photos = some(chosen.photos, folder / "photos", chosen.each)
    weights = folder / "random.pth"
    torch.save(backbones.build(chosen.model, 1000, seed=0).module.state_dict(), weights)
    parameters = resolve(
        "fine-tune-all",
        {
            "batch_size": chosen.batch,
            "decode_workers": chosen.threads,
            "epochs": chosen.epochs,
            "image_size": chosen.size,
            "patience": chosen.epochs,
            "precision": chosen.precision,
        },
    )
    ready = prepare(
        folder, photos, chosen.model, str(weights), scenario="fine-tune-all", parameters=parameters
    )
    spec = document.decode(RunSpec, ready.folder.spec.read_bytes(), what="spec.json")
    pairs = []
    for _ in range(chosen.pairs):
        path = again(spec, folder)
        run = ready.folder.root.parent / path.stem
        shutil.copytree(ready.folder.root, run)
        shutil.copyfile(path, run / "spec.json")
        side = measure.in_process(
            "tests.benchmarks.fixed_extractor_side",
            *(str(run / "spec.json"), str(chosen.threads)),
            threads=chosen.threads,
            home=ready.home,
        )
        arguments = (chosen.model, chosen.precision, chosen.size, chosen.batch, chosen.epochs, chosen.threads)
        theirs = measure.in_process(
            "tests.benchmarks.reference_loop",
            *map(str, (photos, *arguments)),
            threads=chosen.threads,
            home=ready.home,
        )
        pairs.append((_ours(side), _theirs(theirs)))
    return pairs


def judge(pairs: list[tuple[Epochs, Epochs]]) -> tuple[list[str], bool]:
    """The lines of the report, and whether every promise is kept."""
    ratio = statistics.median(ours.seconds / theirs.seconds for ours, theirs in pairs)
    outside = statistics.median(ours.outside for ours, _ in pairs)
    promises = [ratio <= TIME_BAR, outside <= OUTSIDE_BAR]
    marks = ["ok" if kept else "FAIL" for kept in promises]
    each = ", ".join(f"{1e3 * ours.seconds:.1f} and {1e3 * theirs.seconds:.1f}" for ours, theirs in pairs)
    return [
        f"{marks[0]}: an epoch takes {ratio:.2f} times as long as the reference loop's (at most {TIME_BAR})",
        f"{marks[1]}: {outside:.1%} of an epoch is outside forward, backward and step (at most {OUTSIDE_BAR:.0%}); "
        f"the reference loop: {statistics.median(theirs.outside for _, theirs in pairs):.1%}",
        f"milliseconds an image, ours and theirs: {each}",
    ], all(promises)


def some(photos: Path, folder: Path, each: int) -> Path:
    """The first images of each class, and a few of val: an ImageFolder for both sides."""
    for split, count in (("train", each), ("val", 4)):
        for kind in sorted(path for path in (photos / split).iterdir() if path.is_dir()):
            (folder / split / kind.name).mkdir(parents=True)
            for path in [path for path in images(photos / split) if path.parent == kind][:count]:
                shutil.copyfile(path, folder / split / kind.name / path.name)
    return folder


def _ours(side: measure.Side) -> Epochs:
    later = [epoch for epoch in side.result["training"]["epochs"] if epoch["epoch"] > 1]
    spent = [epoch["seconds"] - epoch["measured_seconds"] for epoch in later]
    steps = sum(epoch["step_seconds"] for epoch in later)
    whole = sum(
        epoch["seconds"] for epoch in later
    )  # with the images that steer, whose forward is in the steps
    return Epochs(statistics.median(spent) / side.result["training"]["trained_on"], 1 - steps / whole)


def _theirs(side: measure.Side) -> Epochs:
    seconds, steps = side.result["seconds"][1:], side.result["step_seconds"][1:]
    return Epochs(statistics.median(seconds) / side.result["images"], 1 - sum(steps) / sum(seconds))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
