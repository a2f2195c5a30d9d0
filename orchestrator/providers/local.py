"""This computer as a machine: a folder, and a loopback SSH server in a process of its own.

What stands for what on a real machine:

* the disk: the folder (`local_folder`). Limits of processor, memory and disk are not kept here.
* the power: the server process (`local_server`). `stop` ends it and all that was started through it; after a reboot, or
  when something killed it, the machine shows as stopped, and `start` brings it back with id, host key, and end of life.
  What a killed server leaves running stays alive, as after the death of an sshd, and `start` does not touch it;
  `stop`, `delete` and the end of life end it too (`local_processes` says how it is found).
* the hard clock: in the server. A machine that is past it without a server is removed by whoever sees it.
* the label: machine.json. A folder without one is somebody else's and never touched.

Nothing here loads asyncssh: that is the server's.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from orchestrator.errors import CloudError, ConfigError, ConflictError, NotFoundError

from . import local_folder, local_processes
from .base import Machine, MachineSpec, MachineState, Offer, SshAddress
from .local_folder import Description, MachineFolder

PLACE = "this computer"
_BOOT_S = 30.0
_STOP_GRACE_S = 10.0  # for a run to write its checkpoint
_OVERDUE = timedelta(seconds=10)  # a server that is so late with ending its machine will not do it any more
_CODE = Path(__file__).resolve().parents[2]  # holds the packages orchestrator and remote


class LocalProvider:
    name = "local"

    def __init__(self, data_dir: Path) -> None:
        """data_dir   the user's data directory; machines live in its folder `machines`"""
        self._machines = data_dir.absolute() / "machines"

    def offers(self, spec: MachineSpec) -> list[Offer]:
        if spec.accelerator != "none" and _gpus() < spec.accelerator_count:
            raise ConfigError(
                f"This computer does not have {spec.accelerator_count} × {spec.accelerator}",
                detail=f"nvidia-smi shows {_gpus()} of NVIDIA's",
                next="Leave `accelerator` out: on this computer a run uses what is there. Or: --provider gce",
            )
        return [Offer(PLACE, spec.accelerator, 0.0)]

    def create(self, spec: MachineSpec, offer: Offer) -> Machine:
        """Returns when the server listens: half a second."""
        with _translated(spec.name):
            local_folder.sweep(self._machines)
            found = local_folder.folder(self._machines, spec.name)
            made = self.get(spec.name) is None and local_folder.make(
                self._machines, _describe(spec, offer), spec.public_key, _new_host_key()
            )
            if not made and found.describe() is None:
                raise ConflictError(
                    f"{found.path} is in the way of the machine {spec.name}: tlvm did not make it",
                    next="Move it away, or choose another name: tlvm up --machine NAME",
                )
            try:
                if not found.ready.exists():  # new, or its first boot was cut short
                    _boot(found)
            except BaseException:
                if made:
                    local_folder.remove(found)
                raise
        return self._existing(spec.name)

    def get(self, name: str) -> Machine | None:
        with _translated(name):
            return _look(local_folder.folder(self._machines, name))

    def machines(self) -> list[Machine]:
        with _translated("of this computer"):
            local_folder.sweep(self._machines)
            found = [_look(folder) for folder in local_folder.folders(self._machines)]
        return [machine for machine in found if machine is not None]

    def host_keys(self, name: str) -> list[str]:
        with _translated(name):
            return self._folder(name).host_keys()

    def said(self, name: str) -> str:
        with _translated(name):
            log = local_folder.folder(self._machines, name).log
            return _end_of(log)

    def authorize(self, name: str, public_key: str, expires: datetime) -> None:
        with _translated(name):
            self._folder(name).authorize(public_key, expires)

    def stop(self, name: str) -> None:
        with _translated(name):
            local_processes.end_tree(self._existing(name).id, grace_s=_STOP_GRACE_S)

    def start(self, name: str) -> None:
        with _translated(name):
            found = self._folder(name)
            if found.server() is None:
                _boot(found)

    def delete(self, name: str) -> None:
        """Returns when every process has ended and the folder is gone."""
        with _translated(name):
            local_folder.sweep(self._machines)
            found = local_folder.folder(self._machines, name)
            if found.describe() is not None:
                local_folder.remove(found)

    def _existing(self, name: str) -> Machine:
        machine = self.get(name)
        if machine is None:
            raise NotFoundError(
                f"There is no machine {name} on this computer",
                next="`tlvm up` makes one; `tlvm status` lists them.",
            )
        return machine

    def _folder(self, name: str) -> MachineFolder:
        return local_folder.folder(self._machines, self._existing(name).name)


def _describe(spec: MachineSpec, offer: Offer) -> Description:
    now = datetime.now(UTC)
    return Description(
        name=local_folder.checked_name(spec.name),
        id=f"local-{secrets.token_hex(8)}",
        owner=spec.owner,
        project=spec.project,
        created=now.isoformat(),
        ends=(now + timedelta(hours=spec.max_hours)).isoformat(),
        accelerator=offer.accelerator,
        accelerator_count=spec.accelerator_count,
        store=spec.store,
        settings=spec.settings(),
    )


def _look(found: MachineFolder) -> Machine | None:
    description = found.describe()
    if description is None:
        return None
    server = found.server()
    ends = datetime.fromisoformat(description.ends)
    late = datetime.now(UTC) - ends
    if late > _OVERDUE or (late >= timedelta(0) and server is None):
        local_folder.remove(found)
        return None
    return Machine(
        name=description.name,
        provider=LocalProvider.name,
        id=description.id,
        place=PLACE,
        state=_state(server, late),
        owner=description.owner,
        project=description.project,
        created=datetime.fromisoformat(description.created),
        ends=ends,
        accelerator=description.accelerator,
        accelerator_count=description.accelerator_count,
        price_per_hour=0.0,
        store=description.store,
        ssh=SshAddress(local_folder.HOST, server.port, local_folder.USER) if server and server.port else None,
        settings=description.settings,
    )


def _state(server: local_folder.Server | None, late: timedelta) -> MachineState:
    if server is None:
        return MachineState.STOPPED
    if late >= timedelta(0):
        return MachineState.STOPPING
    return MachineState.RUNNING if server.port else MachineState.STARTING


def _boot(found: MachineFolder) -> None:
    """Start the server, in the background for good, and wait until it listens; one that runs already is success."""
    description = found.describe()
    if description is None:
        raise NotFoundError(f"There is no machine {found.path.name} on this computer")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {"PYTHONPATH": str(_CODE), local_processes.ID_VARIABLE: description.id}
    descriptor = os.open(found.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "wb") as log, suppress(subprocess.TimeoutExpired):
        # It leaves this process and says goodbye on its standard output: then it listens, or has failed.
        subprocess.run(
            [sys.executable, "-P", "-m", "orchestrator.providers.local_server", str(found.path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            start_new_session=True,
            timeout=_BOOT_S,
            check=False,
        )
    deadline = time.monotonic() + 5  # for a server that somebody else has just started
    while (server := found.server()) is None or not server.port:
        if server is None or time.monotonic() > deadline:
            raise CloudError(
                f"The SSH server of the machine {found.path.name} did not start",
                detail=_end_of(found.log),
                next="`tlvm doctor` checks this computer.",
            )
        time.sleep(0.02)


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:].strip() if log.exists() else ""


def _new_host_key() -> tuple[bytes, str]:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    key = Ed25519PrivateKey.generate()
    return (
        key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()),
        key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode(),
    )


def _gpus() -> int:
    if shutil.which("nvidia-smi") is None:
        return 0
    lines = subprocess.run(
        ["nvidia-smi", "-L"], capture_output=True, text=True, check=False, timeout=30
    ).stdout
    return sum(line.startswith("GPU ") for line in lines.splitlines())


@contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise CloudError(
            f"The machine {name} could not be ended: {error}", next="The same command again goes on."
        ) from None
    except OSError as error:
        raise CloudError(f"The folder of the machine {name} can't be used", detail=str(error)) from None
