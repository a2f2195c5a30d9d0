"""What the store says of runs: their specs, statuses and result manifests, read as the work of somebody else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from orchestrator.errors import CloudError, NotFoundError
from orchestrator.stores.base import Store
from orchestrator.stores.documents import read_document
from orchestrator.workflows.runs.remembered import Documents, RememberedRuns
from remote.contract import document, layout
from remote.contract.document import ContractError
from remote.contract.run_attempt import Attempt
from remote.contract.run_spec import RunSpec
from remote.contract.run_status import FINAL, ResultManifest, RunStatus
from remote.contract.stored_checkpoints import LatestCheckpoints

T = TypeVar("T")
BYTES_MAX = 16 * 1024 * 1024
_READERS = 16
_ATTEMPTS_MAX = 1000  # a machine may write any number
SPEC, STATUS = "spec.json", "status.json"


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

    def read(run_id: str) -> StoredRun | str:
        try:
            documents = _documents(store, run_id)
            found = _decoded(run_id, documents)
        except ContractError as error:
            return str(error)
        if found and found.status and not found.active and found.status.published:
            fresh[run_id] = documents
        return found or ""

    remembered_ones = {run_id: run for run_id in ids if (run := _remembered(run_id, known))}
    with ThreadPoolExecutor(_READERS) as pool:
        reading = pool.map(read, [run_id for run_id in ids if run_id not in remembered_ones])
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
    return _decoded(run_id, _documents(store, run_id))


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
    return _attempts(run_id, _attempt_documents(store, run_id))


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


def _documents(store: Store, run_id: str) -> Documents:
    """What is there of the documents of a run, as text."""
    found: dict[str, str] = {}
    for name in (SPEC, STATUS):
        text = _text(store, layout.run_key(run_id, name))
        if text is None and name == SPEC:
            return {}  # deleted since it was listed, or never announced
        if text is not None:
            found[name] = text
    return {**found, **_attempt_documents(store, run_id)}


def _attempt_documents(store: Store, run_id: str) -> Documents:
    prefix = layout.attempts_prefix(run_id)
    keys = [blob.key for blob in store.blobs(prefix)][:_ATTEMPTS_MAX]
    texts = {key.removeprefix(layout.run_key(run_id)): _text(store, key) for key in keys}
    return {name: text for name, text in texts.items() if text is not None}


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


def _text(store: Store, key: str) -> str | None:
    found = read_document(store, key, bytes_max=BYTES_MAX)
    return None if found is None else found[0].decode(errors="replace")
