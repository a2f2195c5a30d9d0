"""What stands behind the instances of the fake Compute Engine: nothing, or a machine that really boots."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Boot:
    """What a machine is started with. It learns the rest from its metadata server."""

    id: str
    name: str
    instance: dict[str, Any]  # as the API tells it
    gpus: list[str]  # titles: "NVIDIA L4"
    metadata: Callable[[str], str]  # starts its metadata server on an address of ours; "HOST:PORT"
    publish: Callable[[str, str], None]  # a guest attribute: ("hostkeys/ssh-ed25519", "AAAA...")


class Hardware(Protocol):
    def start(self, boot: Boot) -> str:
        """Power it on, the first time or again, and return at once; the address under which its port 22 is reached."""

    def stop(self, id: str) -> None:
        """Press the power button, and pull the plug a moment later. Off already, or unknown, is fine."""

    def remove(self, id: str) -> None:
        """Take it and its disk away. Gone already is fine."""

    def is_on(self, id: str) -> bool: ...

    def console(self, id: str) -> str:
        """What it wrote to its serial port so far."""

    def close(self) -> None:
        """Take all of them away."""


class NoHardware:
    """State only: nothing listens at the addresses. It publishes a host key at once, as if it had booted."""

    HOST_KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIFd0aGlzIGtleSBpcyBub2JvZHkncywgaXQgc3RhbmRz"

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._on: set[str] = set()

    def start(self, boot: Boot) -> str:
        self._on.add(boot.id)
        boot.publish("hostkeys/ssh-ed25519", self.HOST_KEY)
        number = next(self._numbers)
        return f"127.47.{number // 250}.{number % 250 + 1}"

    def stop(self, id: str) -> None:
        self._on.discard(id)

    def remove(self, id: str) -> None:
        self._on.discard(id)

    def is_on(self, id: str) -> bool:
        return id in self._on

    def console(self, id: str) -> str:
        return "Booting from disk\n" if id in self._on else ""

    def close(self) -> None:
        self._on.clear()
