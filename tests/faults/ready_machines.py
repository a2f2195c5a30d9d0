"""Machines of the fake Compute Engine that are ready as soon as they are on: a real SSH server each, in this process.

What is not about booting needs no boot. Commands run on this computer, in a home of the machine's own.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import threading
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import asyncssh

from orchestrator.providers import local_processes
from orchestrator.providers.local_folder import Description
from orchestrator.providers.local_session import serve_session, write_shims
from remote.contract.run_spec import StoreRef
from tests.fakes.compute_cloud import items
from tests.fakes.compute_hardware import Boot
from tests.fakes.guest_agent import welcome

T = TypeVar("T")
_NUMBERS = itertools.count(os.getpid() % 3600 * 1000)  # two test runs on one computer use other addresses


class ReadyMachines:
    """folder       holds their homes
    furnish         is called with the home of each new one
    profiles        who comes in through OS Login, where a machine has that on: (name, key)
    """

    def __init__(
        self,
        folder: Path,
        furnish: Callable[[Path], None] = lambda home: None,
        profiles: Callable[[], list[tuple[str, str]]] = list,
    ) -> None:
        self.folder = folder
        self._furnish = furnish
        self._profiles = profiles
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._key = asyncssh.generate_private_key("ssh-ed25519")
        self._listening: dict[str, asyncssh.SSHAcceptor] = {}
        self._visitors: dict[str, list[asyncssh.SSHServerConnection]] = {}

    def home(self, id: str) -> Path:
        return self.folder / id

    def start(self, boot: Boot) -> str:
        home, address = self.home(boot.id), _address()
        if not home.exists():
            (home / ".tlvm").mkdir(parents=True)
            self._furnish(home)
        write_shims(home)
        (home / ".tlvm" / "READY").touch()
        self._listening[boot.id] = self._run(self._listen(boot, home, address))
        kind, value = self._key.export_public_key().decode().split()[:2]
        boot.publish(f"hostkeys/{kind}", value)
        return address

    def stop(self, id: str) -> None:
        """Who is logged in is thrown out, as by a shutdown."""
        if acceptor := self._listening.pop(id, None):
            self._loop.call_soon_threadsafe(acceptor.close)
            local_processes.end_tree(id)
            for visitor in self._visitors.pop(id, []):
                self._loop.call_soon_threadsafe(visitor.abort)

    def remove(self, id: str) -> None:
        self.stop(id)
        shutil.rmtree(self.home(id), ignore_errors=True)

    def is_on(self, id: str) -> bool:
        return id in self._listening

    def console(self, id: str) -> str:
        return ""

    def close(self) -> None:
        for id in list(self._listening):
            self.remove(id)
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self, boot: Boot, home: Path, address: str) -> asyncssh.SSHAcceptor:
        now = datetime.now(UTC).isoformat()
        about = Description(boot.name, boot.id, "", "", now, now, "none", 0, StoreRef(""), {})
        return await asyncssh.listen(
            address,
            22,
            server_factory=lambda: _Doorman(boot, self._profiles, self._visitors.setdefault(boot.id, [])),
            server_host_keys=[self._key],
            process_factory=lambda process: serve_session(process, home, about),
            sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=os.fsencode(home)),
            encoding=None,
            line_editor=False,
            reuse_address=True,
        )

    async def _end(self) -> None:
        """Whatever still talks to somebody who was killed."""
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)


class _Doorman(asyncssh.SSHServer):
    """Lets in whom the metadata names at this moment; with OS Login, whom Google's accounts do."""

    def __init__(
        self,
        boot: Boot,
        profiles: Callable[[], list[tuple[str, str]]],
        visitors: list[asyncssh.SSHServerConnection],
    ) -> None:
        self._boot = boot
        self._profiles = profiles
        self._visitors = visitors

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._visitors.append(conn)

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        shown = " ".join(key.export_public_key().decode().split()[:2])
        told = items(self._boot.instance["metadata"])
        keys = welcome(told, {}, datetime.now(UTC))
        if told.get("enable-oslogin", "").upper() == "TRUE":
            keys = self._profiles()
        return any(user == username and line.startswith(shown) for user, line in keys)


def _address() -> str:
    number = next(_NUMBERS)
    return f"127.{190 + number // 62500 % 60}.{number // 250 % 250}.{number % 250 + 1}"
