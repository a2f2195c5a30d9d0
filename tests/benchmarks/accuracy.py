"""`python -m tests.benchmarks.accuracy RECORDS`: top-1 of every scenario on real data; `--table` prints what is known.

Each run is a process of its own and adds one line to RECORDS as it ends; what is there is not run again, so that it
may be stopped at any time. Training itself goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks import accuracy_table
from tests.benchmarks.accuracy_run import PEER, TURNS, WEIGHTS, Cell
from tests.benchmarks.measure import ROOT

DATA = (
    "hymenoptera",
    "flowers12",
    "wbc",
    "dtd10",
    "mnist1k",
    "mnist1k-rest",
    "mnist10k",
    "cifar1k",
    "cifar10",
)
_GOES_ON = (12, 124)  # told to stop; by `timeout`
_TRIES = 60
_THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.accuracy", description=__doc__)
    parser.add_argument(
        "records", type=Path, help="JSON lines, one a run; beside it the machine's folder is kept"
    )
    parser.add_argument("--table", action="store_true", help="run nothing, print the tables")
    parser.add_argument("--data", nargs="+", default=DATA, choices=DATA)
    parser.add_argument("--models", nargs="+", default=list(WEIGHTS), choices=list(WEIGHTS))
    parser.add_argument("--scenarios", nargs="+", default=["fixed-extractor", "initial-layers", PEER])
    parser.add_argument("--turns", nargs="+", type=int, default=range(TURNS + 1), help="0: the given split")
    parser.add_argument("--seeds", nargs="+", type=int, help="default: the number of the turn")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="parameters of the scenario"
    )
    parser.add_argument(
        "--through", default="", metavar="COMMAND", help="that starts each run, such as `nice`"
    )
    chosen = parser.parse_args(arguments)
    if chosen.table:
        print(accuracy_table.text(_read(chosen.records)))
        return 0
    chosen.records.parent.mkdir(parents=True, exist_ok=True)
    failed = 0
    for cell in _cells(chosen):
        if cell.key not in {_cell(record).key for record in _read(chosen.records)}:
            failed += not _run(chosen.records, cell, shlex.split(chosen.through))
    return min(1, failed)


def _cells(chosen: argparse.Namespace) -> Iterator[Cell]:
    parameters = {name: json.loads(value) for name, _, value in (word.partition("=") for word in chosen.set)}
    for turn in chosen.turns:
        for model in chosen.models:
            for data in chosen.data:
                for scenario in chosen.scenarios:
                    for seed in chosen.seeds or [turn]:
                        yield Cell(data, model, scenario, turn, seed, parameters)


def _run(records: Path, cell: Cell, through: Sequence[str]) -> bool:
    """In a process, again while it is told to stop; True when its record was written."""
    command = [*through, sys.executable, "-m", "tests.benchmarks.accuracy_run", str(records.parent), cell.key]
    for _ in range(_TRIES):
        done = subprocess.run(command, cwd=ROOT, env=os.environ | _THREADS, stdout=subprocess.PIPE)
        if done.returncode not in _GOES_ON:
            break
    if done.returncode:
        print(f"failed with {done.returncode}: {cell.key}", flush=True)
        return False
    line = done.stdout.splitlines()[-1]
    with records.open("ab") as file:
        file.write(line + b"\n")
    print(accuracy_table.line(json.loads(line)), flush=True)
    return True


def _read(records: Path) -> list[dict[str, Any]]:
    """Each cell once, whatever ran beside."""
    if not records.exists():
        return []
    read = [json.loads(line) for line in records.read_text(encoding="utf-8").splitlines()]
    return list({_cell(record).key: record for record in read}.values())


def _cell(record: dict[str, Any]) -> Cell:
    return Cell(**{name: record[name] for name in Cell.__dataclass_fields__})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
