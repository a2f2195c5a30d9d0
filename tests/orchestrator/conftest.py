"""What tests of several files are given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.workflows.workspace import Workspace
from tests.fakes.compute_cloud import Clock
from tests.fakes.compute_server import ComputeServer
from tests.orchestrator.scripted_provider import settings


@pytest.fixture
def server() -> Iterator[ComputeServer]:
    """A Compute Engine whose time stands still unless a test moves it. At the end it has understood every request, and
    every fault that was put into it has happened."""
    with ComputeServer(clock=Clock(rate=0), wait_s=0.05) as running:
        yield running
        assert running.errors == []
        assert running.faults.unused() == []


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Workspace]:
    """With the real provider `local`. Its machines end with the test."""
    workspace = Workspace(settings(tmp_path))
    try:
        yield workspace
    finally:
        for machine in workspace.provider.machines():
            workspace.provider.delete(machine.name)
