"""A machine that was asked for on gce, and no answer came: `status` says that it may exist, `down` finds out and ends it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from orchestrator.errors import TransientError
from orchestrator.workflows.clock import Clock as Waiting
from orchestrator.workflows.machines.down import down
from orchestrator.workflows.machines.placement import unanswered
from orchestrator.workflows.machines.status import StatusResult, status
from orchestrator.workflows.machines.up import up
from orchestrator.workflows.workspace import Workspace
from tests.fakes.compute_server import ComputeServer
from tests.orchestrator.gce_workspace import instances, waiting, workspace


def unheard(server: ComputeServer, folder: Path, *, arrives: bool) -> Workspace:
    """`up` has given up: every try was without an answer."""
    made = workspace(server, folder)
    if arrives:
        server.faults.add("503 after")
    server.faults.add("503", times=20)
    with pytest.raises(TransientError):
        up(made, clock=waiting(server))
    server.faults.clear()
    return workspace(server, folder)


def said(result: StatusResult) -> str:
    return "\n".join(result.problems)


def sent(server: ComputeServer) -> Callable[[], None]:
    """The insert once more, as a request that was on its way all the time."""
    (first, *_) = [request for request in server.requests if request.call == "instances.insert"]
    body, query = json.dumps(first.body), {name: values[0] for name, values in first.query.items()}

    def arrive() -> None:
        path = first.path if first.path.startswith("/") else f"/{first.path}"
        requests.post(server.url + path, params=query, data=body, timeout=10).raise_for_status()

    return arrive


def test_what_may_exist_is_shown_and_ended(server: ComputeServer, tmp_path: Path) -> None:
    made = unheard(server, tmp_path, arrives=False)
    shown = status(made)
    assert shown.machines == []
    assert "tlvm-ana-default may exist and not be seen yet: us-central1-a nvidia-l4 was asked" in said(shown)
    assert not down(made, clock=waiting(server)).was_there
    assert made.records.machines() == [] and instances(server) == []
    assert said(status(made)) == ""


def test_one_that_came_of_it_is_seen_and_ended(server: ComputeServer, tmp_path: Path) -> None:
    made = unheard(server, tmp_path, arrives=True)
    shown = status(made)
    assert [line.machine.name for line in shown.machines] == ["tlvm-ana-default"] and said(shown) == ""
    assert down(made, clock=waiting(server)).deleted
    assert instances(server) == [] and made.records.machines() == []


def test_one_that_comes_while_it_is_looked_for_is_ended_too(server: ComputeServer, tmp_path: Path) -> None:
    made = unheard(server, tmp_path, arrives=False)
    (record,) = made.records.machines()
    arrive, waits = sent(server), list[float]()
    clock = waiting(server)

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            arrive()
        clock.sleep(seconds)

    assert down(made, clock=Waiting(clock.now, sleep)).deleted
    assert instances(server) == [] and made.records.machines() == []
    asked: list[Any] = [one.query["requestId"] for one in server.requests if one.call == "instances.insert"]
    assert asked[-1] == [record.request_id]


def test_what_never_came_is_forgotten_after_a_while(server: ComputeServer, tmp_path: Path) -> None:
    made = unheard(server, tmp_path, arrives=False)
    assert unanswered(made, (), datetime.now(UTC)) != []
    assert unanswered(made, (), datetime.now(UTC) + timedelta(hours=1)) == []
    assert made.records.machines() == []
