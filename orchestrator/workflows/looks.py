"""The ledger beside a dataset version: which runs have looked at its test images. Each look makes the next one worth less."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.stores.base import Store
from remote.contract import layout
from remote.contract.document import ContractError


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
