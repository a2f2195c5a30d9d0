"""The machine fetches packs while they are still being uploaded: what goes wrong here costs time later, nothing else."""

from __future__ import annotations

import dataclasses
import json
import math
import threading
from collections.abc import Iterator
from queue import SimpleQueue

from orchestrator import bundle
from orchestrator.errors import CloudError, TlvmError
from orchestrator.providers.base import Machine
from orchestrator.workflows.runs.launch import ship
from orchestrator.workflows.workspace import Workspace
from remote.contract.run_spec import StoreRef
from remote.contract.wording import count


class Prefetching:
    """Hands the names of packs on to a machine: those so far when it is ready, then each as soon as it is stored.

    In a thread of its own, which ends with the process. Nothing here raises.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._stored: SimpleQueue[str] = SimpleQueue()
        self._named: set[str] = set()
        self._machine = ""
        self._why = ""  # it did not work
        self._thread: threading.Thread | None = None

    def stored(self, pack: str) -> None:
        """This pack is in the store. Any thread may say so, of any pack as often as it likes."""
        self._stored.put(pack)

    def begin(self, machine: Machine) -> None:
        """The machine is ready."""
        self._machine = machine.name
        self._thread = threading.Thread(target=self._run, args=(machine,), name="prefetch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """No more packs will be stored. The machine fetches those that it was told of, whether or not anybody waits."""
        self._stored.put("")

    def end(self, patience_s: float) -> None:
        """`stop`, wait a little, and say what came of it."""
        self.stop()
        if self._thread is None:
            return
        self._thread.join(patience_s)
        progress, packs = self._workspace.progress, count(len(self._named), "pack")
        if self._thread.is_alive():
            progress.say(
                "packs",
                f"{self._machine} goes on fetching the images from the bucket; tlvm run needs not wait for it",
            )
        elif self._why:
            progress.warn(f"{self._machine} did not fetch packs ahead, a run will: {self._why}")
        elif self._named:
            progress.say("packs", f"{packs} fetched by {self._machine} already")

    def _run(self, machine: Machine) -> None:
        try:
            with self._workspace.connect(machine) as connection:
                shipped = ship(self._workspace, machine, connection)
                command = bundle.command(shipped.hash, "prefetch")
                output = connection.run(command, input=self._lines(machine.store), timeout_s=math.inf)
            if output.exit_code != 0:
                raise CloudError(_last_line(output.stderr) or f"exit code {output.exit_code}")
        except TlvmError as error:
            self._why = error.what
        except OSError as error:  # of this computer's disk
            self._why = str(error)

    def _lines(self, store: StoreRef) -> Iterator[bytes]:
        yield json.dumps(dataclasses.asdict(store)).encode() + b"\n"
        for pack in iter(self._stored.get, ""):
            if pack not in self._named:
                self._named.add(pack)
                yield f"{pack}\n".encode()


def _last_line(said: bytes) -> str:
    """Of what a machine said, which may be anything."""
    lines = said[-1000:].decode(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else ""
