"""`python -m tests.benchmarks.frozen`: what scenarios with a frozen network promise of their speed, as ratios.

* cold extraction: at least 0.92 x 1 / (1 / model alone + 1 / decoding alone), by the clock, with as many threads each,
  in turns, the median
* a second scenario on the same data and network: at most 5 % of the first one's extraction time
* fine-tune-top with what the frozen part gives kept: epochs at least 1.8 times faster than without (resnet18, layer4)
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from remote import train
from remote.contract import document
from remote.contract.layout import MachineHome
from remote.contract.metrics import Metrics
from remote.features.extraction import Row, extract
from remote.features.feature_cache import FeatureCache
from remote.images.data import Packs, Reader, batches
from remote.images.preprocessing import of_weights
from remote.networks import backbones, depths
from tests.benchmarks import measure
from tests.remote import fixtures

MODEL = "resnet18"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.frozen", description=__doc__)
    parser.add_argument("--photos", type=Path, default=measure.ROOT.parent / "shared/data/hymenoptera")
    parser.add_argument("--each", type=int, default=32, help="images of each class and split")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--size", type=int, default=224, help="pixels, of fine-tune-top")
    parser.add_argument("--batch", type=int, default=32, help="of fine-tune-top")
    parser.add_argument("--keep", action="store_true", help="append to RESULTS.md")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    with tempfile.TemporaryDirectory(prefix="tlvm-bench-") as folder:
        machine = fixtures.home(Path(folder) / "home")
        dataset = fixtures.pack_folder(machine, chosen.photos, limit=chosen.each)
        results = [
            _extraction(machine, dataset, chosen.rounds, chosen.threads),
            _kept_activations(machine, dataset, chosen.size, chosen.batch),
        ]
    rows = [row for part, _ in results for row in part]
    print(*rows, sep="\n")
    if chosen.keep:
        command = f"python -m tests.benchmarks.frozen --each {chosen.each} --rounds {chosen.rounds} --size {chosen.size} --batch {chosen.batch}"
        measure.keep("Frozen scenarios: speed", [*rows, f"`{command}`, {chosen.threads} threads"])
    return 0 if all(good for _, good in results) else 1


def _extraction(
    machine: MachineHome, dataset: fixtures.Dataset, rounds: int, threads: int
) -> tuple[list[str], bool]:
    network, spec = backbones.build(MODEL, 2, seed=0), of_weights(MODEL)
    backbones.freeze(network.module)
    backbones.remove_head(network)
    backbones.place(network.module, torch.device("cpu"))
    reader = Reader(dataset.manifest, Packs(machine.pack))
    images, ends = dataset.manifest.images, depths.stage_ends(network)
    batch = torch.rand(32, 3, spec.crop, spec.crop).contiguous(memory_format=torch.channels_last)
    cache = FeatureCache(machine.cache / "bench", "key", 10**9)

    def forward() -> None:
        with torch.inference_mode():
            for start in range(0, len(images), 32):
                network.module(batch[: len(images) - start])

    def decode() -> None:
        for _ in batches(images, lambda image: reader.pixels(image, spec), batch_size=32, workers=threads):
            pass

    def ours(kept: FeatureCache | None) -> None:
        extract(
            network,
            [Row(image) for image in images],
            reader,
            spec,
            ends=ends,
            cache=kept or FeatureCache(Path(), "", 0),
            batch_size=32,
            workers=threads,
            device=torch.device("cpu"),
        )

    forward()
    ours(None)
    times = [(_clock(forward), _clock(decode), _clock(lambda: ours(None))) for _ in range(rounds)]
    share = median((model + decoding) / whole for model, decoding, whole in times)
    first, second = _clock(lambda: ours(cache)), _clock(lambda: ours(cache))
    good = share >= 0.92, second <= 0.05 * first
    n = len(images)
    return [
        f"{_mark(good[0])}: cold extraction at {share:.3f} of 1 / (1 / model + 1 / decoding) (at least 0.92): "
        + ", ".join(
            f"{1e3 * m / n:.0f} + {1e3 * d / n:.1f} and {1e3 * w / n:.0f} ms an image" for m, d, w in times
        ),
        f"{_mark(good[1])}: a second extraction takes {second / first:.2%} of the first ({second:.3f} s and {first:.1f} s; at most 5 %)",
    ], all(good)


def _kept_activations(
    machine: MachineHome, dataset: fixtures.Dataset, size: int, batch_size: int
) -> tuple[list[str], bool]:
    def epoch(activations_gb: float, tail: str) -> float:
        folder = fixtures.put_run(
            machine,
            dataset,
            scenario="fine-tune-top",
            model=MODEL,
            tail=tail,
            epochs=5,
            patience=5,
            batch_size=batch_size,
            image_size=size,
            unfreeze_from="layer4",
            activations_gb=activations_gb,
        )
        if train.main(folder.spec) != train.DONE:
            raise SystemExit("the training failed")
        metrics = document.decode(Metrics, (folder.result / "metrics.json").read_bytes(), what="metrics.json")
        return float(median(one["seconds"] for one in metrics.training["epochs"][2:]))

    pairs = [(epoch(0.0, f"n{number:03}"), epoch(4.0, f"k{number:03}")) for number in range(3)]
    ratio = median(without / kept for without, kept in pairs)
    told = ", ".join(f"{without:.2f} and {kept:.2f} s" for without, kept in pairs)
    return [
        f"{_mark(ratio >= 1.8)}: fine-tune-top of {MODEL} from layer4 is {ratio:.2f} times faster with the cut kept "
        f"(at least 1.8): an epoch, from the second on, {told}"
    ], ratio >= 1.8


def _clock(work: Callable[[], None]) -> float:
    before = time.perf_counter()
    work()
    return time.perf_counter() - before


def _mark(good: bool) -> str:
    return "ok" if good else "FAIL"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
