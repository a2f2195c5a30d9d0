"""`make bench`: every benchmark, one after the other; exit 1 when one breaks its promise. Arguments go to each."""

from __future__ import annotations

import sys

from tests.benchmarks import (
    checkpoints,
    fetch,
    fine_tuning,
    following,
    frozen,
    gce,
    images,
    overhead,
    publishing,
    results_home,
    startup,
    status_runs,
    tutorial,
    upload,
)


def main(arguments: list[str]) -> int:
    codes: list[int] = []
    for benchmark in (
        startup,
        overhead,
        tutorial,
        frozen,
        fine_tuning,
        images,
        fetch,
        upload,
        following,
        publishing,
        checkpoints,
        status_runs,
        results_home,
        gce,
    ):
        print(f"== {benchmark.__name__}", flush=True)
        codes.append(benchmark.main(arguments))
    return max(codes)


if __name__ == "__main__":
    sys.exit(main([argument for argument in sys.argv[1:] if argument == "--keep"]))
