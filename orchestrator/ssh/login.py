"""Logging in to one machine, whose host key is known beforehand, with the key that was made for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import AuthError, ConnectionLost
from orchestrator.providers.base import SshAddress

from . import border
from .connection import Connection

if TYPE_CHECKING:
    import paramiko

_KEEPALIVE_S = 15


def connect(
    address: SshAddress,
    *,
    host_keys: Sequence[str],
    key_file: Path,
    timeout_s: float = 10,
    clock: Callable[[], float] = time.monotonic,
) -> Connection:
    """Log in with the key in `key_file`, to a machine that shows one of `host_keys`; one try.

    host_keys        "ssh-ed25519 AAAA...", as the provider learnt them out of band
    timeout_s        for each of: TCP, banner, log in, opening a channel later
    clock            counts silence, in seconds
    ConnectionLost   nothing answers there, or not in time
    AuthError        the host key is another one, or our key is refused

    The user's own SSH configuration, agent, keys and known hosts play no part.
    """
    import fabric
    import paramiko

    logging.getLogger("paramiko").addHandler(logging.NullHandler())  # else its tracebacks appear on stderr
    if not key_file.is_file():
        raise AuthError(
            f"The key of this computer for {border.text(address)} is missing: {key_file}",
            next="tlvm authorize makes one and lets this computer in with it.",
        )
    client = fabric.Connection(
        host=address.host,
        user=address.user,
        port=address.port,
        gateway=address.proxy_command or None,
        config=fabric.Config(ssh_config=paramiko.SSHConfig(), lazy=True),
        connect_kwargs={
            "key_filename": str(key_file),
            "look_for_keys": False,
            "allow_agent": False,
            "timeout": timeout_s,
            "banner_timeout": timeout_s,
            "auth_timeout": timeout_s,
            "channel_timeout": timeout_s,
        },
    )
    client.client.set_missing_host_key_policy(paramiko.RejectPolicy())
    _pin(client.client, address, host_keys)
    try:
        with border.connecting(address):
            client.open()
    except BaseException:
        client.client.close()  # fabric's own close leaves the thread of a connection that failed half-way
        raise
    client.transport.set_keepalive(_KEEPALIVE_S)
    return Connection(address, client, clock)


def shown_host_key(address: SshAddress, *, timeout_s: float = 10) -> str:
    """The key that the machine shows, as "ssh-ed25519 AAAA...": who it is from, nobody says. Logs in nowhere.

    ConnectionLost   nothing answers there, or not in time
    """
    import socket

    import paramiko

    logging.getLogger("paramiko").addHandler(logging.NullHandler())
    with border.connecting(address):
        way: paramiko.ProxyCommand | socket.socket = (
            paramiko.ProxyCommand(address.proxy_command.replace("%p", str(address.port)))
            if address.proxy_command
            else socket.create_connection((address.host, address.port), timeout_s)
        )
        transport = paramiko.Transport(way)
        try:
            transport.start_client(timeout=timeout_s)
            key = transport.get_remote_server_key()
        finally:
            transport.close()
    return f"{key.get_name()} {key.get_base64()}"


def _pin(client: paramiko.SSHClient, address: SshAddress, host_keys: Sequence[str]) -> None:
    import paramiko

    known_as = address.host if address.port == 22 else f"[{address.host}]:{address.port}"
    for line in host_keys:
        try:
            entry = paramiko.hostkeys.HostKeyEntry.from_line(f"{known_as} {line}")
        except paramiko.SSHException:
            entry = None
        if entry is None or entry.key is None:
            raise AuthError(f"The pinned host key of {border.text(address)} can't be read: {line[:80]}")
        client.get_host_keys().add(known_as, entry.key.get_name(), entry.key)
    if not host_keys:
        raise ConnectionLost(f"The host key of {border.text(address)} is not known yet")
