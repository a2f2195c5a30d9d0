"""`python -m tests.benchmarks.status_runs`: how long `tlvm status` takes with 1,000 past runs in the store.

Each is whole: spec, status, an attempt, streams, a result. On a folder, and on a bucket that our server on loopback plays.
The promise: at most 2 s, the whole process, also the first time on a computer, which remembers nothing yet.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from orchestrator.stores import open_store
from remote.contract import document, layout
from remote.contract.run_attempt import Attempt
from remote.contract.run_spec import DatasetRef, RunSpec, StoreRef, WeightsRef
from remote.contract.run_status import AttemptTimes, ResultManifest, RunStatus
from tests.benchmarks import measure
from tests.fakes.gcs_server import GcsServer

BAR_S = 2.0
_PROGRAM = "import sys; sys.argv[0] = 'tlvm'; from orchestrator.cli import main; sys.exit(main())"
_SCENARIOS = ("fixed-extractor", "initial-layers", "fine-tune-all")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.status_runs", description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--keep", action="store_true", help="append to RESULTS.md")
    chosen = parser.parse_args(arguments)
    rows = []
    with tempfile.TemporaryDirectory() as name, GcsServer() as server:
        folder = Path(name)
        for kind, ref in (
            ("a folder", StoreRef(str(folder / "store"))),
            ("a bucket", StoreRef(server.create_bucket("past-runs"), endpoint=server.endpoint)),
        ):
            fill(ref, chosen.runs, folder / "file")
            rows.append(row(kind, ref, folder / kind.replace(" ", "-"), chosen.runs, chosen.repeats))
    print(*(text for text, _ in rows), sep="\n")
    if chosen.keep:
        measure.keep("Runs that survive: status with many past runs", [text for text, _ in rows])
    return 0 if all(good for _, good in rows) else 1


def fill(ref: StoreRef, count: int, scratch: Path) -> None:
    """So many runs that have ended, each with eleven files."""
    store = open_store(ref)

    def put(number: int) -> None:
        path = scratch.with_name(f"{scratch.name}-{number}")
        for key, text in documents(number, ref).items():
            path.write_text(text, encoding="utf-8")
            store.upload(path, key)
        path.unlink()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put, range(count)))


def documents(number: int, ref: StoreRef) -> dict[str, str]:
    scenario = _SCENARIOS[number % 3]
    day, minute = 1 + number // 100 % 28, number % 60
    tail = "".join("abcdefghijkmnpqrstuvwxyz"[number // 24**place % 24] for place in range(4))
    run_id = f"{scenario}-202610{day:02d}-10{minute:02d}00-{tail}"
    began = f"2026-10-{day:02d}T10:{minute:02d}:00+00:00"
    ended = f"2026-10-{day:02d}T11:{minute:02d}:00+00:00"
    spec = RunSpec(
        run_id=run_id,
        scenario=scenario,
        dataset=DatasetRef("trees", "a" * 64),
        model="resnet18",
        weights=WeightsRef("none"),
        store=ref,
        bundle="0" * 64,
        parameters={f"parameter_{i}": i for i in range(30)},
        seed=number,
        owner="ana",
        project="default",
        machine="tlvm-ana-default",
        created=began,
        max_hours=4,
        tlvm_version="0",
    )
    times = AttemptTimes(1, spec.machine, began, ended, "SUCCEEDED", 3600.0)
    status = RunStatus(
        run_id, "SUCCEEDED", ended, started=began, finished=ended, step=8, published=True, attempts=[times]
    )
    attempt = Attempt(1, spec.machine, "local", "this computer", 0.0, began)
    files = {
        "spec.json": document.encode(spec),
        "status.json": document.encode(status),
        "attempts/1.json": document.encode(attempt),
        "events/0000000000000000": "{}\n" * 1000,
        "log/0000000000000000": "a line\n" * 1000,
        "MANIFEST.json": document.encode(ResultManifest(run_id, "SUCCEEDED", ended, [])),
    }
    others = (
        "metrics.json",
        "predictions.csv",
        "model/model.json",
        "model/README.md",
        "model/model.safetensors",
    )
    return {
        layout.run_key(run_id, name): text
        for name, text in (files | dict.fromkeys(others, "x" * 5000)).items()
    }


def row(kind: str, ref: StoreRef, folder: Path, runs: int, repeats: int) -> tuple[str, bool]:
    """Each first time is that of another computer."""
    homes = [folder.with_name(f"{folder.name}-{number}") for number in range(repeats)]
    first = statistics.median(seconds(ref, home) for home in homes)
    again = statistics.median(seconds(ref, home) for home in homes)
    good = max(first, again) <= BAR_S
    text = (
        f"{'ok' if good else 'MISSED'}: tlvm status with {runs:,} past runs in {kind}: {first:.2f} s the first time on "
        f"a computer, {again:.2f} s from then on (medians of {repeats}, at most {BAR_S:g})"
    )
    return text, good


def seconds(ref: StoreRef, home: Path) -> float:
    home.mkdir(exist_ok=True)
    variables = {"TLVM_DATA_DIR": str(home), "TLVM_STORE_URL": ref.url, "TLVM_OWNER": "ana"}
    if ref.endpoint:
        variables["TLVM_STORE_ENDPOINT"] = ref.endpoint
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, "status"],
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(measure.ROOT)} | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    took = time.perf_counter() - began
    assert "nothing runs" in done.stdout and not done.stderr, done.stderr
    return took


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
