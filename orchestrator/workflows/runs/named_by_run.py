"""The name of a machine that comes for one run and goes with it: it tells the run, whoever sees it, with no record."""

from __future__ import annotations

from remote.contract import layout
from remote.contract.document import ContractError

_PREFIX = "tlvm-"


def machine_of(run_id: str) -> str:
    """Two runs never share one, in CI either."""
    return _PREFIX + run_id


def run_of(machine: str) -> str | None:
    """The run that a machine is named by; None for every other machine."""
    try:
        return layout.checked_run_id(machine.removeprefix(_PREFIX)) if machine.startswith(_PREFIX) else None
    except ContractError:
        return None
