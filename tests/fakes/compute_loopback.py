"""Machines of the fake Compute Engine as processes of this computer, each reached by real SSH on a 127.x.y.z of its own.

Port 22 is a privileged one: root, or Linux with net.ipv4.ip_unprivileged_port_start at 22 or lower.
"""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from orchestrator.providers import local_processes
from tests.fakes.compute_hardware import Boot

_ROOT = Path(__file__).parents[2]
_NUMBERS = itertools.count(os.getpid() % 6000 * 1000)  # two test runs on one computer use other addresses


def missing() -> str:
    """Why no machine can be reached on loopback here; "" when they can."""
    try:
        with socket.create_server(("127.99.0.1", 22)):
            return ""
    except OSError as error:
        return f"nothing can listen on port 22 of a loopback address: {error}"


class LoopbackHardware:
    """folder   holds what the machines have on their disks
    boot_s   from power on until anything answers, in real seconds
    cuda     what computing on their GPUs ends with: "" works, else the driver's error
    """

    def __init__(self, folder: Path, *, boot_s: float = 0.0, cuda: str = "") -> None:
        self._folder = folder
        self._cuda = cuda
        self._boot_s = boot_s
        self._machines: dict[str, subprocess.Popen[bytes]] = {}
        self._addresses: dict[str, str] = {}

    def start(self, boot: Boot) -> str:
        address = self._addresses.setdefault(boot.id, _address())
        folder = self._folder / boot.id
        folder.mkdir(parents=True, exist_ok=True)
        environment = {
            **os.environ,
            "PYTHONPATH": str(_ROOT),
            local_processes.ID_VARIABLE: boot.id,
            "FAKE_GPUS": "\n".join(boot.gpus),
            "FAKE_BOOT_S": str(self._boot_s),
            "FAKE_CUDA": self._cuda,
        }
        host = boot.metadata("127.0.0.1")
        with (folder / "console").open("ab") as console:
            self._machines[boot.id] = subprocess.Popen(
                [sys.executable, "-m", "tests.fakes.loopback_machine", folder, address, host],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env=environment,
                start_new_session=True,
            )
        return address

    def stop(self, id: str) -> None:
        process = self._machines.pop(id, None)
        if process is not None:
            local_processes.end_tree(id)
            process.wait()

    def remove(self, id: str) -> None:
        self.stop(id)
        shutil.rmtree(self._folder / id, ignore_errors=True)

    def is_on(self, id: str) -> bool:
        return id in self._machines and self._machines[id].poll() is None

    def console(self, id: str) -> str:
        path = self._folder / id / "console"
        return path.read_text(errors="replace") if path.exists() else ""

    def close(self) -> None:
        for id in list(self._machines):
            self.remove(id)


def _address() -> str:
    number = next(_NUMBERS)
    return f"127.{90 + number // 62500 % 100}.{number // 250 % 250}.{number % 250 + 1}"
