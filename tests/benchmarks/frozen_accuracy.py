"""`python -m tests.benchmarks.frozen_accuracy MODEL WEIGHTS FOLDER...`: initial-layers beside fixed-extractor on val."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from remote import train
from remote.contract import document
from remote.contract.metrics import Metrics
from tests.remote import fixtures


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.frozen_accuracy", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("weights", type=Path)
    parser.add_argument("folders", type=Path, nargs="+", help="<split>/<class>/*")
    parser.add_argument("--each", type=int, help="at most so many images of each class and split")
    parser.add_argument("--flips", default="horizontal", choices=("none", "horizontal", "all"))
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="tlvm-bench-") as scratch:
        machine = fixtures.home(Path(scratch) / "home")
        weights = fixtures.put_weights(machine, chosen.weights)
        for number, folder in enumerate(chosen.folders):
            dataset = fixtures.pack_folder(machine, folder, limit=chosen.each, flips=chosen.flips)
            for scenario in ("fixed-extractor", "initial-layers"):
                run = fixtures.put_run(
                    machine,
                    dataset,
                    scenario=scenario,
                    model=chosen.model,
                    weights=weights,
                    tail=f"b{number:03}",
                )
                if train.main(run.spec) != train.DONE:
                    return 1
                text = (run.result / "metrics.json").read_bytes()
                print(folder.name, scenario, _line(document.decode(Metrics, text, what="metrics.json")))
    return 0


def _line(metrics: Metrics) -> str:
    found, (low, high) = metrics.result, metrics.result.accuracy_interval
    curve = " ".join(f"{depth.accuracy:.3f}" for depth in metrics.by_depth)
    return f"{found.accuracy:.3f} ({low:.3f} - {high:.3f}, n {found.n}); by depth {curve}; {metrics.training.get('chosen', '')}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
