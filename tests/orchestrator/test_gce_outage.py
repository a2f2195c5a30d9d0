"""A zone that is out somewhere: what is elsewhere is shown and can be ended, and what is not seen is not taken for gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.providers.base import Unseen
from orchestrator.workflows.machines.down import down
from orchestrator.workflows.machines.status import status
from orchestrator.workflows.workspace import Workspace
from tests.fakes.compute_server import ComputeServer
from tests.orchestrator.gce_cloud import OFFER, wanted
from tests.orchestrator.gce_workspace import bring_up, instances, told, waiting, workspace

NAME = "tlvm-ana-default"
FAR, NEAR = "europe-west4-a", "us-central1-b"


@pytest.fixture
def made(server: ComputeServer, tmp_path: Path) -> Workspace:
    """A machine in us-central1-a."""
    found = workspace(server, tmp_path)
    found.provider.create(wanted(name=NAME, project="default"), OFFER)
    return found


def test_status_shows_the_machines_of_the_other_zones(server: ComputeServer, made: Workspace) -> None:
    server.cloud.unreachable.add(FAR)
    before = len(server.requests)
    shown = status(made, now=server.clock.now())
    assert [line.machine.name for line in shown.machines] == [NAME]
    assert any(FAR in problem and "goes on costing" in problem for problem in shown.problems)
    assert (
        len(server.requests) - before < 12
    )  # an outage is not over in a moment: it is not asked again and again


def test_down_ends_a_machine_whose_own_zone_answers(server: ComputeServer, made: Workspace) -> None:
    server.cloud.unreachable.add(FAR)
    assert down(made, clock=waiting(server)).deleted
    assert instances(server) == []
    assert FAR in told(made)


def test_up_minds_only_the_zones_that_it_makes_machines_in(server: ComputeServer, tmp_path: Path) -> None:
    server.cloud.unreachable.add(FAR)
    fresh = workspace(server, tmp_path, accelerator="none")
    bring_up(fresh, server)
    assert len(instances(server)) == 1


def test_a_machine_that_may_be_in_the_silent_zone_is_not_made_again(
    server: ComputeServer, made: Workspace, tmp_path: Path
) -> None:
    server.cloud.unreachable.add("us-central1-a")
    other = workspace(server, tmp_path / "other")  # another computer: its records know nothing
    with pytest.raises(Unseen, match="us-central1-a"):
        other.provider.get(NAME)
    shown = status(made, now=server.clock.now())
    assert shown.machines == [] and any("us-central1-a" in problem for problem in shown.problems)
    with pytest.raises(Unseen):
        down(other, clock=waiting(server))
    assert len(instances(server)) == 1
