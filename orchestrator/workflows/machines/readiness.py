"""From "the provider has it" to "a run can start": the machine is watched while it boots, and looked at over SSH."""

from __future__ import annotations

import fcntl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.errors import (
    AuthError,
    CloudError,
    ConflictError,
    ConnectionLost,
    NotFoundError,
    TlvmError,
    TransientError,
)
from orchestrator.providers.base import Machine, MachineState
from orchestrator.records import Records
from orchestrator.workflows.clock import Clock
from orchestrator.workflows.workspace import Workspace, of_owner

if TYPE_CHECKING:
    from orchestrator.ssh import Output

READY_TIMEOUT_S = 600
FIRST_CONTACT_S = (
    180.0  # so long a running machine has for saying its host keys, before one is taken unproven
)
_FAILED_S = 3  # so long stopped, while it is waited for: it does not start
_SLOW_S = 2.0  # a stage that took longer is told
_GPUS = "nvidia-smi --query-gpu=name,driver_version --format=csv,noheader"
_CUDA = "python3 -c 'import torch; print((torch.ones(2, device=\"cuda\") * 2).sum().item())'"
_CUDA_S = 180.0  # the first import of torch reads gigabytes from a cold disk
_NO_CODE = "no kernel image is available"  # the image's torch was built without code for this GPU


def make_ready(
    workspace: Workspace,
    machine: Machine,
    *,
    fresh: bool = False,
    timeout_s: float = READY_TIMEOUT_S,
    clock: Clock | None = None,
) -> Machine:
    """Start it if it is stopped, let this computer in, and wait until it can run.

    fresh    it was just made: its GPU computes something before data moves
    """
    clock = clock or Clock()
    of_owner(machine, workspace.settings.owner_label)
    if machine.state is MachineState.STOPPING:
        raise ConflictError(
            f"The machine {machine.name} is just being stopped or deleted",
            next="Try again in a minute; tlvm status shows it.",
        )
    if not _is_let_in(workspace, machine):
        let_in(workspace, machine)
    if machine.state is MachineState.STOPPED:
        workspace.progress.say("start", f"{machine.name} was stopped")
        workspace.provider.start(machine.name)
    return _Waiting(workspace, machine.name, clock, timeout_s, fresh).until_ready()


def own_key(records: Records, provider: str, name: str) -> str:
    """The public key of this computer for that machine, made when there is none; two terminals get the same one."""
    from orchestrator.ssh import new_key  # its libraries cost half a second

    private = records.key_file(provider, name)
    public = private.with_name(private.name + ".pub")
    with (private.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (private.exists() and public.exists()):  # half a pair was left by a crash and opens nothing
            private.unlink(missing_ok=True)
            public.write_text(new_key(private) + "\n", encoding="ascii")
        return public.read_text(encoding="ascii").strip()


def check_gpu(machine: Machine, answer: Output) -> None:
    """Before gigabytes travel: the GPU, its driver and the image's torch do fit together."""
    if answer.exit_code == 0:
        return
    said = answer.stderr.decode(errors="replace").strip()[-1000:]
    if _NO_CODE in said:
        raise CloudError(
            f"The torch of {machine.name} has no code for its GPU",
            detail=said,
            next="tlvm down ends it; take a newer accelerator, or an older gce.image_family.",
        )
    raise TransientError(
        f"The GPU of {machine.name} does not compute yet", detail=said, next="It is waited for."
    )


@dataclass
class _Waiting:
    """Running, its host key pinned and shown, the startup marker there; with a GPU, `nvidia-smi` answers."""

    workspace: Workspace
    name: str
    clock: Clock
    timeout_s: float
    fresh: bool
    _began: float = 0.0
    _stopped: float | None = None  # since when
    _running: float | None = None  # since when it was seen running
    _let_in: bool = False
    _told: set[str] = field(default_factory=set)

    def until_ready(self) -> Machine:
        self._began = self.clock.now()
        last: TlvmError | None = None
        pause_s = 0.1
        while True:
            machine = self._alive(last)
            try:
                self._look(machine)
            except (TransientError, ConnectionLost, NotFoundError) as error:
                last = error  # one that was taken away just now is seen, with the reason, at the next look
            except AuthError:
                if self._let_in:
                    raise
                let_in(self.workspace, machine)  # our key may be one of an earlier machine of this name
                self._let_in = True
            else:
                return machine
            if self.clock.now() - self._began > self.timeout_s:
                raise self._late(machine, last)
            self.clock.sleep(pause_s)
            pause_s = min(pause_s * 1.5, 5)

    def _alive(self, last: TlvmError | None) -> Machine:
        """The machine, while it may still become ready; CloudError with the reason as soon as it can't."""
        provider = self.workspace.provider
        machine = provider.get(self.name)
        if machine is None:
            raise CloudError(
                f"The machine {self.name} ended while it was starting",
                detail=provider.said(self.name) or str(last or ""),
                next="tlvm up makes it again; tlvm doctor looks for the cause.",
            )
        if machine.state is MachineState.STOPPING:
            raise CloudError(
                f"The machine {self.name} is being taken away while it is starting",
                detail=provider.said(self.name),
                next="tlvm status shows it; tlvm up makes another when it is gone.",
            )
        if machine.state is not MachineState.STOPPED:
            self._stopped = None
        elif self._stopped is None:
            self._stopped = self.clock.now()
        if self._stopped is not None and self.clock.now() - self._stopped >= _FAILED_S:
            raise CloudError(
                f"The machine {self.name} stopped while it was starting",
                detail=provider.said(self.name),
                next="tlvm down deletes it; tlvm up starts it again.",
            )
        return machine

    def _look(self, machine: Machine) -> None:
        """TransientError or ConnectionLost while it is not ready."""
        if machine.state is not MachineState.RUNNING:
            raise TransientError(
                f"The machine {machine.name} is {machine.state.value}", next="It is waited for."
            )
        self._tell("runs")
        if self._running is None:
            self._running = self.clock.now()
        silent_s = self.clock.now() - self._running
        takes_any = self.workspace.settings.gce.accept_first_host_key and silent_s >= FIRST_CONTACT_S
        if takes_any:
            self.workspace.pin_first_shown(machine)
        with self.workspace.connect(machine) as connection:
            self._tell("host key pinned")
            if connection.run("test -e ~/.tlvm/READY").exit_code != 0:
                raise TransientError(f"The machine {machine.name} is still setting itself up", next="Wait.")
            self._tell("set up")
            if machine.accelerator_count > 0:
                answer = connection.run(_GPUS)
                seen = answer.stdout.decode(errors="replace").strip().splitlines()
                if answer.exit_code != 0 or len(seen) < machine.accelerator_count:
                    raise TransientError(
                        f"{len(seen)} of {machine.accelerator_count} GPUs of {machine.name} answer yet",
                        detail=answer.stderr.decode(errors="replace")[-500:],
                        next="It is waited for.",
                    )
                if self.fresh:
                    check_gpu(machine, connection.run(_CUDA, timeout_s=_CUDA_S))
                self.workspace.progress.say("gpu", seen[0] + (", computes" if self.fresh else ""))

    def _tell(self, stage: str) -> None:
        seconds = self.clock.now() - self._began
        if stage not in self._told and seconds >= _SLOW_S:
            self.workspace.progress.say("boot", f"{stage} after {seconds:.0f} s")
        self._told.add(stage)

    def _late(self, machine: Machine, last: TlvmError | None) -> ConnectionLost:
        said = self.workspace.provider.said(self.name)
        return ConnectionLost(
            f"The machine {self.name} was not ready after {self.timeout_s / 60:.0f} minutes",
            detail="\n".join(part for part in (f"Its state is {machine.state.value}. {last}", said) if part),
            next="tlvm up goes on waiting; tlvm down deletes it.",
        )


def _is_let_in(workspace: Workspace, machine: Machine) -> bool:
    """Whether the key that is here was made for this very instance, not for an earlier one of the same name."""
    record = workspace.records.machine(machine.provider, machine.name)
    has_key = workspace.records.key_file(machine.provider, machine.name).exists()
    return has_key and record is not None and record.id == machine.id


def let_in(workspace: Workspace, machine: Machine) -> None:
    """Have the provider let this computer in, with a key of its own, until the end of the machine."""
    public_key = own_key(workspace.records, machine.provider, machine.name)
    workspace.provider.authorize(machine.name, public_key, machine.ends)
    workspace.progress.say("key", f"{machine.name} lets this computer in, with a key of its own")
