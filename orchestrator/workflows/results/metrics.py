"""metrics.json, the figures of a run: read as the work of somebody else."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from orchestrator.errors import CloudError, TlvmError
from orchestrator.stores.base import Store
from orchestrator.stores.documents import read_document
from remote.contract import document, layout
from remote.contract.document import ContractError
from remote.contract.metrics import Metrics

METRICS_BYTES_MAX = 64 * 1024 * 1024
_READERS = 16


def read_metrics(path: Path) -> Metrics:
    """CloudError when it is not what a run writes."""
    try:
        if path.stat().st_size > METRICS_BYTES_MAX:
            raise ContractError(f"more than {METRICS_BYTES_MAX} bytes")
        return _metrics(path.read_bytes(), path.name)
    except (OSError, ContractError) as error:
        raise CloudError(f"{path} can't be read", detail=str(error)) from None


def accuracies(store: Store, run_ids: Collection[str]) -> dict[str, float]:
    """By run id; a run whose figures are missing or can't be read has none."""

    def one(run_id: str) -> float | None:
        found = _stored(store, run_id)
        return found.result.accuracy if found else None

    with ThreadPoolExecutor(_READERS) as pool:
        found = zip(run_ids, pool.map(one, run_ids), strict=True)
        return {run_id: accuracy for run_id, accuracy in found if accuracy is not None}


def cut_short(store: Store, run_id: str) -> str:
    """How far it came, where its hours did not last: "after 2 of 30 epochs"; "" also where its figures can't be read."""
    found = _stored(store, run_id)
    return found.cut_short if found else ""


def _stored(store: Store, run_id: str) -> Metrics | None:
    try:
        key = layout.run_key(run_id, "metrics.json")
        found = read_document(store, key, bytes_max=METRICS_BYTES_MAX)
        return _metrics(found[0], key) if found else None
    except (TlvmError, ContractError):
        return None


def _metrics(text: bytes, what: str) -> Metrics:
    found = document.decode(Metrics, text, what=what)
    if not any(one.split == found.reported and one.n > 0 for one in found.evaluations):
        raise ContractError(f"{what} lacks the figures that it reports")
    return found
