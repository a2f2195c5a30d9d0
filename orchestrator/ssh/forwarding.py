"""A port of this computer that leads to a port as the machine sees it: `tlvm ssh -L`."""

from __future__ import annotations

import logging
import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from orchestrator.errors import ConflictError

if TYPE_CHECKING:
    import paramiko

_log = logging.getLogger(__name__)
_PIECE_BYTES = 64 * 1024


@contextmanager
def forward(transport: paramiko.Transport, local_port: int, host: str, port: int) -> Iterator[int]:
    """See `Connection.forward`. The port listens before the context begins, and no more when it has ended."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", local_port))
        except OSError as error:
            raise ConflictError(
                f"Port {local_port} of this computer can't be used",
                detail=str(error),
                next="Choose another one: tlvm ssh -L PORT:HOST:PORT",
            ) from None
        listener.listen()
        wake, woken = socket.socketpair()
        stack.enter_context(woken)
        serving = threading.Thread(
            target=_serve, args=(listener, woken, transport, host, port), name="tlvm-forward", daemon=True
        )
        serving.start()
        try:
            yield listener.getsockname()[1]
        finally:
            wake.close()
            serving.join()


def _serve(
    listener: socket.socket, woken: socket.socket, transport: paramiko.Transport, host: str, port: int
) -> None:
    with selectors.DefaultSelector() as selector, ExitStack() as visitors:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while woken not in [key.fileobj for key, _ in selector.select()]:
            visitor, origin = listener.accept()
            visitors.callback(_hang_up, visitor)
            threading.Thread(
                target=_carry, args=(visitor, origin, transport, host, port), name="tlvm-forward", daemon=True
            ).start()


def _carry(
    visitor: socket.socket, origin: tuple[str, int], transport: paramiko.Transport, host: str, port: int
) -> None:
    import paramiko

    with visitor:
        try:
            channel = transport.open_channel("direct-tcpip", (host, port), origin)
        except (paramiko.SSHException, EOFError, OSError) as error:
            _log.warning("nothing answers at %s:%d on the machine: %s", host, port, error)
            return
        with channel:
            upward = threading.Thread(target=_up, args=(visitor, channel), name="tlvm-forward", daemon=True)
            upward.start()
            with suppress(OSError):  # either side may end at any time
                while piece := channel.recv(_PIECE_BYTES):
                    visitor.sendall(piece)
                visitor.shutdown(socket.SHUT_WR)
                upward.join()


def _up(visitor: socket.socket, channel: paramiko.Channel) -> None:
    with suppress(OSError):
        while piece := visitor.recv(_PIECE_BYTES):
            channel.sendall(piece)
        channel.shutdown_write()


def _hang_up(visitor: socket.socket) -> None:
    with suppress(OSError):  # gone already
        visitor.shutdown(socket.SHUT_RDWR)
