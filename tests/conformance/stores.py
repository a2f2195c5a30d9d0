"""What the store suite needs to know of each store, on the laptop and on the machine. A new store is a line in CASES."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator import errors, stores
from orchestrator.stores.faults import said
from remote import store as machine
from remote.contract.attempts import Attempts
from remote.contract.run_spec import StoreRef
from remote.contract.store import Blob, Retrying, Store
from remote.storage import Say, open_storage
from remote.storage.gcs import GcsStore
from tests.fakes.gcs_server import GcsServer

IMPATIENT_S = 0.3


@dataclass(frozen=True)
class Half:
    """The errors of one half."""

    missing: type[Exception]
    changed: type[Exception]
    refused: type[Exception]  # a key or a file that can't be used
    transient: type[Exception]
    any: type[Exception]
    say: Say


LAPTOP = Half(
    missing=errors.NotFoundError,
    changed=errors.ConflictError,
    refused=errors.ConfigError,
    transient=errors.TransientError,
    any=errors.TlvmError,
    say=said,
)
MACHINE = Half(
    missing=machine.StoreMissing,
    changed=machine.StoreChanged,
    refused=machine.StoreError,
    transient=machine.StoreUnready,
    any=machine.StoreError,
    say=machine.said,
)


@dataclass(frozen=True)
class Case:
    name: str
    half: Half
    open: Callable[[StoreRef, Attempts], Store]
    is_bucket: bool
    folder: str = ""  # of the bucket


@dataclass(frozen=True)
class Place:
    """A store of one kind, empty, with what is needed to hurt it."""

    case: Case
    store: Store
    ref: StoreRef
    server: GcsServer | None
    tmp_path: Path
    waits_s: list[float] = field(default_factory=list)  # what a retrying store has waited, without waiting

    def file(self, content: bytes, name: str = "file") -> Path:
        path = self.tmp_path / name
        path.write_bytes(content)
        return path

    def put(self, key: str, content: bytes = b"content", if_generation: int | None = None) -> Blob:
        return self.store.upload(self.file(content), key, if_generation=if_generation)

    def read(self, key: str, start: int = 0) -> bytes:
        path = self.tmp_path / "read"
        self.store.download(key, path, start=start)
        return path.read_bytes()

    def keys(self, prefix: str = "", delimiter: str | None = None) -> list[str]:
        return [blob.key for blob in self.store.blobs(prefix, delimiter=delimiter)]


def _laptop_once(ref: StoreRef, _: Attempts) -> Store:
    return open_storage(ref, LAPTOP.say)


def _machine_once(ref: StoreRef, _: Attempts) -> Store:
    return open_storage(ref, MACHINE.say)


def _laptop(ref: StoreRef, attempts: Attempts) -> Store:
    return stores.open_store(ref, attempts=attempts)


def _machine(ref: StoreRef, attempts: Attempts) -> Store:
    return machine.open_store(ref, attempts=attempts)


def impatient(half: Half) -> Callable[[StoreRef, Attempts], Store]:
    """Gives a silent server up after a moment."""

    def opened(ref: StoreRef, attempts: Attempts) -> Store:
        store = GcsStore(ref, half.say, timeout_s=IMPATIENT_S)
        return Retrying(store, attempts, changed=half.changed, checksum_of=stores.checksum_of)

    return opened


CASES = [
    Case("directory", LAPTOP, _laptop_once, is_bucket=False),
    Case("gcs", LAPTOP, _laptop_once, is_bucket=True),
    Case("gcs-folder", LAPTOP, _laptop_once, is_bucket=True, folder="/team/a"),
    Case("retrying-directory", LAPTOP, _laptop, is_bucket=False),
    Case("retrying-gcs", LAPTOP, _laptop, is_bucket=True),
    Case("machine-directory", MACHINE, _machine_once, is_bucket=False),
    Case("machine-gcs", MACHINE, _machine_once, is_bucket=True, folder="/team/b"),
    Case("machine-retrying-directory", MACHINE, _machine, is_bucket=False),
    Case("machine-retrying-gcs", MACHINE, _machine, is_bucket=True),
]
RETRYING_GCS = [case for case in CASES if "retrying" in case.name and case.is_bucket]
IMPATIENT_GCS = [
    Case("retrying-gcs", LAPTOP, impatient(LAPTOP), is_bucket=True),
    Case("machine-retrying-gcs", MACHINE, impatient(MACHINE), is_bucket=True),
]


def place(case: Case, tmp_path: Path, server: GcsServer, *, tries: int = 4) -> Place:
    """An empty store. `waits_s` of a place is filled by retries instead of waiting."""
    if case.is_bucket:
        ref = StoreRef(server.create_bucket("trees") + case.folder, endpoint=server.endpoint)
    else:
        ref = StoreRef(str(tmp_path / "store"))
    waits_s: list[float] = []
    attempts = Attempts(count=tries, sleep=waits_s.append, random=lambda: 0.0)
    return Place(
        case, case.open(ref, attempts), ref, server if case.is_bucket else None, tmp_path / "files", waits_s
    )
