"""After a boot, every run of this machine that is not over goes on; and the one that the machine was made for.

Startup script and first process call `python -m remote resume` with any bundle; each run is started by its own: the
bundle that began a run is the one that speaks to it. Runs come into the line in the order in which they were made.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from remote.contract import document, layout
from remote.contract.document import ContractError
from remote.contract.layout import MachineHome, RunFolder
from remote.contract.run_spec import RunSpec
from remote.contract.start_request import BootRun, StartRequest
from remote.job import line
from remote.job.asked import keep_hard_end
from remote.job.follow import read_status
from remote.job.record import is_over, read_spec
from remote.store import open_store

_GOES_ON = (0, 10)  # started; active or over already


def resume(
    home: MachineHome,
    *,
    boot: BootRun | None = None,
    seconds_left: float | None = None,
    say: Callable[[str], None] = print,
) -> int:
    """How many could not go on.

    boot            the run of the machine's own metadata; only the bundle that it names may run it
    seconds_left    until the machine's hard end
    StoreError, ContractError   of the run of the metadata
    """
    failures = 0
    for folder in unfinished(home):
        try:
            spec = read_spec(folder.spec)
            if seconds_left is not None:
                keep_hard_end(folder, seconds_left)
            code = _start(home, spec.bundle, [str(folder.spec)], b"")
        except (ContractError, OSError) as error:
            say(f"{folder.root.name} can't go on: {error}")
            failures += 1
            continue
        say(f"{spec.run_id} {'goes on' if code in _GOES_ON else f'was not started again (exit {code})'}")
        failures += code not in _GOES_ON
    if boot and not home.run(boot.run_id).spec.exists():
        request = StartRequest(_spec(home, boot), boot.attempt, boot.machine, seconds_left)
        code = _start(home, boot.bundle, ["-"], document.encode(request).encode())
        failures += code not in _GOES_ON
    return failures


def unfinished(home: MachineHome) -> list[RunFolder]:
    """The runs that nobody supervises and that are not over, the oldest first."""
    found = []
    for place in sorted(home.runs.glob("*"), key=lambda path: path.name.split("-")[-3:]):
        folder = RunFolder(place)
        if line.is_held(line.run_lock(home.locks, place.name)) or not folder.spec.is_file():
            continue
        try:
            over = is_over(read_status(folder))
        except ContractError:
            over = False  # its start says what is wrong with it
        if not over:
            found.append(folder)
    return found


def _start(home: MachineHome, bundle: str, arguments: list[str], told: bytes) -> int:
    """The exit code of `start`, by the bundle of that hash."""
    code = home.bundle(bundle)
    others = [
        path
        for path in os.environ.get("PYTHONPATH", "").split(os.pathsep)
        if path and not Path(path).is_relative_to(home.root / "bundles")
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(code), str(code / "site"), *others]),
    }
    command = [sys.executable, "-m", "remote", "start", *arguments]
    done = subprocess.run(
        command, cwd=code, env=environment, input=told, stdout=subprocess.DEVNULL, check=False
    )
    return done.returncode


def _spec(home: MachineHome, boot: BootRun) -> RunSpec:
    """As the store has it. What it says of code is believed only if the metadata says the same."""
    home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    piece = home.root / f".{boot.run_id}.json"
    try:
        open_store(boot.store).download(layout.run_key(boot.run_id, "spec.json"), piece)
        spec = read_spec(piece)
    finally:
        piece.unlink(missing_ok=True)
    if (spec.run_id, spec.bundle, spec.store) != (boot.run_id, boot.bundle, boot.store):
        raise ContractError(f"the spec of {boot.run_id} in the store is not the one that the metadata names")
    return spec
