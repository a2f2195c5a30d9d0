"""The power and the clock of a local machine: python -m orchestrator.providers.local_server FOLDER

A process of its own, in the background: an SSH server on 127.0.0.1 that lets in public keys of authorized_keys until
their time, and ends the machine at its hard clock, or when its folder was taken away. It closes its standard output as
soon as it listens; SIGTERM ends it (and leaves the machine's processes to whoever sent it). See `local` for the rest.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import asyncssh

from . import local_folder, local_processes
from .local_folder import Description, MachineFolder, Server
from .local_session import serve_session, write_shims

_WATCH_S = 1.0
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def main(arguments: list[str]) -> int:
    found = MachineFolder(Path(arguments[0]))
    description = found.describe()
    if description is None:
        print(f"{found.path} holds no machine", file=sys.stderr)
        return 1
    if os.fork() > 0:
        return 0  # the parent waits for our standard output, not for us
    os.setsid()
    with (found.path / "server.lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0  # another one serves
        logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(message)s")
        try:
            return asyncio.run(_serve(found, description))
        except Exception:
            logging.exception("the server of %s failed", description.name)
            return 1


async def _serve(found: MachineFolder, description: Description) -> int:
    me = Server(os.getpid(), local_processes.birth(os.getpid()), port=0)
    found.write_server(me)
    os.umask(0o022)
    os.chdir(found.home)  # where SFTP's relative paths begin
    found.ready.parent.mkdir(mode=0o700, exist_ok=True)
    write_shims(found.home)
    found.ready.touch()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    acceptor = await asyncssh.listen(
        local_folder.HOST,
        0,
        server_factory=lambda: _Doorman(found),
        server_host_keys=[str(found.host_key)],
        process_factory=lambda process: serve_session(process, found.home, description),
        sftp_factory=True,
        encoding=None,
        line_editor=False,
        agent_forwarding=False,
        allow_scp=False,
    )
    found.write_server(Server(me.pid, me.birth, acceptor.get_port()))
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    end = await _watch(found, description, stopped)
    acceptor.close()
    if end is not None:
        end()
    else:
        (found.path / "server.json").unlink(missing_ok=True)
    return 0


async def _watch(
    found: MachineFolder, description: Description, stopped: asyncio.Event
) -> Callable[[], None] | None:
    """Wait for the end of this server; what is to be done then, None for nothing.

    Both clocks count: the computer's time goes on while it sleeps, but somebody may set it back.
    """
    label = found.path / "machine.json"
    inode = label.stat().st_ino
    ends = datetime.fromisoformat(description.ends)
    last = time.monotonic() + (ends - datetime.now(UTC)).total_seconds()
    while not stopped.is_set():
        left_s = min((ends - datetime.now(UTC)).total_seconds(), last - time.monotonic())
        if left_s <= 0:
            return lambda: local_folder.remove(found)
        try:
            ours = label.stat().st_ino == inode
        except FileNotFoundError:
            ours = False
        if not ours:  # deleted, and whoever did it may have died before it ended us
            return lambda: local_processes.end_tree(description.id)
        try:
            await asyncio.wait_for(stopped.wait(), min(left_s, _WATCH_S))
        except TimeoutError:
            continue
    return None


class _Doorman(asyncssh.SSHServer):
    """Who comes in, and what may be forwarded: nothing but connections to this computer's own loopback."""

    def __init__(self, found: MachineFolder) -> None:
        self._found = found

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        line = " ".join(key.export_public_key().decode().split()[:2])
        return username == local_folder.USER and line in self._found.authorized(datetime.now(UTC))

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        return dest_host in _LOOPBACK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
