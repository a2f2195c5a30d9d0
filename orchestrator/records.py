"""What this computer remembers: intents, pinned host keys, keys of its own. Nothing that can't be rebuilt.

    .tlvm/                          mode 0700, ignored by git through a file of its own
        machines/<provider>/<name>.json
        lives/<provider>/<name>.json   what machines of that name have used of its hours and budget
        ephemeral/<provider>/<name>.json   machines that come for one run and go with it; `.lock`: who sees to that
        runs/<run id>.json
        datasets/<hash>.json        which version of a dataset a folder last saw
        keys/<provider>/<name>      the private key for one machine; it never leaves this computer
        attempts.jsonl              every place that was asked for a machine, and what it said
        cache/                      what costs time only: hashes of files, verdicts, packs on their way

A missing record is no evidence of anything: the provider and the store are asked. Each record is a file of its own,
replaced whole, so two terminals never mix theirs.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from orchestrator.errors import CloudError
from remote.contract import document

T = TypeVar("T")


@dataclass(frozen=True)
class MachineRecord:
    name: str
    provider: str
    asked: str  # ISO 8601: when `up` was about to ask for it
    outcome: Literal["asked", "accepted"] = "asked"
    place: str = ""  # of the attempt that is under way, or was
    accelerator: str = ""
    request_id: str = ""  # of that attempt: sent again, it makes no second machine
    id: str = ""  # of the instance whose host keys these are
    host_keys: list[str] = field(default_factory=list)
    unproven: bool = False  # nobody vouched for those keys: the machine showed them at the first contact
    schema: int = 1


@dataclass(frozen=True)
class Life:
    """One rented machine, from its creation to its end."""

    id: str
    place: str
    began: str  # ISO 8601, as all times
    ends: str  # its hard clock
    price_per_hour: float
    ended: str = ""  # "" while it may live


@dataclass(frozen=True)
class LivesRecord:
    lives: list[Life]
    schema: int = 1


@dataclass(frozen=True)
class EphemeralRecord:
    """A machine that comes for one run and goes with it: written before it is asked for, kept until all is done."""

    machine: str
    provider: str
    run_id: str  # of the run that it was meant for
    asked: str
    schema: int = 1


@dataclass(frozen=True)
class AttemptRecord:
    """One place that was asked."""

    machine: str
    provider: str
    asked: str
    place: str
    accelerator: str
    refused: str  # why not; "" when it was accepted
    seconds: float


@dataclass(frozen=True)
class RunRecord:
    run_id: str
    machine: str
    provider: str
    asked: str
    pulled_to: str | None = None  # absolute path of the verified result
    recover: bool = False  # another machine may be rented for it when its own is taken away
    machine_settings: dict[str, str] = field(default_factory=dict)  # of its own, as `Machine` has them
    environment: list[str] = field(default_factory=list)  # names of the variables that it was given
    schema: int = 1


@dataclass(frozen=True)
class SeenRecord:
    """What a folder held when it was last uploaded: what differs later was changed by somebody."""

    folder: str  # absolute path
    store: str
    dataset: str
    version: str
    # By path: the hash of what it held instead.
    differing: dict[str, str | None] = field(default_factory=dict)
    how: str = ""  # what became of its images before they travelled (`Conversion.how`)
    schema: int = 1


class Records:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While a record is read and written back: no other terminal does the same. A crash frees it."""
        with (self._folder() / ".lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def machine(self, provider: str, name: str) -> MachineRecord | None:
        return self._read(MachineRecord, self._machine_file(provider, name))

    def machines(self) -> list[MachineRecord]:
        """Every machine that this computer asked for, or has met, on any provider."""
        files = sorted(self._folder("machines").glob("*/*.json"))
        return [record for file in files if (record := self._read(MachineRecord, file))]

    def save_machine(self, record: MachineRecord) -> None:
        self._write(self._machine_file(record.provider, record.name), record)

    def forget_machine(self, provider: str, name: str) -> None:
        """Only after the provider has confirmed that the machine is gone. Its key goes too."""
        for path in (self._machine_file(provider, name), self.key_file(provider, name)):
            path.unlink(missing_ok=True)
            path.with_name(path.name + ".pub").unlink(missing_ok=True)

    def lives(self, provider: str, name: str) -> list[Life]:
        """The machines that followed each other under that name, since `down`; the oldest first."""
        file = self.folder / "lives" / provider / f"{name}.json"
        record = self._read(LivesRecord, file) if file.exists() else None
        return record.lives if record else []

    def save_lives(self, provider: str, name: str, lives: list[Life]) -> None:
        self._write(self._folder("lives", provider) / f"{name}.json", LivesRecord(lives))

    def forget_lives(self, provider: str, name: str) -> None:
        """The user has ended the machine: the next one has hours and budget of its own."""
        (self.folder / "lives" / provider / f"{name}.json").unlink(missing_ok=True)

    def ephemerals(self) -> list[EphemeralRecord]:
        files = sorted((self.folder / "ephemeral").glob("*/*.json"))
        return [record for file in files if (record := self._read(EphemeralRecord, file))]

    def ephemeral(self, provider: str, name: str) -> EphemeralRecord | None:
        file = self.folder / "ephemeral" / provider / f"{name}.json"
        return self._read(EphemeralRecord, file) if file.exists() else None

    def save_ephemeral(self, record: EphemeralRecord) -> None:
        self._write(self._folder("ephemeral", record.provider) / f"{record.machine}.json", record)

    def forget_ephemeral(self, provider: str, name: str) -> None:
        """Only when the machine is gone and its results are here; by who sees to it alone."""
        for suffix in (".json", ".lock"):
            (self.folder / "ephemeral" / provider / f"{name}{suffix}").unlink(missing_ok=True)

    @contextmanager
    def seeing_to(self, provider: str, name: str) -> Iterator[bool]:
        """Whether nobody else sees to this ephemeral machine; until the end of the context. A crash gives it free."""
        path = self._folder("ephemeral", provider) / f"{name}.lock"
        with path.open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                alone = path.stat().st_ino == os.fstat(lock.fileno()).st_ino
            except (
                BlockingIOError,
                FileNotFoundError,
            ):  # the second: whoever had it has just come to the end
                alone = False
            yield alone

    def attempted(self, attempt: AttemptRecord) -> None:
        """Kept after the machine is gone, too: what was refused is what the next one should not ask for."""
        try:
            with (self._folder() / "attempts.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(dataclasses.asdict(attempt)) + "\n")
        except OSError as error:
            raise _broken(self.folder, error) from None

    def key_file(self, provider: str, name: str) -> Path:
        """Where the private key for a machine is, or will be; its folder exists."""
        folder = self._folder("keys", provider)
        return folder / name

    def run(self, run_id: str) -> RunRecord | None:
        return self._read(RunRecord, self._folder("runs") / f"{run_id}.json")

    def save_run(self, record: RunRecord) -> None:
        self._write(self._folder("runs") / f"{record.run_id}.json", record)

    def forget_run(self, run_id: str) -> None:
        """Only of a run that never started."""
        (self._folder("runs") / f"{run_id}.json").unlink(missing_ok=True)

    def runs(self) -> list[RunRecord]:
        """Newest last: run ids of one scenario sort by time, so order by when they were asked for."""
        files = sorted(self._folder("runs").glob("*.json"))
        found = [record for file in files if (record := self._read(RunRecord, file))]
        return sorted(found, key=lambda record: record.asked)

    def pulled(self, run_id: str, folder: Path) -> None:
        """Remember where a verified result lies."""
        with self.alone():
            if record := self.run(run_id):
                self.save_run(dataclasses.replace(record, pulled_to=str(folder)))

    def seen(self, folder: Path, store: str, dataset: str) -> SeenRecord | None:
        return self._read(SeenRecord, self._seen_file(folder, store, dataset))

    def save_seen(self, record: SeenRecord) -> None:
        self._write(self._seen_file(Path(record.folder), record.store, record.dataset), record)

    @property
    def cache(self) -> Path:
        """A folder for what can be made again."""
        return self._folder("cache")

    def _seen_file(self, folder: Path, store: str, dataset: str) -> Path:
        what = "\0".join((str(folder), store, dataset)).encode("utf-8", "surrogateescape")
        return self._folder("datasets") / f"{hashlib.sha256(what).hexdigest()}.json"

    def _machine_file(self, provider: str, name: str) -> Path:
        return self._folder("machines", provider) / f"{name}.json"

    def _folder(self, *parts: str) -> Path:
        folder = self.folder.joinpath(*parts)
        try:
            if not self.folder.is_dir():
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                (self.folder / ".gitignore").write_text("*\n", encoding="ascii")
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _broken(self.folder, error) from None
        return folder

    def _read(self, kind: type[T], file: Path) -> T | None:
        try:
            return document.decode(kind, file.read_bytes(), what=str(file))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _broken(file, error) from None
        except document.ContractError as error:
            raise CloudError(
                "A record of tlvm can't be read",
                detail=str(error),
                next=f"Delete {file}: it is rebuilt when needed.",
            ) from None

    def _write(self, file: Path, record: object) -> None:
        try:
            document.write(file, record)
        except OSError as error:
            raise _broken(file, error) from None


def _broken(path: Path, error: OSError) -> CloudError:
    return CloudError(
        f"The records of tlvm at {path} can't be used",
        detail=str(error.strerror or error),
        next="Check that folder.",
    )
