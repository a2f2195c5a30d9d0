"""`tlvm up`: a machine that is there, agrees with what was asked for, and is ready to run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from orchestrator.errors import Interruption, NotFoundError
from orchestrator.providers.base import Machine, MachineSpec, Offer
from orchestrator.providers.rented import Disk, SshSources
from orchestrator.workflows.clock import Clock
from orchestrator.workflows.machines.allowance import begun, left_of, worth_it
from orchestrator.workflows.machines.placement import Attempt, adopt, ask, wait_until_gone
from orchestrator.workflows.machines.readiness import READY_TIMEOUT_S, make_ready, own_key
from orchestrator.workflows.runs.named_by_run import run_of
from orchestrator.workflows.workspace import Workspace, agree

__all__ = [
    "Attempt",
    "Clock",
    "UpResult",
    "ensure",
    "make_ready",
    "own_key",
    "spec_of",
    "up",
    "wait_until_gone",
]

_SOME_OBJECT = "runs/none"  # whether it is there is no matter: that the store answers is
_SOME_KEY = "ssh-ed25519 THE+KEY+OF+THIS+COMPUTER"  # in a dry run, which makes none


@dataclass(frozen=True)
class UpResult:
    machine: Machine | None  # None after a dry run
    made: bool  # False: it was there before
    spec: MachineSpec
    offers: list[Offer] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    seconds: float = 0  # until it was ready
    uploaded: dict[str, str] = field(default_factory=dict)  # version by dataset, with --upload
    most: float = 0  # dollars: what it can cost until the cloud itself ends it, an estimate
    prices: str = ""  # of a dry run: where prices come from, and of which day; "" where nothing is rented
    request: dict[str, Any] | None = None  # of a dry run: the very request that would be sent first
    disk: Disk | None = None  # of a dry run
    ssh_sources: SshSources | None = None  # of a dry run: who could reach the machine


def up(
    workspace: Workspace,
    *,
    dry_run: bool = False,
    wait_hours: float = 0.0,
    ready_timeout_s: float = READY_TIMEOUT_S,
    last: str = "",
    clock: Clock | None = None,
) -> UpResult:
    """Adopt the machine of that name, start it when it is stopped, or make it; then wait until it is ready.

    dry_run         ask for offers only: nothing is created and nothing is written
    wait_hours      so long, when no place has one, all of them are asked again now and then
    last            the place that is asked after all others: it has just taken one away
    ConflictError   the machine is there with other settings (says which), or is just being deleted
    CapacityError   no place had one; every attempt is in its detail (QuotaError: your quotas allow none)
    ConfigError, NotFoundError   the store is none, or its bucket is not there
    CloudError      it stopped instead of getting ready; the end of its log is in the detail
    ConnectionLost  it did not get ready in time; it is kept, and `up` again goes on waiting
    Interruption    on Ctrl-C once it may exist
    """
    clock = clock or Clock()
    began = clock.now()
    spec = spec_of(workspace)
    if dry_run:
        return _dry(workspace, spec)
    machine = workspace.provider.get(spec.name)
    offers: list[Offer] = []
    attempts: list[Attempt] = []
    try:
        if machine is not None:
            adopt(workspace, machine, spec)
        else:
            _require_store(workspace)
            spec = left_of(workspace, spec)
            offers = worth_it(workspace, spec, workspace.provider.offers(spec))
            offers.sort(key=lambda offer: offer.place == last)
            key = own_key(workspace.records, workspace.settings.provider, spec.name)
            spec = dataclasses.replace(spec, public_key=key)
            machine = ask(workspace, spec, offers, attempts, clock, wait_s=wait_hours * 3600)
            agree(machine, spec.settings())  # another terminal may have been faster
        begun(workspace, machine)
        made = bool(attempts) and not attempts[-1].refused
        machine = make_ready(workspace, machine, fresh=made, timeout_s=ready_timeout_s, clock=clock)
    except KeyboardInterrupt:
        stands = "may exist" if machine is None else "exists and is not ready yet"
        raise Interruption(
            f"The machine {spec.name} {stands}", next="tlvm status shows it, tlvm down ends it."
        ) from None
    most = _most(spec, [Offer(machine.place, machine.accelerator, machine.price_per_hour)])
    return UpResult(machine, made, spec, offers, attempts, clock.now() - began, most=most)


def ensure(workspace: Workspace, *, clock: Clock | None = None) -> Machine:
    """A machine that is ready for a run: the one that is there, or a new one where machines are free.

    NotFoundError   there is none, and one would cost money: `tlvm up` asks for it
    """
    try:
        machine = workspace.machine()
        if workspace.settings.machine.name is None and run_of(machine.name):
            raise NotFoundError(
                f"There is no machine on the provider {machine.provider} but that of another run",
                next="tlvm up makes one; tlvm run --ephemeral brings one for this run.",
            )
    except NotFoundError:
        spec = spec_of(workspace)
        if any(offer.price_per_hour > 0 for offer in workspace.provider.offers(spec)):
            raise
        made = up(workspace, clock=clock).machine
        assert made is not None
        return made
    return make_ready(workspace, machine, clock=clock)


def _require_store(workspace: Workspace) -> None:
    """Before a machine is paid for: without its store it could neither be given data nor keep a result."""
    workspace.store.get(_SOME_OBJECT)


def _dry(workspace: Workspace, spec: MachineSpec) -> UpResult:
    spec = left_of(workspace, spec)
    offers = worth_it(workspace, spec, workspace.provider.offers(spec))
    result = UpResult(None, False, spec, offers, most=_most(spec, offers))
    if workspace.rented is None or not offers:
        return result
    plan = workspace.rented.planned(dataclasses.replace(spec, public_key=_SOME_KEY), offers[0])
    return dataclasses.replace(
        result,
        prices=workspace.rented.prices(),
        request=plan.request,
        disk=plan.disk,
        ssh_sources=plan.ssh_sources,
    )


def _most(spec: MachineSpec, offers: list[Offer]) -> float:
    return max((offer.price_per_hour * spec.hours(offer.price_per_hour) for offer in offers), default=0.0)


def spec_of(workspace: Workspace) -> MachineSpec:
    """As the settings say; the key is made when it is needed."""
    settings = workspace.settings
    wanted = settings.machine
    return MachineSpec(
        name=settings.machine_name,
        owner=settings.owner_label,
        project=settings.project,
        public_key="",
        store=settings.store_ref,
        max_hours=settings.max_hours,
        accelerator=settings.accelerator,
        accelerator_count=settings.accelerator_count,
        machine_type=wanted.machine_type,
        disk_gb=wanted.disk_gb,
        cpus=wanted.cpus,
        memory_gb=wanted.memory_gb,
        spot=wanted.spot,
        image=wanted.image,
        budget=wanted.budget or 0.0,
        idle_minutes=settings.idle_minutes,
        idle_action=wanted.idle_action,
    )
