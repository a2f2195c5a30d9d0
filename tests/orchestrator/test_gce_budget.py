"""Hours and budget on gce are shared by machines that follow each other under one name; `down` begins anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import ConfigError, ConflictError
from orchestrator.workflows.machines.allowance import left_of
from orchestrator.workflows.machines.down import down
from orchestrator.workflows.machines.up import up
from orchestrator.workflows.workspace import Workspace
from tests.fakes.compute_server import ComputeServer
from tests.orchestrator.gce_workspace import bring_up, told, waiting, workspace

MACHINE = "tlvm-ana-default"


def spot(server: ComputeServer, folder: Path, **machine: object) -> Workspace:
    return workspace(server, folder, gce_more=None, **({"spot": True, "max_hours": 4} | machine))


def lost_after(server: ComputeServer, hours: float) -> None:
    server.clock.advance(hours * 3600)
    server.instances.preempt(MACHINE)
    server.clock.advance(60)
    assert server.cloud.resources["instances"] == {}


def lifetimes(server: ComputeServer) -> list[float]:
    """Hours that the cloud itself gives each machine."""
    inserts = [request for request in server.requests if request.call == "instances.insert"]
    return [int(request.body["scheduling"]["maxRunDuration"]["seconds"]) / 3600 for request in inserts]


def test_a_machine_that_was_lost_comes_back_with_the_hours_that_are_left(
    server: ComputeServer, tmp_path: Path
) -> None:
    bring_up(spot(server, tmp_path), server)
    lost_after(server, 1.5)
    server.clock.advance(5 * 3600)  # nobody looked for a while, and nothing was running
    again = spot(server, tmp_path)
    bring_up(again, server)
    assert lifetimes(server) == [4.0, pytest.approx(2.5, abs=0.05)]
    assert "earlier machines of tlvm-ana-default used 1.5 of 4 h; this one gets the rest" in told(again)


def test_the_budget_is_shared_whatever_the_next_one_costs(server: ComputeServer, tmp_path: Path) -> None:
    first = spot(server, tmp_path, budget=1.0)
    (offer, *_) = first.provider.offers(wish := up(first, dry_run=True).spec)
    whole = wish.hours(offer.price_per_hour)
    bring_up(first, server)
    lost_after(server, whole / 4)
    bring_up(spot(server, tmp_path, budget=1.0), server)
    lost_after(server, whole / 4)
    server.cloud.frozen_zones |= {f"us-central1-{letter}" for letter in "abc"}
    dearer = workspace(server, tmp_path, gce_more={"zones": "us-east4"}, spot=True, max_hours=4, budget=1.0)
    bring_up(dearer, server)
    price = dearer.provider.offers(wish)[0].price_per_hour
    assert lifetimes(server)[:2] == [pytest.approx(whole, abs=0.01), pytest.approx(whole * 0.75, abs=0.05)]
    assert lifetimes(server)[2] == pytest.approx(min(0.5 / price, 4 - whole / 2), abs=0.05)


def test_a_budget_that_is_used_up_makes_no_machine_until_down(server: ComputeServer, tmp_path: Path) -> None:
    bring_up(spot(server, tmp_path, budget=0.5), server)
    server.clock.advance(4 * 3600)  # it reached its end
    assert server.cloud.resources["instances"] == {}
    spent = spot(server, tmp_path, budget=0.5)
    with pytest.raises(ConflictError, match="used up") as caught:
        up(spent, clock=waiting(server))
    assert "$0.50 of $0.50" in caught.value.detail
    with pytest.raises(ConflictError, match="used up"):
        up(spent, dry_run=True)
    assert len(lifetimes(server)) == 1
    bring_up(spot(server, tmp_path, budget=1.0), server)  # more money goes on
    assert len(lifetimes(server)) == 2
    assert down(spent, clock=waiting(server)).deleted
    bring_up(spot(server, tmp_path, budget=0.5), server)
    assert lifetimes(server)[2] == pytest.approx(lifetimes(server)[0])


def test_hours_without_a_budget_begin_anew_after_the_hard_clock(
    server: ComputeServer, tmp_path: Path
) -> None:
    bring_up(spot(server, tmp_path), server)
    server.clock.advance(4.1 * 3600)
    bring_up(spot(server, tmp_path), server)
    assert lifetimes(server) == [4.0, 4.0]


def test_what_the_cloud_forgot_counts_up_to_its_hard_clock(server: ComputeServer, tmp_path: Path) -> None:
    """Too much rather than too little: nobody knows when it ended."""
    made = spot(server, tmp_path, max_hours=4)
    bring_up(made, server)
    (life,) = made.records.lives("gce", MACHINE)
    ended_at = made.provider.ended_at  # type: ignore[attr-defined]
    lost_after(server, 1)
    lost = server.clock.now()
    server.clock.advance(3600)
    assert abs((lost - ended_at(life.place, life.id)).total_seconds()) < 120
    server.cloud.resources["operations"].clear()
    assert ended_at(life.place, life.id) == server.clock.now()
    bring_up(spot(server, tmp_path), server)
    assert lifetimes(server) == [4.0, pytest.approx(2.0, abs=0.05)]
    server.clock.advance(20 * 3600)
    assert left_of(made, up(made, dry_run=True).spec).used_hours == 0


def test_a_budget_that_pays_for_no_machine_makes_none(server: ComputeServer, tmp_path: Path) -> None:
    made = workspace(server, tmp_path, accelerator="l4", budget=0.02)
    for dry_run in (True, False):
        with pytest.raises(ConfigError, match=r"\$0.02 pays for less than 5 minutes") as caught:
            up(made, dry_run=dry_run, clock=waiting(server))
        assert "--budget" in caught.value.next
    assert server.count("instances.insert") == 0
