"""`python -m tests.benchmarks.images`: what images on their way cost, in time and in memory.

The promises: from the second epoch on at most 3 % of a training's time is outside of forward, backward and step,
measuring the images that steer counted in; and
images take no more memory than they were given, with a dataset several times larger: 10 % above that at most, beside
what the same batches need with every image on disk. Each side is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from remote.contract.scenarios import resolve
from remote.job.training_process import ALLOCATOR
from tests.benchmarks import measure
from tests.benchmarks.measure import Side
from tests.benchmarks.prepared import prepare

OUTSIDE_BAR = 0.03
MEMORY_BAR = 1.1
ENOUGH_MB = 10_000
MEMORY_SIZE = 384  # pixels: ants and bees become 130 MB


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.images", description=__doc__)
    parser.add_argument("--photos", type=Path, default=measure.ROOT.parent / "shared/data/hymenoptera")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--memory-mb", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3, help="of the three sides about memory, in turns")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep", action="store_true", help="append to RESULTS.md")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="tlvm-bench-") as folder:
        trained = training(Path(folder, "training"), chosen)
        limits = (0, chosen.memory_mb, ENOUGH_MB)
        rounds = [[alone(chosen, mb) for mb in limits] for _ in range(chosen.rounds)]
    rows, good = judge(trained, [list(sides) for sides in zip(*rounds, strict=True)], chosen)
    print(*rows, sep="\n")
    if chosen.keep:
        measure.keep("Images", rows)
    return 0 if good else 1


def training(folder: Path, chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """The epochs of a run of from-scratch, without the one that decodes."""
    asked = {
        "batch_size": chosen.batch,
        "epochs": chosen.epochs,
        "image_size": chosen.image_size,
        "decode_workers": chosen.threads,
    }
    ready = prepare(
        folder,
        chosen.photos,
        chosen.model,
        "none",
        scenario="from-scratch",
        parameters=resolve("from-scratch", {**asked, "patience": chosen.epochs}),
    )
    side = measure.in_process(
        "tests.benchmarks.fixed_extractor_side",
        *(str(ready.folder.spec), str(chosen.threads)),
        threads=chosen.threads,
        home=ready.home,
        variables=ALLOCATOR,
    )
    epochs: list[dict[str, Any]] = side.result["training"]["epochs"]
    return [epoch for epoch in epochs if epoch["epoch"] > 1]


def alone(chosen: argparse.Namespace, memory_mb: int) -> Side:
    """The batches of two epochs, without any network."""
    asked = {"photos": str(chosen.photos), "image_size": MEMORY_SIZE, "memory_mb": memory_mb}
    return measure.in_process(
        "tests.benchmarks.images_side",
        *(json.dumps(asked), str(chosen.threads)),
        threads=chosen.threads,
        variables=ALLOCATOR,
    )


def judge(
    epochs: list[dict[str, Any]], sides: list[list[Side]], chosen: argparse.Namespace
) -> tuple[list[str], bool]:
    """The lines of the report, and whether every promise is kept.

    sides   all images on disk; so much memory as was asked for; all in memory. Each several times
    """
    whole, inside = (sum(epoch[name] for epoch in epochs) for name in ("seconds", "step_seconds"))
    outside = 1 - inside / whole
    on_disk, limited, in_memory = (one[0] for one in sides)
    peaks = [median(side.peak_bytes for side in one) for one in sides]
    allowed = peaks[0] + MEMORY_BAR * 1e6 * chosen.memory_mb
    kept = limited.result["memory_bytes"] + limited.result["disk_bytes"]
    promises = [outside <= OUTSIDE_BAR, peaks[1] <= allowed]
    marks = ["ok" if one else "FAIL" for one in promises]
    return [
        f"{chosen.photos.name}, {chosen.image_size} px, batch {chosen.batch}, {chosen.threads} threads",
        f"{marks[0]}: {outside:.1%} of the time outside of forward, backward and step from the second epoch on "
        f"(at most {OUTSIDE_BAR:.0%}): {chosen.model}, {whole:.1f} s in {len(epochs)} epochs",
        f"{marks[1]}: {chosen.memory_mb} MB for {kept / 1e6:.0f} MB of decoded images: peak above imports "
        f"{peaks[1] / 1e6:.0f} MB, allowed {allowed / 1e6:.0f} MB; all on disk {peaks[0] / 1e6:.0f} MB, all in memory "
        f"{peaks[2] / 1e6:.0f} MB ({MEMORY_SIZE} px, batch 8; medians of {chosen.rounds})",
        f"batches alone, img/s: first epoch {in_memory.result['images_per_s'][0]:.0f}; second with images in memory "
        f"{in_memory.result['images_per_s'][1]:.0f}, on disk {on_disk.result['images_per_s'][1]:.0f}; "
        f"decoded {limited.result['decoded']} of {limited.result['images']} images in two epochs",
    ], all(promises)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
