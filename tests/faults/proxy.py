"""The network between a laptop and a machine: a TCP proxy on loopback that can fall silent, or cut what goes through it."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

_PIECE_BYTES = 64 * 1024


class Proxy:
    """Running while it is entered as a context; `port` leads to the port of the other side."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._flows = threading.Event()
        self._flows.set()
        self._open = True
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept, name="proxy")]

    def __enter__(self) -> Proxy:
        self._threads[0].start()
        return self

    def __exit__(self, *error: object) -> None:
        self._open = False
        self._flows.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()

    def be_silent(self) -> None:
        """From now on nothing comes through, and nobody is told: new connections are taken and hear nothing either."""
        self._flows.clear()

    def flow(self) -> None:
        """As if nothing had been: what was under way arrives."""
        self._flows.set()

    def cut(self) -> None:
        """Every connection that is open ends."""
        with self._lock:
            for end in self._sockets:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()
            self._sockets.clear()

    def _accept(self) -> None:
        while self._open:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
            except OSError:  # closed, or nobody is there
                continue
            pumps = [
                threading.Thread(target=self._pump, args=ends, name="proxy")
                for ends in ((near, far), (far, near))
            ]
            with self._lock:
                self._sockets += (near, far)
            self._threads += pumps
            for pump in pumps:
                pump.start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(_PIECE_BYTES):
                self._flows.wait()
                target.sendall(piece)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
