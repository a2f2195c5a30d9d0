"""stop, start, extend: on Compute Engine's fake, and on this computer."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.config import MachineSettings, Settings
from orchestrator.errors import ConfigError, ConflictError, ConnectionLost, NotFoundError
from orchestrator.providers.base import MachineState
from orchestrator.workflows.machines.down import down
from orchestrator.workflows.machines.power import extend, start, stop
from orchestrator.workflows.machines.up import up
from orchestrator.workflows.workspace import Workspace
from tests.fakes import compute_loopback
from tests.fakes.compute_server import ComputeServer
from tests.needs import need
from tests.orchestrator.gce_cloud import OFFER, PUBLIC_KEY, wanted
from tests.orchestrator.gce_workspace import waiting, workspace
from tests.orchestrator.stored_runs import RUN, put_run

NAME = "tlvm-ana-default"


@pytest.fixture
def made(server: ComputeServer, tmp_path: Path) -> Workspace:
    """With a machine that runs."""
    made = workspace(server, tmp_path)
    made.provider.create(wanted(name=NAME, project="default", public_key=PUBLIC_KEY), OFFER)
    return made


def instance(server: ComputeServer) -> dict[str, object]:
    return server.cloud.resources["instances"]["zones/us-central1-a", NAME]


# Google Cloud


def test_a_stopped_machine_keeps_its_disk_and_says_what_that_costs(
    server: ComputeServer, made: Workspace
) -> None:
    result = stop(made, clock=waiting(server))
    assert result.machine.state is MachineState.STOPPED and not result.was_stopped
    assert result.disk_per_month == pytest.approx(20)  # 200 GB, pd-balanced
    assert len(server.cloud.resources["disks"]) == 1
    again = stop(made, clock=waiting(server))
    assert again.was_stopped and again.disk_per_month == pytest.approx(20)
    assert server.count("instances.stop") == 1


def test_no_is_no(server: ComputeServer, made: Workspace) -> None:
    assert not stop(made, confirm=lambda _: False, clock=waiting(server)).stopped
    assert instance(server)["status"] == "RUNNING"


def test_a_start_sends_the_time_that_is_left(server: ComputeServer, made: Workspace) -> None:
    stop(made, clock=waiting(server))
    server.clock.advance(3600)
    with pytest.raises(ConnectionLost):  # nobody answers at its address; it has been started
        start(made, clock=waiting(server))
    (sent,) = [request.body for request in server.requests if request.call == "instances.setScheduling"]
    assert int(sent["maxRunDuration"]["seconds"]) == pytest.approx(3 * 3600, abs=60)
    assert sent["instanceTerminationAction"] == "DELETE"
    server.clock.advance(3 * 3600)
    assert made.provider.get(NAME) is None


def test_a_machine_whose_time_is_over_is_not_started(server: ComputeServer, made: Workspace) -> None:
    stop(made, clock=waiting(server))
    server.clock.advance(5 * 3600)
    with pytest.raises(ConflictError, match="time of the machine"):
        start(made, clock=waiting(server))
    assert instance(server)["status"] == "TERMINATED"


def test_extending_moves_the_soft_clock_up_to_the_hard_one(server: ComputeServer, made: Workspace) -> None:
    now = server.clock.now()
    result = extend(made, 2, now=now)
    assert (result.until, result.capped) == (now + timedelta(hours=2), False)
    result = extend(made, 100, now=now)
    assert (result.until, result.capped) == (result.machine.ends, True)
    items = instance(server)["metadata"]["items"]  # type: ignore[index]
    kept = {item["key"]: item["value"] for item in items}
    assert kept["tlvm-keep-until"] == str(int(result.machine.ends.timestamp()))


@pytest.mark.parametrize("hours", [0, -1, 1000, float("nan")])
def test_hours_that_make_no_sense_are_refused(made: Workspace, hours: float) -> None:
    with pytest.raises(ConfigError):
        extend(made, hours)


def test_a_stopped_machine_is_not_kept(server: ComputeServer, made: Workspace) -> None:
    stop(made, clock=waiting(server))
    with pytest.raises(ConflictError, match="stopped"):
        extend(made, 1)


def test_a_machine_of_somebody_else_is_not_touched(server: ComputeServer, made: Workspace) -> None:
    made.provider.create(wanted(name="tlvm-ben", owner="ben"), OFFER)
    theirs = Workspace(made.settings.model_copy(update={"machine": MachineSettings(name="tlvm-ben")}))
    theirs.provider, theirs.store = made.provider, made.store
    for act in (stop, start, lambda one: extend(one, 1)):
        with pytest.raises(ConflictError, match="belongs to ben"):
            act(theirs)


def test_a_machine_that_really_boots_is_stopped_and_started(tmp_path: Path) -> None:
    """The second boot runs the startup script again, and the pinned host key is the one that answers."""
    need("loopback machines")
    with ComputeServer(compute_loopback.LoopbackHardware(tmp_path / "disks")) as server:
        made = workspace(server, tmp_path / "here", accelerator="none", gce_more={"zones": "us-central1-b"})
        first = up(made).machine
        assert first is not None and stop(made).machine.state is MachineState.STOPPED
        result = start(made)
        assert not result.was_running and result.machine.id == first.id
        assert 0 < result.hours_left < 4 and result.machine.ends == first.ends
        assert start(made).was_running
        assert down(made).deleted
        assert server.errors == []


# This computer


def test_a_machine_at_work_is_stopped_only_with_force(tmp_path: Path) -> None:
    settings = Settings(owner="ana", folder=tmp_path, data_dir=tmp_path / "data")
    made = Workspace(settings)
    with pytest.raises(NotFoundError):
        stop(made)
    machine = up(made).machine
    assert machine is not None
    try:
        put_run(made, tmp_path, machine, state="RUNNING", publish=False)
        with pytest.raises(ConflictError, match="at work"):
            stop(made)
        result = stop(made, force=True)
        assert result.interrupted == [RUN] and result.disk_per_month == 0 and not result.resumes
        began = start(made)
        assert not began.was_running and began.machine.state is MachineState.RUNNING
        assert start(made).was_running
        with pytest.raises(ConfigError, match="no idle clock"):
            extend(made, 1)
    finally:
        down(made, force=True)
