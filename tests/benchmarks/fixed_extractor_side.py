"""Our side of `tutorial`: the training process of a run, `python -m remote train SPEC`, without its imports."""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import remote
from tests.benchmarks.measure import report

_NOT_OF_THE_TRAINING = {"remote.samples", "remote.__main__"}


def main(arguments: list[str]) -> None:
    spec = Path(arguments[0])
    torch.set_num_threads(int(arguments[1]))
    for module in pkgutil.walk_packages(remote.__path__, "remote."):
        if module.name not in _NOT_OF_THE_TRAINING:
            importlib.import_module(module.name)
    report(lambda: train(spec))


def train(spec: Path) -> Mapping[str, Any]:
    from remote.train import main as train_main

    code = train_main(spec)
    if code != 0:
        raise SystemExit(f"the training ended with exit code {code}")
    result: dict[str, Any] = json.loads((spec.parent / "result" / "metrics.json").read_text(encoding="utf-8"))
    return result


if __name__ == "__main__":
    main(sys.argv[1:])
