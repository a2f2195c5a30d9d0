"""`python -m tests.benchmarks.results_home`: from the end of training to the verified result on the laptop.

A stand-in for training leaves a result of 200 MB and the second of its end; `tlvm run` does the rest, a process of its own.
Beside it, the copy of the same bytes the same way, machine to store and store to laptop, one after the other: by cp with a
flush for a folder, by Google's client for a bucket that our server on loopback plays.
The promise: at most 1.3 times the copy, plus 2 s.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from tests.benchmarks import measure
from tests.fakes.gcs_server import GcsServer
from tests.faults.standin import draw

TIMES, PLUS_S = 1.3, 2.0
_PARTS = ("orchestrator", "remote", "infra", "configs")
_TRAIN = """
import json, time
from pathlib import Path
from remote.contract.layout import MachineHome
from remote.job.record import read_spec

def main(spec_path: Path, **hours: object) -> int:
    folder = MachineHome.of_this_user().run(read_spec(spec_path).run_id)
    (folder.result / "model").mkdir(exist_ok=True)
    with Path("/dev/urandom").open("rb") as noise, (folder.result / "model" / "model.safetensors").open("wb") as file:
        for _ in range(MEGABYTES):
            file.write(noise.read(1_000_000))
    (folder.result / "model" / "model.json").write_text("{}")
    (folder.result / "metrics.json").write_text(json.dumps({"ended": time.time()}))
    return 0
"""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.results_home", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--keep", action="store_true", help="append to RESULTS.md")
    chosen = parser.parse_args(arguments)
    rows = []
    with tempfile.TemporaryDirectory() as name, GcsServer() as server:
        folder = Path(name)
        code = with_a_standin(folder / "code", chosen.megabytes)
        draw(folder / "photos")
        for kind in ("a folder", "a bucket"):
            bucket = server.create_bucket("results") if kind == "a bucket" else ""
            user = User(code, folder / kind.replace(" ", "-"), bucket, server.endpoint if bucket else "")
            try:
                rows.append(row(kind, user, folder / "photos", chosen.megabytes, chosen.repeats))
            finally:
                user("down", "--force", "--yes")
    print(*(text for text, _ in rows), sep="\n")
    if chosen.keep:
        measure.keep(
            "Runs that survive: from the end of training to the result here", [text for text, _ in rows]
        )
    return 0 if all(good for _, good in rows) else 1


def with_a_standin(folder: Path, megabytes: int) -> Path:
    """A copy of the code in which training takes no time."""
    for part in _PARTS:
        shutil.copytree(measure.ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "remote" / "train.py").write_text(_TRAIN.replace("MEGABYTES", str(megabytes)))
    return folder


class User:
    def __init__(self, code: Path, home: Path, bucket: str, endpoint: str) -> None:
        home.mkdir()
        self.home, self.bucket, self.endpoint = home, bucket, endpoint
        self._variables = {
            "PYTHONPATH": str(code),
            "TLVM_DATA_DIR": str(home / "data"),
            "PYTHONSAFEPATH": "1",
        }
        if bucket:
            self._variables |= {"TLVM_STORE_URL": bucket, "TLVM_STORE_ENDPOINT": endpoint}

    def __call__(self, *words: str | Path) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator", *map(str, words)],
            cwd=self.home,
            env={**os.environ} | self._variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def row(kind: str, user: User, photos: Path, megabytes: int, repeats: int) -> tuple[str, bool]:
    user("upload", photos)
    ours, copies = [], []
    for _ in range(repeats):
        said = json.loads(user("run", "fixed-extractor", "--weights", "none", "--json"))
        ours.append(time.time() - said["metrics"]["ended"])
        model = Path(said["folder"]) / "model" / "model.safetensors"
        copies.append(copied_by_client(user, model) if user.bucket else copied(model, user.home))
        shutil.rmtree(said["folder"])
    took, copy = statistics.median(ours), statistics.median(copies)
    good = took <= TIMES * copy + PLUS_S
    text = (
        f"{'ok' if good else 'MISSED'}: {megabytes} MB through {kind}: verified here {took:.2f} s after the end of "
        f"training; the copy of the same bytes {copy:.2f} s (medians of {repeats}; at most {TIMES:g} times + {PLUS_S:g} s, "
        f"{TIMES * copy + PLUS_S:.2f} s)"
    )
    return text, good


def copied(file: Path, home: Path) -> float:
    """By cp to the store, and from there to the laptop, each flushed to the disk."""
    began = time.perf_counter()
    for source, target in ((file, home / "copy-1"), (home / "copy-1", home / "copy-2")):
        shutil.copyfile(source, target)
        with target.open("rb") as done:
            os.fsync(done.fileno())
    took = time.perf_counter() - began
    for name in ("copy-1", "copy-2"):
        (home / name).unlink()
    return took


def copied_by_client(user: User, file: Path) -> float:
    """Google's client as it comes: to the bucket, and from there, with its checksums."""
    client = storage.Client(
        project="none", credentials=AnonymousCredentials(), client_options={"api_endpoint": user.endpoint}
    )
    blob = client.bucket(user.bucket.removeprefix("gs://")).blob("copy")
    target = user.home / "copy"
    began = time.perf_counter()
    blob.upload_from_filename(str(file))
    blob.download_to_filename(str(target))
    took = time.perf_counter() - began
    target.unlink()
    blob.delete()
    return took


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
