"""`python -m tests.benchmarks.images`: what images on their way cost, in time and in memory.

The promises: from the second epoch on at most 3 % of a training's time is outside of forward, backward and step; and
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
from typing import Any

from remote.contract.scenarios import resolve
from tests.benchmarks import measure
from tests.benchmarks.measure import Side
from tests.benchmarks.prepared import prepare

OUTSIDE_BAR = 0.03
MEMORY_BAR = 1.1
ENOUGH_MB = 10_000


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.images", description=__doc__)
    parser.add_argument("--photos", type=Path, default=measure.ROOT.parent / "shared/data/hymenoptera")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--memory-mb", type=int, default=20)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep", action="store_true", help="append to RESULTS.md")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="tlvm-bench-") as folder:
        trained = training(Path(folder, "training"), chosen)
        sides = {mb: alone(chosen, mb) for mb in (0, chosen.memory_mb, ENOUGH_MB)}
    rows, good = judge(trained, sides, chosen)
    print(*rows, sep="\n")
    if chosen.keep:
        measure.keep("Images", rows)
    return 0 if good else 1


def training(folder: Path, chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """The epochs of a run of from-scratch, without the one that decodes."""
    asked = {"epochs": chosen.epochs, "image_size": chosen.image_size, "decode_workers": chosen.threads}
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
    )
    epochs: list[dict[str, Any]] = side.result["training"]["epochs"]
    return [epoch for epoch in epochs if epoch["epoch"] > 1]


def alone(chosen: argparse.Namespace, memory_mb: int) -> Side:
    """The batches of two epochs, without any network."""
    asked = {"photos": str(chosen.photos), "image_size": chosen.image_size, "memory_mb": memory_mb}
    return measure.in_process(
        "tests.benchmarks.images_side", json.dumps(asked), str(chosen.threads), threads=chosen.threads
    )


def judge(
    epochs: list[dict[str, Any]], sides: dict[int, Side], chosen: argparse.Namespace
) -> tuple[list[str], bool]:
    """The lines of the report, and whether every promise is kept."""
    whole, inside = (sum(epoch[name] for epoch in epochs) for name in ("seconds", "step_seconds"))
    outside = 1 - inside / whole
    on_disk, limited, in_memory = sides.values()
    allowed = on_disk.peak_bytes + MEMORY_BAR * 1e6 * chosen.memory_mb
    kept = limited.result["memory_bytes"] + limited.result["disk_bytes"]
    promises = [outside <= OUTSIDE_BAR, limited.peak_bytes <= allowed]
    marks = ["ok" if one else "FAIL" for one in promises]
    return [
        f"{chosen.photos.name}, {chosen.image_size} px, {chosen.threads} threads",
        f"{marks[0]}: {outside:.1%} of the time outside of forward, backward and step from the second epoch on "
        f"(at most {OUTSIDE_BAR:.0%}): {chosen.model}, {whole:.1f} s in {len(epochs)} epochs",
        f"{marks[1]}: {chosen.memory_mb} MB for {kept / 1e6:.0f} MB of decoded images: peak above imports "
        f"{limited.peak_bytes / 1e6:.0f} MB, allowed {allowed / 1e6:.0f} MB; all on disk "
        f"{on_disk.peak_bytes / 1e6:.0f} MB, all in memory {in_memory.peak_bytes / 1e6:.0f} MB",
        f"batches alone, img/s: first epoch {in_memory.result['images_per_s'][0]:.0f}; second with images in memory "
        f"{in_memory.result['images_per_s'][1]:.0f}, on disk {on_disk.result['images_per_s'][1]:.0f}; "
        f"decoded {limited.result['decoded']} of {limited.result['images']} images in two epochs",
    ], all(promises)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
