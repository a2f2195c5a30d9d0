"""`python -m tests.benchmarks.gcs_process LATENCY_S`: the fake storage service in a process of its own, until stdin ends.

Its first line on stdout is its address; it has the buckets of `BUCKETS`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.benchmarks import measure
from tests.fakes.gcs_server import GcsServer

BUCKETS = ("ours", "again", "single", "stream", "rsync")


@contextmanager
def serving(latency_s: float) -> Iterator[str]:
    """The address of a fresh service."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.gcs_process", str(latency_s)],
        cwd=measure.ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


def main(latency_s: float) -> None:
    with GcsServer(latency_s=latency_s) as server:
        for name in BUCKETS:
            server.create_bucket(name)
        print(server.endpoint, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(float(sys.argv[1]))
