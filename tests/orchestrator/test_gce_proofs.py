"""What is taken for gone is proven gone: an attempt before the next place is asked, a machine before it is forgotten."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.errors import CapacityError
from orchestrator.providers.base import Machine
from orchestrator.workflows.machines.gc import plan
from orchestrator.workflows.machines.placement import wait_until_gone
from tests.fakes.compute_server import ComputeServer
from tests.orchestrator.gce_cloud import OFFER, gce, wanted
from tests.orchestrator.gce_workspace import instances, waiting, workspace

NAME = "tlvm-ana-default"


def test_a_refused_attempt_that_is_still_there_is_waited_for(server: ComputeServer) -> None:
    server.cloud.lingers_s = 20.0
    server.faults.add("stock-out")
    began = server.clock.now()
    with pytest.raises(CapacityError):
        gce(server).create(wanted(), OFFER)
    assert instances(server) == []
    assert server.clock.now() - began < timedelta(seconds=20)  # it was told to go, not only waited for


@pytest.mark.parametrize(
    "answers", [[True, False, True, False, False], [False, True, False, False], [False, False]]
)
def test_absence_in_one_answer_is_no_proof(
    server: ComputeServer, tmp_path: Path, answers: list[bool]
) -> None:
    made = workspace(server, tmp_path)
    machine = gce(server).create(wanted(name=NAME, project="default"), OFFER)
    left = list(answers)
    deleted: list[str] = []

    def get(name: str) -> Machine | None:
        return machine if left.pop(0) else None

    made.provider.__dict__["get"] = get
    made.provider.__dict__["delete"] = deleted.append
    wait_until_gone(made, NAME, clock=waiting(server))
    assert left == [] and len(deleted) == answers.count(True)


def test_a_name_that_also_means_a_machine_whose_time_is_not_over_is_not_deleted_unasked(
    server: ComputeServer,
) -> None:
    old = gce(server).create(wanted(name=NAME, max_hours=1), OFFER)
    young = replace(old, id="2", place="us-central1-b", ends=old.ends + timedelta(hours=9))
    now = old.ends + timedelta(hours=1)
    for machines, fates in (([old], ["expired"]), ([old, young], ["listed", "listed"])):
        found = plan(machines, [], "ana", (), mine=False, now=now)
        assert [one.item.fate for one in found] == fates
