"""`run --ephemeral` takes no machine that was not made for it, though nobody else gives such names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.errors import ConflictError
from orchestrator.providers.base import Machine
from orchestrator.workflows.runs.ephemeral_run import run_ephemeral
from orchestrator.workflows.runs.named_by_run import machine_of
from orchestrator.workflows.runs.run import RunResult
from orchestrator.workflows.workspace import Workspace
from tests.fakes.compute_server import ComputeServer
from tests.orchestrator.gce_cloud import OFFER, PUBLIC_KEY, wanted
from tests.orchestrator.gce_workspace import asked, instances
from tests.orchestrator.gce_workspace import workspace as workspace_of

BringUp = Callable[[Workspace], Machine]


def test_a_machine_of_that_name_is_neither_taken_nor_ended(server: ComputeServer, tmp_path: Path) -> None:
    def carry_out(workspace: Workspace, *, run_id: str, bring_up: BringUp) -> RunResult:
        workspace.provider.create(wanted(name=machine_of(run_id), public_key=PUBLIC_KEY), OFFER)
        bring_up(workspace)
        raise AssertionError("it was taken")

    with pytest.raises(ConflictError, match="is there already") as raised:
        run_ephemeral(workspace_of(server, tmp_path), "fixed-extractor", carry_out)
    assert "It was not made for this run." in raised.value.detail
    assert len(asked(server)) == len(instances(server)) == 1


def test_one_that_another_terminal_sees_to_is_left_to_it(server: ComputeServer, tmp_path: Path) -> None:
    """Its lock is asked for before anything else."""
    made = workspace_of(server, tmp_path)

    def carry_out(workspace: Workspace, *, run_id: str, bring_up: BringUp) -> RunResult:
        with made.records.seeing_to("gce", machine_of(run_id)) as alone:
            assert not alone
        raise ConflictError("enough was seen")

    with pytest.raises(ConflictError, match="enough was seen"):
        run_ephemeral(made, "fixed-extractor", carry_out)
    assert asked(server) == []
