"""What still costs money without a machine: disks and addresses that nobody uses, and the bucket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.errors import TlvmError
from orchestrator.providers.rented import Rented, Thing
from orchestrator.workflows.workspace import Workspace


@dataclass(frozen=True)
class LeftOver:
    things: list[Thing]  # of this owner, that no machine uses
    stored_bytes: int | None = None  # in the bucket; None when it was not asked
    stored_per_month: float = 0  # dollars, an estimate, as all prices
    disks_of: Mapping[str, float] = field(default_factory=dict)  # a month, by machine
    problems: list[str] = field(default_factory=list)  # what could not be asked

    @property
    def per_month(self) -> float:
        return self.stored_per_month + sum(thing.per_month for thing in self.things)


def things_of(rented: Rented | None) -> list[Thing] | TlvmError | None:
    """Everything that costs; what went wrong, so that a machine is shown even when a disk can't be asked for."""
    if rented is None:
        return None
    try:
        return rented.things(free=False)
    except TlvmError as error:
        return error


def left_over(
    workspace: Workspace, things: Sequence[Thing] | TlvmError | None, *, with_store: bool
) -> LeftOver | None:
    """None where nothing is rented.

    with_store      also what the bucket holds, which takes a listing of all of it
    """
    rented = workspace.rented
    if rented is None or things is None:
        return None
    problems = []
    if isinstance(things, TlvmError):
        problems.append(f"What is left over is not known: {things.what}")
        things = []
    stored: int | None = None
    if with_store:
        try:
            stored = sum(blob.size for blob in workspace.store.blobs(""))
        except TlvmError as error:
            problems.append(f"What the bucket holds is not known: {error.what}")
    mine = [thing for thing in things if thing.owner == workspace.settings.owner_label]
    disks: dict[str, float] = {}
    for thing in things:
        for name in thing.used_by:
            disks[name] = disks.get(name, 0.0) + thing.per_month
    return LeftOver(
        [thing for thing in mine if not thing.used_by],
        stored,
        rented.storage_per_month(stored) if stored else 0.0,
        disks,
        problems,
    )
