"""`python -m tests.benchmarks.tutorial`: 25 epochs of the tutorial's loop beside one run of `fixed-extractor`.

The same images, network, weights, processor and threads, decoding included; each side in a process of its own, whose
start and imports are left out (the whole process stands beside it). The promises: at least 20 times faster, accuracy
not lower by more than two standard errors, and peak memory above that after imports at most
1.3 x (that of a bare forward loop with the same batch + 3 x the features).
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from orchestrator.weights import torch_caches
from remote.contract import document
from remote.contract.metrics import Metrics
from remote.contract.models import MODELS
from remote.contract.run_spec import RunSpec
from remote.contract.scenarios import resolve
from remote.job.training_process import ALLOCATOR
from remote.networks import backbones
from tests.benchmarks import measure
from tests.benchmarks.measure import Side
from tests.benchmarks.prepared import prepare

EPOCHS = 25
SPEED_BAR = 20
MEMORY_BAR = 1.3


@dataclass(frozen=True)
class Outcome:
    tutorial: Side
    ours: Side
    bare: Side
    metrics: Metrics
    feature_bytes: int
    epochs: int  # that the tutorial's loop really made


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.tutorial", description=__doc__)
    parser.add_argument("--photos", type=Path, default=measure.ROOT.parent / "shared/data/hymenoptera")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument(
        "--weights",
        type=Path,
        help="a file; default: torchvision's if torch's cache has them, else random ones",
    )
    parser.add_argument(
        "--epochs", type=int, default=EPOCHS, help=f"fewer than {EPOCHS} are extrapolated, and labelled so"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep", action="store_true", help="append to RESULTS.md")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="tlvm-bench-") as folder:
        weights, named = _weights(chosen.model, chosen.weights, Path(folder))
        outcome = compare(Path(folder), chosen.photos, chosen.model, weights, chosen.epochs, chosen.threads)
    rows, good = judge(outcome)
    rows.insert(0, f"{chosen.model}, weights {named}, {chosen.photos.name}, {chosen.threads} threads")
    print(*rows, sep="\n")
    if chosen.keep:
        measure.keep("Fixed extractor beside the tutorial's loop", rows)
    return 0 if good else 1


def compare(folder: Path, photos: Path, model: str, weights: Path, epochs: int, threads: int) -> Outcome:
    """The three processes, one after the other."""
    parameters = resolve("fixed-extractor", {"decode_workers": threads})
    ready = prepare(folder, photos, model, str(weights), scenario="fixed-extractor", parameters=parameters)
    ours = measure.in_process(
        "tests.benchmarks.fixed_extractor_side",
        *(str(ready.folder.spec), str(threads)),
        threads=threads,
        home=ready.home,
        variables=ALLOCATOR,
    )
    bare = measure.in_process(
        "tests.benchmarks.bare_forward",
        str(photos),
        model,
        str(parameters["batch_size"]),
        str(threads),
        threads=threads,
    )
    tutorial = measure.in_process(
        "tests.benchmarks.tutorial_loop",
        *(str(photos), model, str(weights), str(epochs), str(threads), str(threads)),
        threads=threads,
    )
    metrics = document.decode(
        Metrics, (ready.folder.result / "metrics.json").read_bytes(), what="metrics.json"
    )
    spec = document.decode(RunSpec, ready.folder.spec.read_bytes(), what="spec.json")
    width = backbones.build(spec.model, len(metrics.classes), seed=0).feature_count
    return Outcome(tutorial, ours, bare, metrics, 4 * width * metrics.counters.forwarded, epochs)


def judge(outcome: Outcome) -> tuple[list[str], bool]:
    """The lines of the report, and whether every promise is kept."""
    tutorial, ours, metrics = outcome.tutorial, outcome.ours, outcome.metrics
    scale = EPOCHS / outcome.epochs
    said = "" if outcome.epochs == EPOCHS else f" (EXTRAPOLATED from {outcome.epochs} epochs)"
    speed = tutorial.seconds * scale / ours.seconds
    started = tutorial.whole_seconds - tutorial.seconds
    whole = (tutorial.seconds * scale + started) / ours.whole_seconds
    theirs, n = tutorial.result["best"] / tutorial.result["n"], tutorial.result["n"]
    error = math.sqrt(theirs * (1 - theirs) / n)
    accuracy = metrics.result.accuracy
    allowed = MEMORY_BAR * (outcome.bare.peak_bytes + 3 * outcome.feature_bytes)
    promises = [speed >= SPEED_BAR, accuracy >= theirs - 2 * error, ours.peak_bytes <= allowed]
    marks = ["ok" if kept else "FAIL" for kept in promises]
    return [
        f"{marks[0]}: {speed:.1f} times faster{said} (at least {SPEED_BAR}): "
        f"{EPOCHS} epochs of the loop {tutorial.seconds * scale:.1f} s, fixed-extractor {ours.seconds:.1f} s",
        f"whole processes, start and imports included: {whole:.1f} times{said}, "
        f"{tutorial.seconds * scale + started:.1f} s and {ours.whole_seconds:.1f} s",
        f"{marks[1]}: accuracy {accuracy:.4f} ({metrics.result.correct} of {metrics.result.n}, {metrics.result.split}), "
        f"the loop's best epoch {theirs:.4f} (standard error {error:.4f}, n {n}), its last {tutorial.result['last'] / n:.4f}",
        f"{marks[2]}: peak memory above imports {ours.peak_bytes / 1e6:.0f} MB, allowed {allowed / 1e6:.0f} MB = "
        f"{MEMORY_BAR} x (bare loop {outcome.bare.peak_bytes / 1e6:.0f} MB + 3 x features {outcome.feature_bytes / 1e6:.1f} MB); "
        f"the tutorial's loop {tutorial.peak_bytes / 1e6:.0f} MB without its workers",
        "seconds by step: " + ", ".join(f"{step} {seconds:.2f}" for step, seconds in metrics.seconds.items()),
    ], all(promises)


def _weights(model: str, given: Path | None, folder: Path) -> tuple[Path, str]:
    """The file that both sides load, and what to call it."""
    if given:
        return given.resolve(), given.name
    for cached in (cache / MODELS[model].file for cache in torch_caches()):
        if cached.is_file():
            return cached, MODELS[model].source
    path = folder / "random.pth"
    torch.save(backbones.build(model, 1000, seed=0).module.state_dict(), path)
    return path, "random (accuracy says little)"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
