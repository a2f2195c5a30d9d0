"""What every verb works with: the settings, and the provider, store and records that they name, opened on use."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.config import Settings
from orchestrator.errors import (
    AuthError,
    ConfigError,
    ConflictError,
    ConnectionLost,
    NotFoundError,
    TlvmError,
    TransientError,
)
from orchestrator.progress import Progress, Silent
from orchestrator.providers import provider
from orchestrator.providers.base import Machine, Provider, Unseen
from orchestrator.providers.rented import Rented
from orchestrator.providers.retrying import retrying
from orchestrator.records import MachineRecord, Records
from orchestrator.stores import open_store
from orchestrator.stores.base import Store
from orchestrator.workflows.logged import logged
from orchestrator.workflows.machines.seen import no_machine, seen
from orchestrator.workflows.runs.named_by_run import run_of
from remote.contract.attempts import Attempts

if TYPE_CHECKING:
    from orchestrator.ssh import Connection


class Workspace:
    def __init__(self, settings: Settings, progress: Progress | None = None) -> None:
        self.settings = settings
        self.progress = progress or Silent()

    @cached_property
    def records(self) -> Records:
        return Records(self.settings.records_dir)

    @cached_property
    def store(self) -> Store:
        attempts, memory = Attempts(tell=self._tell), self.records.cache / "sessions"
        return logged(open_store(self.settings.store_ref, attempts=attempts, memory=memory), "store")

    @cached_property
    def provider(self) -> Provider:
        settings = self.settings
        found = provider(
            settings.provider,
            data_dir=settings.data_dir,
            progress=self.progress,
            gce=settings.gce,
            attempts=Attempts(tell=self._tell),
            owner=settings.owner_label,
        )
        return logged(found, settings.provider)

    @cached_property
    def rented(self) -> Rented | None:
        """What only a provider has that rents its machines out; None where nothing is rented."""
        account = getattr(self.provider, "account", None)
        if account is None:
            return None
        found: Rented = retrying(account(), Attempts(tell=self._tell))
        return logged(found, self.settings.provider)

    @property
    def project_folder(self) -> Path:
        """Where results are put: beside `tlvm.toml`, or the current folder."""
        return self.settings.folder

    def of_machine(self, name: str) -> Workspace:
        """The same, meaning the machine of that name."""
        machine = self.settings.machine.model_copy(update={"name": name})
        found = Workspace(self.settings.model_copy(update={"machine": machine}), self.progress)
        found.provider, found.store = self.provider, self.store
        return found

    def renew(self) -> None:
        """Read credentials anew: a run lives for hours, a login or a file of CI for minutes."""
        of_google = {"provider", "rented"} if self.settings.provider == "gce" else set()
        if self.settings.store_ref.url.startswith("gs://"):
            of_google.add("store")
        for name in of_google:
            self.__dict__.pop(name, None)  # opened again on use

    def on_provider(self, name: str) -> Workspace:
        """The same, meaning the machines of that provider."""
        if name == self.settings.provider:
            return self
        found = Workspace(self.settings.model_copy(update={"provider": name}), self.progress)
        found.store = self.store
        return found

    def machines(self) -> list[Machine]:
        """The machines of this owner and project, on the provider in force.

        Unseen when a place can't be asked and there is none in the others.
        """
        mine = (self.settings.owner_label, self.settings.project)
        try:
            there = self.provider.machines()
        except Unseen as error:
            there = error.machines
            if not any((machine.owner, machine.project) == mine for machine in there):
                raise
            self.progress.warn(error.what)
        return [machine for machine in there if (machine.owner, machine.project) == mine]

    def machine(self, name: str | None = None) -> Machine:
        """The machine of that name, else the configured one, else the only one; of those made for one run only the last.

        NotFoundError when there is none, with the nearest name; ConfigError with the list when there are several.
        """
        wanted = name or self.settings.machine.name
        if wanted:
            found = self.provider.get(wanted)
            if found is None:
                there = seen(self.provider).machines
                raise no_machine(wanted, self.settings.provider, [machine.name for machine in there])
            return found
        there = self.machines()
        machines = [machine for machine in there if not run_of(machine.name)] or there
        if not machines:
            raise NotFoundError(
                f"There is no machine on the provider {self.settings.provider}", next="tlvm up makes one."
            )
        if len(machines) > 1:
            names = ", ".join(sorted(machine.name for machine in machines))
            raise ConfigError("There are several machines", detail=names, next="Name one with --machine.")
        return machines[0]

    def connect(self, machine: Machine, *, timeout_s: float = 10) -> Connection:
        """Over SSH, to a machine whose host key is the one pinned when this instance was first met.

        Where nobody answers, the provider may have to let this computer's address through: it changes with the network.
        TransientError while the machine has not yet said its address or host keys.
        """
        from orchestrator.ssh import connect  # fabric costs 0.2 to 0.8 s

        if machine.ssh is None:
            raise TransientError(
                f"The machine {machine.name} has no address yet", next="tlvm status shows its state."
            )
        key_file = self.records.key_file(machine.provider, machine.name)
        if not key_file.exists():
            raise AuthError(
                f"This computer has no key for the machine {machine.name}",
                detail=f"No file {key_file}: the machine was made from another computer, or the records were deleted.",
                next="tlvm up lets this computer in with a key of its own.",
            )
        host_keys = self._pinned(machine)
        try:
            return connect(machine.ssh, host_keys=host_keys, key_file=key_file, timeout_s=timeout_s)
        except ConnectionLost:
            if machine.owner != self.settings.owner_label or not self._admitted(machine):
                raise
            return connect(machine.ssh, host_keys=host_keys, key_file=key_file, timeout_s=timeout_s)

    def pin_first_shown(self, machine: Machine) -> None:
        """Where nobody has said the host key, pin the one that the machine shows, unproven, and warn of it."""
        if machine.ssh is None or self._known(machine)[1]:
            return
        from orchestrator.ssh import shown_host_key

        key = shown_host_key(machine.ssh)
        self.progress.warn(
            f"{machine.name} has not said its host key to {machine.provider}; the one that it shows is taken, and "
            f"nothing proves that it is not somebody else's: {key}"
        )
        self._pin(machine, [key], unproven=True)

    def _admitted(self, machine: Machine) -> bool:
        """Whether this computer may come in now, and could not before."""
        admit = getattr(self.provider, "admit", None)
        try:
            return admit is not None and bool(admit(machine.owner))
        except TlvmError as error:
            self.progress.warn(f"The firewall could not be looked at: {error.what}")
            return False

    def _tell(self, error: Exception, wait_s: float) -> None:
        self.progress.say("retry", f"{str(error).splitlines()[0]}; tried again in {wait_s:.0f} s")

    def _pinned(self, machine: Machine) -> list[str]:
        proven, host_keys = self._known(machine)
        if not host_keys:
            raise TransientError(
                f"The machine {machine.name} has not yet said its host keys",
                next="Try again."
                + (
                    " tlvm up --accept-first-host-key does without, unproven." if self._may_do_without else ""
                ),
            )
        self._pin(machine, host_keys, unproven=not proven)
        return host_keys

    @property
    def _may_do_without(self) -> bool:
        return self.settings.provider == "gce" and not self.settings.gce.accept_first_host_key

    def _known(self, machine: Machine) -> tuple[bool, list[str]]:
        """The host keys of this very instance, and whether the provider vouches for them; [] when nobody knows any."""
        record = self.records.machine(machine.provider, machine.name)
        known = record.host_keys if record is not None and record.id == machine.id else []
        if known and record is not None and not record.unproven:
            return True, known
        said = self.provider.host_keys(machine.name)
        if known and said and not set(known) & set(said):
            raise _other_key(machine)
        return bool(said), said or known

    def _pin(self, machine: Machine, host_keys: list[str], *, unproven: bool) -> None:
        with self.records.alone():
            record = self.records.machine(machine.provider, machine.name)
            known = record or MachineRecord(
                machine.name, machine.provider, asked=datetime.now(UTC).isoformat(timespec="seconds")
            )
            pinned = dataclasses.replace(
                known, id=machine.id, host_keys=host_keys, unproven=unproven, outcome="accepted"
            )
            if pinned != record:
                self.records.save_machine(pinned)


def _other_key(machine: Machine) -> AuthError:
    return AuthError(
        f"The machine {machine.name} is not what showed its host key at the first contact",
        detail=f"The provider {machine.provider} says another key by now. Who was reached then is not known.",
        next="tlvm down ends the machine; tlvm up makes another.",
    )


def of_owner(machine: Machine, owner: str) -> Machine:
    """The same machine; ConflictError when it is somebody else's."""
    if machine.owner != owner:
        raise ConflictError(
            f"The machine {machine.name} belongs to {machine.owner}",
            next=f"Only {machine.owner} may do that; you are {owner}. Choose another name with --machine.",
        )
    return machine


def agree(machine: Machine, settings: dict[str, str]) -> None:
    """ConflictError naming what differs, when a machine that is there is not the one that was asked for."""
    differing = [
        f"{key}: it has {_shown(machine.settings.get(key))}, asked for {_shown(value)}"
        for key, value in settings.items()
        if machine.settings.get(key) != value
    ]
    if differing:
        raise ConflictError(
            f"The machine {machine.name} is there with other settings",
            detail="\n".join(differing),
            next="tlvm down ends it first; or --machine NAME makes another one beside it.",
        )


def _shown(value: str | None) -> str:
    """As people write it: 1 for "1.0"."""
    return (value or "nothing").removesuffix(".0")
