"""`python -m tests.benchmarks.fetch`: what it costs to bring images onto a machine, and to read them there.

The promises: a fetch is at least 10 times faster than the better of `gcloud storage rsync -r` and `cp -r` of the same
files, whole processes; and images are read out of packs at least as fast as out of files, in a shuffled order, cold
(their pages dropped from memory beforehand) and warm.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks import measure
from tests.benchmarks.gcs_process import serving
from tests.benchmarks.upload import gcloud, many

SIDE = "tests.benchmarks.fetch_side"
FETCH_BAR = 10.0
READ_BAR = 1.0
ROUNDS = 5


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.fetch", description=__doc__)
    parser.add_argument("--files", type=int, default=2_000, help="of 1 KB; default 2000")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds a request; default 0")
    parser.add_argument("--keep", action="store_true", help="append to RESULTS.md")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="tlvm-bench-") as folder:
        rows = compared(Path(folder), chosen.files, chosen.latency)
    print(*rows, sep="\n")
    if chosen.keep:
        measure.keep("Fetch and read", rows)
    return int(any(row.startswith("FAIL") for row in rows))


def compared(work: Path, count: int, latency_s: float) -> list[str]:
    images = many(work, count)
    with serving(latency_s) as endpoint:
        measure.in_process(
            "tests.benchmarks.upload_side",
            "ours",
            str(images),
            str(work / "data"),
            "ours",
            endpoint,
            threads=1,
        )
        measure.in_process(
            "tests.benchmarks.upload_side", "single", str(images), "rsync", endpoint, str(count), threads=1
        )
        fetched = [
            measure.in_process(SIDE, "fetch", endpoint, str(work / f"home{n}"), threads=1) for n in range(3)
        ]
        ours_s = statistics.median(side.whole_seconds for side in fetched)
        theirs_s = {
            verb: gcloud_s(work / verb, endpoint, words)
            for verb, words in (
                ("rsync", ["rsync", "-r", "gs://rsync"]),
                ("cp", ["cp", "-r", "gs://rsync/*"]),
            )
        }
    if not theirs_s:
        return [f"not compared: gcloud is not installed; fetched in {ours_s:.2f} s"]
    verb = min(theirs_s, key=lambda verb: theirs_s[verb])
    ratio = theirs_s[verb] / ours_s
    row = (
        f"{count:,} files of 1 KB, {latency_s * 1000:.0f} ms a request: fetched in {ours_s:.2f} s, {ratio:.1f} times faster "
        f"than gcloud storage {verb} (at least {FETCH_BAR:g}); rsync {theirs_s['rsync']:.2f} s, cp {theirs_s['cp']:.2f} s"
    )
    return [_row(ratio >= FETCH_BAR, row), *read(work, work / "home0", work / verb)]


def read(work: Path, home: Path, files: Path) -> list[str]:
    """Rows of reading, cold and warm; the sides take turns."""
    os.sync()  # what is not on the disk yet can't be dropped from memory
    seconds: dict[tuple[str, str], list[float]] = {}
    for _ in range(ROUNDS):
        for side, place in (("packs", home), ("files", files)):
            done = measure.in_process(SIDE, side, str(place), str(work / "home0"), threads=1)
            for heat in ("cold", "warm"):
                seconds.setdefault((heat, side), []).append(done.result[heat])
    rows = []
    for heat in ("cold", "warm"):
        packs_s, files_s = (statistics.median(seconds[heat, side]) for side in ("packs", "files"))
        ratio = files_s / packs_s
        text = (
            f"{heat}: images out of packs {ratio:.2f} times as fast as out of files (at least {READ_BAR:g})"
        )
        rows.append(_row(ratio >= READ_BAR, f"{text}: {packs_s * 1000:.1f} and {files_s * 1000:.1f} ms"))
    return rows


def gcloud_s(target: Path, endpoint: str, words: list[str]) -> float:
    """Seconds of `gcloud storage` bringing everything into a new folder."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    began = time.perf_counter()
    subprocess.run(
        ["gcloud", "storage", *words, str(target)],
        env=gcloud(target.parent, endpoint),
        capture_output=True,
        check=True,
    )
    return time.perf_counter() - began


def _row(kept: bool, text: str) -> str:
    return f"{'ok' if kept else 'FAIL'}: {text}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
