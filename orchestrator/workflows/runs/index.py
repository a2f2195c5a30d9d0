"""Which runs there are and which of them are over, from listings alone: a store may have thousands that nobody asks for.

MANIFEST.json is written last and only by a run that has ended, so where it is, nothing is left to be told or to be done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from orchestrator.providers.base import Machine
from orchestrator.stores.base import Store
from orchestrator.workflows.runs.documents import run_ids, run_in
from orchestrator.workflows.runs.named_by_run import run_of
from remote.contract import layout

_CLOCKS_DIFFER = timedelta(days=1)  # at most, that of a laptop and that of a cloud


@dataclass(frozen=True)
class RunIndex:
    ids: list[str]  # oldest first
    over: frozenset[str]  # of them, those whose result is in the store

    def newest(self, count: int) -> list[str]:
        """Every run that is not over, wherever it stands, and so many of the newest; oldest first."""
        return self._with(self.ids[max(0, len(self.ids) - count) :])

    def of_machines(self, store: Store, machines: Sequence[Machine]) -> list[str]:
        """Every run that is not over, and those that may have been on one of these machines; oldest first.

        A run is made once its machine is there, but for one that the machine is named by, and may come to another
        machine later.
        """
        if not machines:
            return self._with(())
        since = min(machine.created for machine in machines) - _CLOCKS_DIFFER
        named = {run_of(machine.name) for machine in machines}
        moved = _started_again(store)
        return self._with(
            run_id for run_id in self.ids if run_id in moved or run_id in named or _made(run_id) >= since
        )

    def _with(self, more: Iterable[str]) -> list[str]:
        wanted = set(more)
        return [run_id for run_id in self.ids if run_id not in self.over or run_id in wanted]


def run_index(store: Store) -> RunIndex:
    """Two listings, side by side, whatever the number of runs and of their files."""
    with ThreadPoolExecutor(2, thread_name_prefix="index") as pool:
        ids, over = pool.submit(run_ids, store), pool.submit(_over, store)
        return RunIndex(ids.result(), over.result())


def _over(store: Store) -> frozenset[str]:
    return frozenset(run_in(blob.key) for blob in store.blobs(layout.RUNS, match="*/MANIFEST.json"))


def _started_again(store: Store) -> set[str]:
    """Those that were asked of more than one machine, or of one more than once."""
    asked = Counter(run_in(blob.key) for blob in store.blobs(layout.RUNS, match="*/attempts/*"))
    return {run_id for run_id, times in asked.items() if times > 1}


def _made(run_id: str) -> datetime:
    """When, as its id says; one that says no time counts as made now."""
    try:
        return datetime.strptime("-".join(run_id.split("-")[-3:-1]), "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return datetime.now(UTC)
