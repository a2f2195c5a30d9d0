"""What fine-tuning reached on the same images: stands beside the figure of a network that was trained from nothing.

Published comparisons rarely favour new weights, so whoever computes them should see what the old ones would have given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import CloudError
from orchestrator.records import Records
from orchestrator.workflows.results.metrics import read_metrics

COMPARED = "fine-tune-all"


@dataclass(frozen=True)
class Beside:
    run_id: str
    split: str  # whose images were measured
    n: int
    accuracy: float
    accuracy_interval: list[float]  # 95 %


def beside(records: Records, scenario: str, metrics: Mapping[str, Any]) -> Beside | None:
    """The newest run of fine-tune-all that is here, of the same network on the same dataset version; else None."""
    if scenario != "from-scratch":
        return None
    wanted = [metrics.get(name) for name in ("dataset", "dataset_version", "model", "reported")]
    ours = [run for run in records.runs() if run.run_id.startswith(f"{COMPARED}-") and run.pulled_to]
    for run in sorted(ours, key=lambda run: run.run_id, reverse=True):
        try:
            found = read_metrics(Path(run.pulled_to or "") / "metrics.json")
        except CloudError:
            continue  # its folder was moved or deleted: it is not here any more
        if [found.dataset, found.dataset_version, found.model, found.reported] == wanted:
            figures = found.result
            return Beside(run.run_id, figures.split, figures.n, figures.accuracy, figures.accuracy_interval)
    return None
