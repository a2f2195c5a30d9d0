"""`python -m tests.benchmarks.gce`: how long a person waits for Google Cloud, beside gcloud, against the same server.

Whole processes in turn, so that noise of the computer hits both; the figures are medians.
The promises: `tlvm status` takes at most as long as `gcloud compute instances list`, `tlvm down` with nothing to save at
most 2 s more than `gcloud compute instances delete`, and `tlvm doctor` at most 3 s where all is well.
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
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tests.benchmarks import measure
from tests.e2e.gce_world import MACHINE, World, world
from tests.fakes.compute_server import PROJECT
from tests.orchestrator.gce_cloud import OFFER, gce, wanted
from tests.orchestrator.gce_project import BUCKET, GOOD_BUCKET, GOOD_POLICY

STATUS_BAR, DOWN_BAR_S, DOCTOR_BAR_S = 1.0, 2.0, 3.0
_ZONE = "us-central1-a"
_PROGRAM = "import sys; sys.argv[0] = 'tlvm'; from orchestrator.cli import main; sys.exit(main())"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gce", description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--keep", action="store_true", help="append to RESULTS.md")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, world(Path(folder)) as there:
        there.bucket.api.buckets.patch(BUCKET, GOOD_BUCKET)
        there.bucket.api.policies[BUCKET] = GOOD_POLICY
        rows = [_doctor(there, chosen.pairs)]
        if shutil.which("gcloud") is None:
            rows.append(("gcloud is not installed: status and down are not compared", True))
        else:
            rows += [_status(there, chosen.pairs), _down(there, chosen.pairs)]
    print(*(text for text, _ in rows), sep="\n")
    if chosen.keep:
        measure.keep("Google Cloud beside gcloud", [text for text, _ in rows])
    return 0 if all(good for _, good in rows) else 1


def _doctor(there: World, repeats: int) -> tuple[str, bool]:
    ours_s = statistics.median(_tlvm(there, "doctor") for _ in range(repeats))
    return f"tlvm doctor: {ours_s:.2f} s (at most {DOCTOR_BAR_S:g})", ours_s <= DOCTOR_BAR_S


def _status(there: World, pairs: int) -> tuple[str, bool]:
    _machine(there)
    ours_s, theirs_s = _in_turn(
        pairs, lambda: _tlvm(there, "status"), lambda: _gcloud(there, "instances", "list")
    )
    _tlvm(there, "down", "--yes", "--force")
    ratio = ours_s / theirs_s
    text = (
        f"tlvm status: {ours_s:.2f} s, gcloud compute instances list: {theirs_s:.2f} s; {ratio:.2f} times "
        f"(at most {STATUS_BAR:g})"
    )
    return text, ratio <= STATUS_BAR


def _down(there: World, pairs: int) -> tuple[str, bool]:
    def ours() -> float:
        _machine(there)
        return _tlvm(there, "down", "--yes")

    def theirs() -> float:
        _machine(there)
        return _gcloud(there, "instances", "delete", MACHINE, f"--zone={_ZONE}", "--quiet")

    ours_s, theirs_s = _in_turn(pairs, ours, theirs)
    text = (
        f"tlvm down: {ours_s:.2f} s, gcloud compute instances delete: {theirs_s:.2f} s; {ours_s - theirs_s:+.2f} s "
        f"(at most {DOWN_BAR_S:g} more)"
    )
    return text, ours_s - theirs_s <= DOWN_BAR_S


def _machine(there: World) -> None:
    """One that nobody can reach, which has taken no run."""
    offer = replace(OFFER, place=_ZONE, accelerator="none", machine_type="e2-standard-8")
    spec = wanted(name=MACHINE, project="project", accelerator="none", accelerator_count=0)
    gce(there.cloud).create(spec, offer)


def _in_turn(pairs: int, ours: Callable[[], float], theirs: Callable[[], float]) -> tuple[float, float]:
    found = [(ours(), theirs()) for _ in range(pairs)]
    return statistics.median(one for one, _ in found), statistics.median(other for _, other in found)


def _tlvm(there: World, *words: str) -> float:
    return _seconds([sys.executable, "-c", _PROGRAM, *words], there.tlvm.folder, there.tlvm.environment())


def _gcloud(there: World, *words: str) -> float:
    environment = {
        **os.environ,
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE": f"{there.cloud.url}/compute/v1/",
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "True",
        "CLOUDSDK_CONFIG": str(there.tlvm.home / "gcloud"),
        "CLOUDSDK_CORE_PROJECT": PROJECT,
        "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "1",
    }
    return _seconds(["gcloud", "compute", *words], there.tlvm.folder, environment)


def _seconds(command: list[str], folder: Path, environment: dict[str, str]) -> float:
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    seconds = time.perf_counter() - began
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command[-3:])}: exit {done.returncode}\n{done.stderr}")
    return seconds


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
