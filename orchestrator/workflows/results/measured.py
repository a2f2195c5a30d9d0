"""What a finished run measured, read from its pulled files: its figures, and what it said of each image."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import CloudError, NotFoundError
from orchestrator.workflows.results.metrics import read_metrics
from orchestrator.workflows.results.pull import pull
from orchestrator.workflows.runs.overview import called
from orchestrator.workflows.workspace import Workspace
from remote.contract.metrics import Metrics
from remote.contract.wording import count

PREDICTIONS_BYTES_MAX = 2 * 1024**3
_COLUMNS = ["path", "split", "label", "predicted"]  # and then p_<class> of each class


@dataclass(frozen=True)
class Said:
    """What a model said of one image."""

    path: str  # as in the manifest, percent-encoded
    label: str
    predicted: str
    probabilities: list[float]  # in the order of the classes

    @property
    def right(self) -> bool:
        return self.label == self.predicted


@dataclass(frozen=True)
class Measured:
    run_id: str
    folder: Path
    metrics: Metrics
    said: list[Said]  # of the split that is reported, in the order of the manifest


def measured(workspace: Workspace, run: str) -> Measured:
    """Pull the run when it is not here, and read it.

    NotFoundError   no such run, or it measured nothing
    CloudError      its files can't be read
    """
    pulled = pull(workspace, run)
    if pulled.state != "SUCCEEDED":
        raise NotFoundError(
            f"The run {pulled.run_id} measured nothing",
            detail=f"It ended as {pulled.state}.",
            next=f"tlvm logs {called(workspace, pulled.run_id)} shows why.",
        )
    metrics = read_metrics(pulled.folder / "metrics.json")
    path = pulled.folder / "predictions.csv"
    try:
        said = list(_said(path, metrics.classes, metrics.reported))
    except (OSError, ValueError, csv.Error) as error:
        raise CloudError(f"{path} can't be read", detail=str(error)) from None
    if len(said) != metrics.result.n:
        raise CloudError(
            f"{path} and metrics.json disagree: {count(len(said), 'image')}, and {metrics.result.n}"
        )
    return Measured(pulled.run_id, pulled.folder, metrics, said)


def _said(path: Path, classes: Sequence[str], split: str) -> Iterator[Said]:
    if path.stat().st_size > PREDICTIONS_BYTES_MAX:
        raise ValueError(f"more than {PREDICTIONS_BYTES_MAX} bytes")
    known = frozenset(classes)
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = csv.reader(file)
        if next(rows, []) != [*_COLUMNS, *(f"p_{name}" for name in classes)]:
            raise ValueError("its columns are not those of the classes")
        for row in rows:
            image, of, label, predicted, *shares = row
            if split not in (of, "all"):
                continue
            probabilities = [float(share) for share in shares]
            if len(probabilities) != len(classes) or not all(map(math.isfinite, probabilities)):
                raise ValueError(f"{image[:80]}: not a probability for each class")
            if label not in known or predicted not in known:
                raise ValueError(f"{image[:80]}: an unknown class")
            yield Said(image, label, predicted, probabilities)
