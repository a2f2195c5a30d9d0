"""`python -m tests.benchmarks.overhead`: what `tlvm run` on `local` costs beside `python -m remote` on the same spec.

Machine, bundle and dataset are there already, and both sides find the same caches warm; they take turns. The promise:
at most 3 s more. The result is pulled to this folder by `tlvm run` only.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from remote.contract import document
from remote.contract.layout import MachineHome
from remote.contract.run_spec import RunSpec
from tests.benchmarks import measure
from tests.benchmarks.prepared import again

BAR_S = 3.0


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.overhead", description=__doc__)
    parser.add_argument("--photos", type=Path, default=measure.ROOT.parent / "shared/data/hymenoptera")
    parser.add_argument("--model", default="squeezenet1_1")
    parser.add_argument("--weights", default="none")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--keep", action="store_true", help="append to RESULTS.md")
    chosen = parser.parse_args(arguments)
    asked = ["run", "fixed-extractor", "--model", chosen.model, "--weights", chosen.weights, "--json"]
    with tempfile.TemporaryDirectory(prefix="tlvm-bench-") as folder:
        project = Path(folder, "project")
        project.mkdir()
        environ = os.environ | {"TLVM_DATA_DIR": str(Path(folder, "data"))}
        try:
            tlvm(["up"], project, environ)
            tlvm(["upload", str(chosen.photos.resolve())], project, environ)
            tlvm(asked, project, environ)
            home = Path(tlvm(["ssh", "--", "pwd"], project, environ)[0].strip())
            ours, theirs = [], []
            for _ in range(chosen.pairs):
                said, seconds = tlvm(asked, project, environ)
                ours.append(seconds)
                theirs.append(alone(json.loads(said)["run_id"], home, project, environ))
        finally:
            tlvm(["down", "--yes"], project, environ)
    more = statistics.median(ours) - statistics.median(theirs)
    rows = [
        f"{'ok' if more <= BAR_S else 'FAIL'}: tlvm run costs {more:.2f} s more (at most {BAR_S:g} s): "
        f"{statistics.median(ours):.2f} s, python -m remote {statistics.median(theirs):.2f} s",
        f"{chosen.photos.name}, {chosen.model}; each: {texts(ours)} and {texts(theirs)}",
    ]
    print(*rows, sep="\n")
    if chosen.keep:
        measure.keep(f"Overhead of tlvm run, {chosen.pairs} pairs", rows)
    return 0 if more <= BAR_S else 1


def tlvm(arguments: list[str], project: Path, environ: dict[str, str]) -> tuple[str, float]:
    """Its stdout, and the seconds it took."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", *arguments],
        cwd=project,
        env=environ | {"PYTHONPATH": str(measure.ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout, time.perf_counter() - started


def alone(run_id: str, home: Path, project: Path, environ: dict[str, str]) -> float:
    """The seconds of `python -m remote` on the spec of that run, under a new id, from the bundle on the machine."""
    machine = MachineHome(home / ".tlvm")
    spec = document.decode(RunSpec, machine.run(run_id).spec.read_bytes(), what="spec.json")
    path = again(spec, project)
    bundle = machine.bundle(spec.bundle)
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "remote", str(path)],
        cwd=bundle,
        env=environ | {"HOME": str(home), "PYTHONPATH": os.pathsep.join([str(bundle), str(bundle / "site")])},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - started


def texts(seconds: list[float]) -> str:
    return ", ".join(f"{one:.2f}" for one in seconds)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
