"""`tlvm gpus`: the kinds of GPU that can be rented: where, for how much, and how many you may have."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.providers.rented import AcceleratorKind
from orchestrator.workflows.machines.up import spec_of
from orchestrator.workflows.setup.quota import rented
from orchestrator.workflows.workspace import Workspace


@dataclass(frozen=True)
class GpusResult:
    provider: str
    accelerators: list[AcceleratorKind]  # the cheapest first
    prices: str  # where they come from, and of which day


def gpus(workspace: Workspace) -> GpusResult:
    """ConfigError on a provider where nothing is rented."""
    account = rented(workspace, "kinds of GPU to choose from")
    found = account.accelerators(spec_of(workspace))
    return GpusResult(workspace.settings.provider, found, account.prices())
