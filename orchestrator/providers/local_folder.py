"""The folder that is a local machine; its layout is spelt here alone.

<data dir>/machines/<name>/       mode 0700
    machine.json                  what it is; written before the folder has its name, never changed: it is our label
    host_key, host_key.pub        made with the folder
    authorized_keys               OpenSSH lines, each with expiry-time="20260807142530Z"
    server.json                   the server that runs: pid, birth, port; gone or untrue when it does not
    server.log
    home/                         HOME of all that runs there; home/.tlvm is its MachineHome
<data dir>/machines/.new-*        being made; then renamed, which is the lock of two creators
<data dir>/machines/.gone-*       being deleted
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.errors import CloudError, ConfigError
from remote.contract import document
from remote.contract.layout import MachineHome
from remote.contract.run_spec import StoreRef

from . import local_processes

KIND = "tlvm local machine"
USER = "tlvm"
HOST = "127.0.0.1"
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_KEY_LINE = re.compile(r'expiry-time="(\d{14})Z" (\S+ \S+).*')
_UNFINISHED_S = 3600  # a folder that was being made so long ago is rubbish


@dataclass(frozen=True)
class Description:
    """machine.json"""

    name: str
    id: str
    owner: str
    project: str
    created: str  # ISO 8601, UTC
    ends: str
    accelerator: str
    accelerator_count: int
    store: StoreRef
    settings: dict[str, str]
    kind: str = KIND
    schema: int = 1


@dataclass(frozen=True)
class Server:
    """server.json"""

    pid: int
    birth: str
    port: int  # 0 while it does not listen
    schema: int = 1

    def lives(self) -> bool:
        return self.birth != "" and local_processes.birth(self.pid) == self.birth


@dataclass(frozen=True)
class MachineFolder:
    path: Path

    @property
    def home(self) -> Path:
        return self.path / "home"

    @property
    def ready(self) -> Path:
        return MachineHome(self.home / ".tlvm").ready

    @property
    def host_key(self) -> Path:
        return self.path / "host_key"

    @property
    def log(self) -> Path:
        return self.path / "server.log"

    def describe(self) -> Description | None:
        """None when there is no machine of ours; CloudError when it is one of another version of tlvm."""
        label = self.path / "machine.json"
        try:
            text = label.read_bytes()
            if json.loads(text).get("kind") != KIND:
                return None
        except (FileNotFoundError, NotADirectoryError, ValueError, AttributeError):
            return None
        try:
            return document.decode(Description, text, what=str(label))
        except document.ContractError as error:
            raise CloudError(f"The local machine {self.path.name} can't be read", detail=str(error)) from None

    def server(self) -> Server | None:
        """The server that runs; None when none does."""
        try:
            found = document.decode(
                Server, (self.path / "server.json").read_bytes(), what=f"{self.path}/server.json"
            )
        except (FileNotFoundError, NotADirectoryError, document.ContractError):
            return None
        return found if found.lives() else None

    def write_server(self, server: Server) -> None:
        document.write(self.path / "server.json", server, mode=0o600)

    def host_keys(self) -> list[str]:
        return [(self.path / "host_key.pub").read_text().strip()]

    def authorize(self, public_key: str, expires: datetime) -> None:
        """One write of one line, so that two of them never mix."""
        line = f'expiry-time="{expires.astimezone(UTC):%Y%m%d%H%M%S}Z" {" ".join(public_key.split())}\n'
        descriptor = os.open(self.path / "authorized_keys", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            file.write(line.encode())

    def authorized(self, at: datetime) -> set[str]:
        """The keys ("ssh-ed25519 AAAA...") that may come in at that time."""
        matches = map(_KEY_LINE.fullmatch, (self.path / "authorized_keys").read_text().splitlines())
        stamp = f"{at.astimezone(UTC):%Y%m%d%H%M%S}"
        return {match[2] for match in matches if match and stamp < match[1]}


def checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name[:80]!r} is not the name of a machine",
            next="A name has lower-case letters, digits and '-', at most 63, and begins and ends with a letter or digit.",
        )
    return name


def folder(machines: Path, name: str) -> MachineFolder:
    return MachineFolder(machines / checked_name(name))


def folders(machines: Path) -> Iterator[MachineFolder]:
    if machines.is_dir():
        for path in sorted(machines.iterdir()):
            if _NAME.fullmatch(path.name):
                yield MachineFolder(path)


def make(machines: Path, description: Description, public_key: str, host_key: tuple[bytes, str]) -> bool:
    """Make the folder of a machine, complete or not at all; False when something has that name already.

    host_key   private file and public line
    """
    machines.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = MachineFolder(machines / f".new-{description.name}-{secrets.token_hex(4)}")
    fresh.path.mkdir(mode=0o700)
    try:
        fresh.home.mkdir(mode=0o700)
        fresh.authorize(public_key, datetime.fromisoformat(description.ends))
        fresh.host_key.touch(mode=0o600)
        fresh.host_key.write_bytes(host_key[0])
        (fresh.path / "host_key.pub").write_text(host_key[1] + "\n")
        document.write(fresh.path / "machine.json", description, mode=0o600)
        target = machines / checked_name(description.name)
        if target.exists():  # an empty folder would be replaced by the rename
            return False
        try:
            fresh.path.rename(target)
        except OSError:
            if target.exists():
                return False
            raise
        return True
    finally:
        if fresh.path.exists():
            shutil.rmtree(fresh.path)


def remove(found: MachineFolder) -> None:
    """End a machine. First its processes: one that writes would make the folder anew. Then it loses its name, so that
    nothing of it is found; the rest can be done by whoever comes.
    """
    _end_processes(found)
    gone = found.path.with_name(f".gone-{found.path.name}-{secrets.token_hex(4)}")
    try:
        found.path.rename(gone)
    except FileNotFoundError:
        return
    finish_removing(gone)


def sweep(machines: Path) -> None:
    """Finish what was cut short: deletions at once, folders that were being made after a while."""
    if not machines.is_dir():
        return
    for path in machines.iterdir():
        if path.name.startswith(".gone-"):
            finish_removing(path)
        elif path.name.startswith(".new-"):
            with suppress(FileNotFoundError):  # finished meanwhile
                if time.time() - path.stat().st_mtime > _UNFINISHED_S:
                    shutil.rmtree(path)


def finish_removing(gone: Path) -> None:
    """End all processes of a machine that lost its name, its server too, then remove its files. Any number at once."""
    _end_processes(MachineFolder(gone))
    _remove_files(gone)


def _end_processes(found: MachineFolder) -> None:
    description = found.describe()
    if description is not None:
        local_processes.end_tree(description.id)


def _remove_files(path: Path) -> None:
    for parent, names, _ in os.walk(path):
        for name in names:  # a folder that its owner may not write can't be emptied
            child = Path(parent, name)
            with suppress(FileNotFoundError):
                if not child.is_symlink():
                    child.chmod(stat.S_IRWXU)
    shutil.rmtree(path, ignore_errors=True)
    with suppress(FileNotFoundError):  # somebody else may be removing it too
        shutil.rmtree(path)
