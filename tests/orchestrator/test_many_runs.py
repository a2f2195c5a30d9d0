"""A store with many past runs: what is asked of it does not grow with them, and none that may go on is ever hidden."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.config import load
from orchestrator.providers.base import MachineState
from orchestrator.render import machines as render_machines
from orchestrator.render import runs as render_runs
from orchestrator.render.console import Screen
from orchestrator.workflows.machines.power import stop
from orchestrator.workflows.machines.refresh import refresh
from orchestrator.workflows.machines.status import status
from orchestrator.workflows.results.pull import pull_all
from orchestrator.workflows.runs.attach import attach
from orchestrator.workflows.runs.documents import read_runs, stored_runs
from orchestrator.workflows.runs.following import MachineLost
from orchestrator.workflows.runs.overview import runs
from orchestrator.workflows.workspace import Workspace
from remote.contract import document, layout
from remote.contract.run_attempt import Attempt
from remote.contract.run_spec import RunSpec, StoreRef
from remote.contract.run_status import RunStatus
from tests.benchmarks.status_runs import documents
from tests.fakes.gcs_server import GcsServer
from tests.orchestrator.scripted_provider import Scripted, machine_of

COUNT = 40
OLD = 3  # the run that is not over
MACHINE = "tlvm-ana-default"  # of them all
BEGAN = datetime(2026, 10, 1, 10, tzinfo=UTC)  # the oldest


@pytest.fixture
def server() -> Iterator[GcsServer]:
    with GcsServer() as running:
        yield running
        assert running.errors == []


@pytest.fixture
def many(server: GcsServer, tmp_path: Path) -> Workspace:
    """In a bucket: runs a minute apart that are over, but for an old one, which said RUNNING last. No machine."""
    ref = StoreRef(server.create_bucket("many"), endpoint=server.endpoint)
    environ = {
        "TLVM_DATA_DIR": str(tmp_path / "data"),
        "TLVM_OWNER": "ana",
        "TLVM_STORE_URL": ref.url,
        "TLVM_STORE_ENDPOINT": server.endpoint,
    }
    found = Workspace(load({}, environ=environ, folder=tmp_path))
    found.provider = Scripted([])
    for number in range(COUNT):
        put(server, number, ref)
    return found


def put(server: GcsServer, number: int, ref: StoreRef) -> None:
    files = {key: text for key, text in documents(number, ref).items() if "model" not in key}
    if number == OLD:
        (manifest,) = [key for key in files if key.endswith("MANIFEST.json")]
        (said,) = [key for key in files if key.endswith("status.json")]
        del files[manifest]
        status = document.decode(RunStatus, files[said], what=said)
        files[said] = document.encode(dataclasses.replace(status, state="RUNNING", published=False))
    for key, text in files.items():
        server.api.buckets.put("many", key, text.encode(), {}, {})


def run_id(number: int) -> str:
    (key,) = [key for key in documents(number, StoreRef("gs://x")) if key.endswith("spec.json")]
    return key.split("/")[1]


def read(server: GcsServer) -> int:
    return server.requests["objects.get"] + server.requests["objects.download"]


def drawn(draw: object, result: object) -> str:
    out = io.StringIO()
    assert callable(draw)
    draw(Screen(out, io.StringIO()), result)
    return out.getvalue()


def test_status_reads_what_is_not_over_and_nothing_else(server: GcsServer, many: Workspace) -> None:
    for _ in range(2):  # nothing depends on what is remembered
        server.requests.clear()
        found = status(many)
        assert [run.run_id for run in found.other_runs] == [run_id(OLD)]
        assert read(server) == 5  # spec, status, attempt: two found, the third one listed, and read
        assert server.requests["objects.list"] <= 4


def test_status_shows_the_runs_of_the_machines_there_are(server: GcsServer, many: Workspace) -> None:
    began = BEGAN + timedelta(minutes=30)
    machine = machine_of(MACHINE, created=began, state=MachineState.STOPPED)
    assert isinstance(many.provider, Scripted)
    many.provider.there[MACHINE] = machine
    _began_again(many, 7, began + timedelta(hours=3))
    (line,) = status(many).machines
    later = [number for number in range(COUNT) if BEGAN + timedelta(minutes=number) >= began]
    assert {run.run_id for run in line.runs} == {run_id(number) for number in [*later, 7]}


def _began_again(workspace: Workspace, number: int, asked: datetime) -> None:
    """An old run that another machine of that name, the one of now, has brought to its end."""
    key = layout.attempt_key(run_id(number), 3)
    text = document.encode(Attempt(3, MACHINE, "local", "this computer", 0.0, asked.isoformat()))
    path = workspace.settings.data_dir / "attempt"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    workspace.store.upload(path, key)


def test_runs_shows_the_newest_and_every_one_that_is_not_over(server: GcsServer, many: Workspace) -> None:
    found = runs(many, newest=5)
    newest = [run_id(number) for number in range(COUNT - 1, COUNT - 6, -1)]
    assert [row.run_id for row in found.runs] == [*newest, run_id(OLD)]
    assert read(server) == 5 * 6
    text = drawn(render_runs.listed, found)
    assert run_id(OLD) in text and f"... and {COUNT - 6} more that have ended" in text
    assert f"next: tlvm attach --recover {run_id(OLD)[-4:]}" in text


def test_runs_with_a_question_reads_all(many: Workspace) -> None:
    for found in (runs(many), runs(many, newest=5, sort="time"), runs(many, newest=5, machine=MACHINE)):
        assert len(found.runs) == COUNT and found.older == 0
        assert run_id(OLD) in drawn(render_runs.listed, found)


def test_a_machine_with_many_runs_hides_none_that_may_go_on(many: Workspace) -> None:
    assert isinstance(many.provider, Scripted)
    many.provider.there[MACHINE] = machine_of(MACHINE, created=BEGAN, state=MachineState.STOPPED)
    text = drawn(render_machines.overview, status(many))
    assert run_id(OLD) in text and f"... and {COUNT - 13} more that have ended (tlvm runs)" in text


def test_documents_that_say_no_time_are_read(many: Workspace) -> None:
    """An id may look like a time and be none."""
    odd = "fixed-extractor-20269999-999999-aaaa"
    (spec,) = [text for key, text in documents(1, StoreRef("gs://x")).items() if key.endswith("spec.json")]
    changed = dataclasses.replace(document.decode(RunSpec, spec, what="spec"), run_id=odd)
    path = many.settings.data_dir / "file"
    path.parent.mkdir(exist_ok=True)
    for name, text in {"spec.json": document.encode(changed), "MANIFEST.json": json.dumps({})}.items():
        path.write_text(text)
        many.store.upload(path, layout.run_key(odd, name))
    assert isinstance(many.provider, Scripted)
    many.provider.there[MACHINE] = machine_of(MACHINE, created=datetime(2026, 1, 1, tzinfo=UTC))
    assert odd in {run.run_id for line in status(many).machines for run in line.runs}


def test_attach_without_a_name_reads_the_newest_and_what_is_not_over(
    server: GcsServer, many: Workspace
) -> None:
    with pytest.raises(MachineLost):
        attach(many)  # the one that is not over, whose machine is gone
    assert 3 * 21 <= read(server) <= 3 * 21 + 12


def test_pull_all_reads_nothing_of_what_is_here(server: GcsServer, many: Workspace) -> None:
    for number in range(COUNT):
        if number not in (5, OLD):
            folder = many.project_folder / "runs" / run_id(number)
            folder.mkdir(parents=True)
            (folder / "run.json").write_text("{}")
    assert [result.run_id for result in pull_all(many).pulled] == [run_id(5)]
    assert read(server) <= 24


def test_stop_reads_what_is_not_over_and_nothing_else(server: GcsServer, many: Workspace) -> None:
    assert isinstance(many.provider, Scripted)
    many.provider.there[MACHINE] = machine_of(MACHINE, created=BEGAN)
    assert not stop(many, confirm=lambda _: False).stopped
    assert read(server) == 5


def test_refresh_lists_what_there_is_and_reads_each_document_once(server: GcsServer, many: Workspace) -> None:
    assert refresh(many).runs == COUNT
    assert server.requests["objects.download"] == 3 * COUNT and server.requests["objects.get"] == 0
    assert server.requests["objects.list"] == 4  # the runs, their specs, statuses and attempts
    again = read_runs(many.store, [run_id(OLD)])[0]  # as it is read where only a few are asked for
    assert again == [run for run in stored_runs(many.store)[0] if run.spec.run_id == run_id(OLD)]


def test_what_refresh_has_read_is_not_read_again(server: GcsServer, many: Workspace) -> None:
    refresh(many)
    before = read(server)
    runs(many)
    assert read(server) - before <= 12  # the run that is not over, and notes
