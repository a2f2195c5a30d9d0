"""metrics.json, the figures of a run: read as the work of somebody else."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from orchestrator.errors import CloudError, TlvmError
from orchestrator.stores.base import Store
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
        metrics = document.decode(Metrics, path.read_bytes(), what=path.name)
        if not any(one.split == metrics.reported and one.n > 0 for one in metrics.evaluations):
            raise ContractError(f"{path.name} lacks the figures that it reports")
    except (OSError, ContractError) as error:
        raise CloudError(f"{path} can't be read", detail=str(error)) from None
    return metrics


def accuracies(store: Store, run_ids: Collection[str]) -> dict[str, float]:
    """By run id; a run whose figures are missing or can't be read has none."""

    def one(run_id: str) -> float | None:
        key = layout.run_key(run_id, "metrics.json")
        with tempfile.TemporaryDirectory(prefix="tlvm-") as folder:
            path = Path(folder) / "metrics.json"
            try:
                blob = store.get(key)
                if blob is None or blob.size > METRICS_BYTES_MAX:
                    return None
                store.download(key, path)
                return read_metrics(path).result.accuracy
            except TlvmError:
                return None

    with ThreadPoolExecutor(_READERS) as pool:
        found = zip(run_ids, pool.map(one, run_ids), strict=True)
        return {run_id: accuracy for run_id, accuracy in found if accuracy is not None}
