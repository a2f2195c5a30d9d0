"""What the store says of runs: their specs, statuses and result manifests, read as the work of somebody else."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

from orchestrator.errors import CloudError, NotFoundError
from orchestrator.stores.base import Blob, Store
from orchestrator.stores.documents import read_document, read_listed
from orchestrator.workflows.runs.remembered import Documents, RememberedRuns
from remote.contract import document, layout
from remote.contract.document import ContractError
from remote.contract.run_attempt import Attempt
from remote.contract.run_spec import RunSpec
from remote.contract.run_status import FINAL, ResultManifest, RunStatus
from remote.contract.stored_checkpoints import LatestCheckpoints

T = TypeVar("T")
BYTES_MAX = 16 * 1024 * 1024
_READERS = 32  # as many requests as a store takes at once
_LISTED_FROM = 20  # so many runs: what all have is listed, which costs about as much as to ask for three
_ATTEMPTS_MAX = 1000  # a machine may write any number
SPEC, STATUS, ATTEMPTS = "spec.json", "status.json", "attempts/*"


@dataclass(frozen=True)
class StoredRun:
    """A run as the store knows it."""

    spec: RunSpec
    status: RunStatus | None  # None until the machine has said something
    attempts: list[Attempt] = field(default_factory=list)  # in order of their numbers

    @property
    def state(self) -> str:
        return self.status.state if self.status else "QUEUED"

    @property
    def active(self) -> bool:
        return self.state not in FINAL

    @property
    def machine(self) -> str:
        """The one that it was started on last."""
        return self.attempts[-1].machine if self.attempts else self.spec.machine

    @property
    def provider(self) -> str:
        """Of that machine; "" when no attempt tells."""
        return self.attempts[-1].provider if self.attempts else ""

    @property
    def asked(self) -> str:
        """When it was started there, ISO 8601; by the laptop's clock."""
        return self.attempts[-1].asked if self.attempts else self.spec.created

    @property
    def last_number(self) -> int:
        """Of its last attempt, as laptops asked for it or the machine counts it; 0 when it has none."""
        known = [attempt.number for attempt in self.attempts]
        if self.status:
            known += [self.status.attempt, *(times.number for times in self.status.attempts)]
        return max(known, default=0)


def run_ids(store: Store) -> list[str]:
    """Everything below runs/ that has the name of a run, oldest first; what else lies there is none of ours."""
    found = []
    for run_id in store.folders(layout.RUNS):
        try:
            found.append(layout.checked_run_id(run_id))
        except ContractError:
            continue
    return sorted(found, key=lambda run_id: run_id.split("-")[-3:])


def run_in(key: str) -> str:
    """Whose document it is, by its key."""
    return key.removeprefix(layout.RUNS).partition("/")[0]


def short(run_id: str, known: Iterable[str] = ()) -> str:
    """What a command line calls a run: its last four letters, or all of its id where another one that is known ends so."""
    end = run_id[-4:]
    return run_id if any(other.endswith(end) for other in known if other != run_id) else end


def stored_runs(store: Store, remembered: RememberedRuns | None = None) -> tuple[list[StoredRun], list[str]]:
    """Every run, oldest first, and a sentence for each one whose documents can't be read.

    remembered   runs that are over are read from there, and added to it
    """
    return read_runs(store, run_ids(store), remembered)


def read_runs(
    store: Store, ids: Sequence[str], remembered: RememberedRuns | None = None
) -> tuple[list[StoredRun], list[str]]:
    """The same of these runs alone, in their order."""
    runs, problems = [], []
    known = remembered.all() if remembered else {}
    fresh: dict[str, Documents] = {}
    remembered_ones = {run_id: run for run_id in ids if (run := _remembered(run_id, known))}
    unknown = [run_id for run_id in ids if run_id not in remembered_ones]
    listed = _listed(store) if len(unknown) >= _LISTED_FROM else None

    def read(run_id: str) -> StoredRun | str:
        try:
            blobs = _asked(store, run_id) if listed is None else listed.get(run_id, [])
            documents = _documents(store, run_id, blobs)
            found = _decoded(run_id, documents)
        except ContractError as error:
            return str(error)
        if found and found.status and not found.active and found.status.published:
            fresh[run_id] = documents
        return found or ""

    with ThreadPoolExecutor(_READERS) as pool:
        reading = pool.map(read, unknown)
        for run_id in ids:
            found = remembered_ones.get(run_id) or next(reading)
            if isinstance(found, StoredRun):
                runs.append(found)
            elif found:
                problems.append(found)
    if remembered and fresh:
        remembered.keep(fresh)
    return runs, problems


def _remembered(run_id: str, known: Mapping[str, Documents]) -> StoredRun | None:
    try:
        return _decoded(run_id, known.get(run_id, {}))
    except ContractError:  # written by another version of tlvm: it is read again
        return None


def stored_run(store: Store, run_id: str) -> StoredRun | None:
    """One run; None when there is none. ContractError when its documents can't be read."""
    return _decoded(run_id, _documents(store, run_id, _asked(store, run_id)))


def required_run(store: Store, run_id: str) -> StoredRun:
    """The same for whoever can't do without it. NotFoundError when there is none, CloudError when it can't be read."""
    try:
        found = stored_run(store, run_id)
    except ContractError as error:
        raise CloudError(f"What the store says of {run_id} can't be read", detail=str(error)) from None
    if found is None:
        raise NotFoundError(f"There is no run {run_id}", next="tlvm runs lists what there is.")
    return found


def stored_attempts(store: Store, run_id: str) -> list[Attempt]:
    """In order of their numbers. ContractError when one can't be read."""
    return _attempts(run_id, _documents(store, run_id, _asked_attempts(store, run_id)))


def latest_checkpoints(store: Store, run_id: str) -> LatestCheckpoints | None:
    """What a run can go on from elsewhere; None when there is nothing. What can't be read counts as nothing."""
    try:
        return _read(LatestCheckpoints, store, layout.latest_checkpoints_key(run_id))
    except ContractError:
        return None


def result_manifest(store: Store, run_id: str) -> ResultManifest | None:
    """MANIFEST.json of a run; None when it is not there. ContractError when it is not what it should be."""
    return _read(ResultManifest, store, layout.run_key(run_id, "MANIFEST.json"))


def result_problem(store: Store, run_id: str) -> str:
    """Why the result of a run is not whole in the store; "" when every file has the size and checksum it should."""
    try:
        manifest = result_manifest(store, run_id)
    except ContractError as error:
        return str(error)
    if manifest is None:
        return "MANIFEST.json is not in the store"
    if manifest.run_id != run_id:
        return f"its MANIFEST.json is of the run {manifest.run_id}"
    prefix = layout.run_key(run_id)
    there = {blob.key.removeprefix(prefix): blob for blob in store.blobs(prefix)}
    for file in manifest.files:
        blob = there.get(file.path)
        if blob is None:
            return f"{file.path} is not in the store"
        if (blob.size, blob.crc32c) != (file.size, file.crc32c):
            return f"{file.path} is not the file that MANIFEST.json names (size or checksum)"
    return ""


def _listed(store: Store) -> dict[str, list[Blob]]:
    """By run, where its documents are: spec, status, attempts."""
    found: dict[str, list[Blob]] = {}
    with ThreadPoolExecutor(3, thread_name_prefix="listed") as pool:
        listing = [
            pool.submit(lambda name: list(store.blobs(layout.RUNS, match=f"*/{name}")), name)
            for name in (SPEC, STATUS, ATTEMPTS)
        ]
    for blob in chain.from_iterable(listed.result() for listed in listing):
        blobs = found.setdefault(run_in(blob.key), [])
        if len(blobs) < _ATTEMPTS_MAX:
            blobs.append(blob)
    return found


def _asked(store: Store, run_id: str) -> Iterator[Blob]:
    """The same of one run; none where it was deleted since it was listed, or never announced."""
    spec = store.get(layout.run_key(run_id, SPEC))
    if spec is None:
        return
    yield spec
    if status := store.get(layout.run_key(run_id, STATUS)):
        yield status
    yield from _asked_attempts(store, run_id)


def _asked_attempts(store: Store, run_id: str) -> Iterator[Blob]:
    return islice(store.blobs(layout.attempts_prefix(run_id)), _ATTEMPTS_MAX)


def _documents(store: Store, run_id: str, blobs: Iterable[Blob]) -> Documents:
    """What they say, as text, without those that have been deleted meanwhile."""
    prefix, found = layout.run_key(run_id), {}
    with tempfile.TemporaryDirectory(prefix="tlvm-") as scratch:
        for blob in blobs:
            said = read_listed(store, blob, Path(scratch), bytes_max=BYTES_MAX)
            if said is not None:
                found[blob.key.removeprefix(prefix)] = said.decode(errors="replace")
    return found


def _decoded(run_id: str, documents: Documents) -> StoredRun | None:
    """None when there is no such run. ContractError, naming the document."""
    if SPEC not in documents:
        return None
    spec = document.decode(RunSpec, documents[SPEC], what=layout.run_key(run_id, SPEC))
    if spec.run_id != run_id:
        raise ContractError(f"runs/{run_id}/spec.json is of the run {spec.run_id}")
    said = documents.get(STATUS)
    status = document.decode(RunStatus, said, what=layout.run_key(run_id, STATUS)) if said else None
    return StoredRun(spec, status, _attempts(run_id, documents))


def _attempts(run_id: str, documents: Documents) -> list[Attempt]:
    found = [
        document.decode(Attempt, text, what=layout.run_key(run_id, name))
        for name, text in documents.items()
        if name.startswith("attempts/")
    ]
    return sorted(found, key=lambda attempt: attempt.number)


def _read(kind: type[T], store: Store, key: str) -> T | None:
    found = read_document(store, key, bytes_max=BYTES_MAX)
    return None if found is None else document.decode(kind, found[0], what=key)
