"""Two people in one project who call their machines alike: nobody gets into, stops or deletes what is another's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import ConflictError
from orchestrator.providers.gce import GceProvider
from orchestrator.workflows.machines.gc import gc
from orchestrator.workflows.machines.power import start
from orchestrator.workflows.machines.up import up
from orchestrator.workflows.workspace import Workspace
from tests.fakes.compute_cloud import items
from tests.fakes.compute_server import ComputeServer
from tests.orchestrator.gce_cloud import OFFER, gce_settings, wanted
from tests.orchestrator.gce_workspace import instances, waiting, workspace

NAME = "tlvm-ana-default"  # as ana's tlvm.toml names it, too


def provider_of(owner: str, server: ComputeServer) -> GceProvider:
    return GceProvider(gce_settings(server), now=server.clock.now, owner=owner)


def of_ben(server: ComputeServer, made: Workspace) -> dict[str, object]:
    """Ben's machine of that name, exactly as ana would ask for it."""
    provider_of("ben", server).create(wanted(name=NAME, owner="ben", project="default"), OFFER)
    (found,) = server.cloud.resources["instances"].values()
    return found


def test_up_never_enters_the_machine_of_another_owner(server: ComputeServer, tmp_path: Path) -> None:
    made = workspace(server, tmp_path, name=NAME)
    found = of_ben(server, made)
    before = items(found["metadata"])  # type: ignore[arg-type]
    rules = [dict(rule) for rule in server.cloud.resources["firewalls"].values()]
    with pytest.raises(ConflictError, match="belongs to ben") as caught:
        up(made, clock=waiting(server))
    assert "--machine" in caught.value.next
    with pytest.raises(ConflictError, match="belongs to ben"):
        start(made, clock=waiting(server))
    assert items(found["metadata"]) == before  # type: ignore[arg-type]
    assert list(server.cloud.resources["firewalls"].values()) == rules
    assert len(instances(server)) == 1


def test_create_never_adopts_the_machine_of_another_owner(server: ComputeServer, tmp_path: Path) -> None:
    """Made by ben between the look and the request."""
    of_ben(server, workspace(server, tmp_path))
    with pytest.raises(ConflictError, match="belongs to ben"):
        provider_of("ana", server).create(wanted(name=NAME), OFFER)
    assert len(instances(server)) == 1


def test_two_machines_of_one_name_are_told_apart_by_their_owner(server: ComputeServer) -> None:
    """Names are a zone's, so this can be; each owner finds and deletes the one that is his."""
    ana, ben = provider_of("ana", server), provider_of("ben", server)
    ana.create(wanted(name=NAME), OFFER)
    (scope, _), hers = next(iter(server.cloud.resources["instances"].items()))
    hers["name"] = "aside"  # out of sight while ben asks
    server.cloud.resources["instances"][scope, "aside"] = server.cloud.resources["instances"].pop(
        (scope, NAME)
    )
    ben.create(wanted(name=NAME, owner="ben"), replace(OFFER, place="us-central1-b"))
    hers["name"] = NAME
    server.cloud.resources["instances"][scope, NAME] = server.cloud.resources["instances"].pop(
        (scope, "aside")
    )
    for provider, zone in ((provider_of("ana", server), "us-central1-a"), (ben, "us-central1-b")):
        found = provider.get(NAME)
        assert found is not None and found.place == zone
    provider_of("ben", server).delete(NAME)
    server.cloud.settle()
    assert instances(server) == [("us-central1-a", NAME)]


def test_gc_of_one_owner_leaves_the_expired_machine_of_another(server: ComputeServer, tmp_path: Path) -> None:
    made = workspace(server, tmp_path)
    made.provider = provider_of("ana", server)
    of_ben(server, made)
    over = server.clock.now().replace(year=server.clock.now().year + 1)
    (item,) = [item for item in gc(made, now=over, clock=waiting(server)).items if item.kind == "machine"]
    assert (item.fate, item.deleted) == ("not touched", False)
    assert len(instances(server)) == 1
