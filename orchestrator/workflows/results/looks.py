"""The ledger beside a dataset version: which runs have looked at its test images. Each look makes the next one worth less.

This computer writes it, as soon as it has a verified result: a machine may write only what is its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.errors import ConflictError
from orchestrator.stores.base import Store
from orchestrator.stores.documents import write_document
from remote.contract import document, layout
from remote.contract.document import ContractError
from remote.contract.metrics import Metrics

METRICS_BYTES_MAX = 64 * 1024 * 1024
_HELD_OUT = ("val", "test", "all")


@dataclass(frozen=True)
class Looks:
    """Every look at one split of one dataset version, oldest first."""

    runs: list[str]

    def __len__(self) -> int:
        return len(self.runs)

    def of(self, run_id: str) -> int:
        """Which look this run's was: 1 is the first; 0 when it stands nowhere."""
        return self.runs.index(run_id) + 1 if run_id in self.runs else 0


def looks(store: Store, dataset: str, version: str, split: str) -> Looks:
    """One listing. What else lies there is passed over."""
    prefix = layout.looks_prefix(dataset, version, split)
    found = []
    for blob in store.blobs(prefix):
        try:
            found.append(layout.checked_run_id(blob.key.removeprefix(prefix)))
        except ContractError:
            continue
    return Looks(sorted(found, key=lambda run_id: run_id.split("-")[-3:]))


def keep_looks(store: Store, run_id: str, metrics: Path) -> None:
    """Count the run once for each split that it was measured on and whose images chose nothing; again is success.

    metrics         its metrics.json, pulled and verified; a run that has none looked at nothing
    TlvmError       the store refused
    """
    for key in _looked_at(run_id, metrics):
        looked = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            write_document(store, key, f'{{"run_id": "{run_id}", "looked": "{looked}"}}\n', if_generation=0)
        except ConflictError:  # it stands there
            continue


def _looked_at(run_id: str, metrics: Path) -> list[str]:
    """Keys in the ledger. A machine may claim what it likes: only held-out splits by name, of a valid dataset."""
    try:
        if metrics.stat().st_size > METRICS_BYTES_MAX:
            return []
        found = document.decode(Metrics, metrics.read_bytes(), what=metrics.name)
        if found.run_id != run_id:
            return []
        measured = {one.split for one in found.evaluations if one.chose == "nothing" and one.n > 0}
        return [
            layout.looks_prefix(found.dataset, found.dataset_version, split) + run_id
            for split in _HELD_OUT
            if split in measured
        ]
    except (OSError, ContractError):
        return []


def ordinal(number: int) -> str:
    """ "first", "third", "21st"."""
    words = (
        "",
        "first",
        "second",
        "third",
        "fourth",
        "fifth",
        "sixth",
        "seventh",
        "eighth",
        "ninth",
        "tenth",
    )
    if number < len(words):
        return words[number]
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
