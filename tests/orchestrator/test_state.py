"""What this computer remembers: deleted and made again, written by two terminals at once, of other versions of tlvm."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator.errors import CloudError
from orchestrator.records import Records, RunRecord
from orchestrator.workflows.machines.allowance import begun
from orchestrator.workflows.machines.status import status
from orchestrator.workflows.runs.attach import attach
from orchestrator.workflows.runs.launch import Detached
from orchestrator.workflows.runs.overview import runs
from orchestrator.workflows.runs.run import RunResult, run
from orchestrator.workflows.workspace import Workspace
from remote.contract import document, layout, run_attempt
from remote.contract.document import ContractError
from tests.orchestrator import finished_runs
from tests.orchestrator.scripted_provider import machine_of, settings
from tests.orchestrator.test_run import go, long_run, opened, project

__all__ = ["long_run", "project"]  # the machine of the runs' tests

EACH = 40


def test_deleted_records_come_back(project: Path, long_run: RunResult) -> None:
    done = run(opened(project, seed=60), "fixed-extractor", detach=True)
    with pytest.raises(Detached):
        attach(opened(project), long_run.run_id, on_event=_interrupt)
    before = opened(project).records
    known = {record.run_id for record in before.runs()}
    shutil.rmtree(before.folder)
    shown = status(opened(project))
    assert {line.run_id for machine in shown.machines for line in machine.runs} >= {done.run_id}
    again = status(opened(project), refresh=True)
    assert again.refreshed and again.refreshed.machines == [long_run.machine]
    assert {record.run_id for record in opened(project).records.runs()} == known
    assert status(opened(project), refresh=True).refreshed == type(again.refreshed)()
    go(project).touch()
    try:
        assert attach(opened(project), done.run_id).state == "SUCCEEDED"
    finally:
        go(project).unlink()


def _interrupt(event: object) -> None:
    raise KeyboardInterrupt


def test_where_a_result_lies_is_found_again(project: Path) -> None:
    done = run(opened(project), "fixed-extractor")
    assert done.folder
    shutil.rmtree(opened(project).records.folder)
    status(opened(project), refresh=True)
    record = opened(project).records.run(done.run_id)
    assert record and record.pulled_to == str(done.folder)
    (done.folder / "metrics.json").unlink()
    shutil.rmtree(opened(project).records.folder)
    status(opened(project), refresh=True)
    record = opened(project).records.run(done.run_id)
    assert record and record.pulled_to is None


# Two terminals at once


def _write(folder: Path, number: int) -> None:
    workspace = Workspace(settings(folder))
    workspace.records.run("fixed-extractor-20260807-142530-k3qz")
    for turn in range(EACH):
        begun(workspace, machine_of("tlvm-ana", id=f"{number}-{turn}", price_per_hour=1.0))
        workspace.records.pulled("fixed-extractor-20260807-142530-k3qz", folder / f"{number}-{turn}")


def test_records_of_two_terminals_lose_nothing(tmp_path: Path) -> None:
    records = Workspace(settings(tmp_path)).records
    run_id = "fixed-extractor-20260807-142530-k3qz"
    records.save_run(RunRecord(run_id, "tlvm-ana", "local", "now", machine_settings={"spot": "True"}))
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(tmp_path, number)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    lives = records.lives("local", "tlvm-ana")
    assert {life.id for life in lives} == {f"{n}-{turn}" for n in range(4) for turn in range(EACH)}
    record = records.run(run_id)
    assert record and record.machine_settings == {"spot": "True"} and record.pulled_to


# Other versions of tlvm


@dataclass(frozen=True)
class Third:
    name: str
    since_second: int = 2
    since_third: list[str] = field(default_factory=list)
    schema: int = 3


def test_older_documents_are_read_and_newer_ones_refused() -> None:
    assert document.decode(Third, '{"name": "a", "schema": 1}', what="it") == Third("a", schema=1)
    assert (
        document.decode(Third, '{"name": "a", "since_second": 5, "schema": 2}', what="it").since_second == 5
    )
    for schema in ("4", "0", "true", '"3"', "null"):
        with pytest.raises(ContractError, match=r"it: schema .* is not the 3 of this version of tlvm"):
            document.decode(Third, f'{{"name": "a", "schema": {schema}}}', what="it")


@pytest.mark.parametrize(
    ("file", "ours"), [("spec.json", 1), ("status.json", 1), ("attempts/1.json", run_attempt.SCHEMA)]
)
def test_a_run_of_a_newer_tlvm_is_named_and_hides_no_other(tmp_path: Path, file: str, ours: int) -> None:
    workspace = finished_runs.opened(tmp_path)
    dataset = finished_runs.put_dataset(workspace, [finished_runs.image("1", "oak")])
    images, shares = [finished_runs.image("1", "oak")], [[0.5, 0.5]]
    other = finished_runs.put_run(workspace, "aaaa", dataset, images, shares)
    newer = finished_runs.put_run(workspace, "bbbb", dataset, images, shares)
    text = json.dumps({"schema": 99, "what": "nobody knows"})
    finished_runs.put(workspace, layout.run_key(newer, file), text.encode())
    listed = runs(workspace)
    assert [row.run_id for row in listed.runs] == [other]
    (problem,) = listed.problems
    assert problem.startswith(f"runs/{newer}/{file}: schema '99' is not the {ours} of this version")
    assert "use the version that wrote it" in problem
    with pytest.raises(CloudError) as raised:
        attach(workspace, newer)
    assert newer in raised.value.what and "schema '99'" in raised.value.detail


def test_what_is_remembered_of_ended_runs_may_be_damaged(tmp_path: Path) -> None:
    workspace = finished_runs.opened(tmp_path)
    dataset = finished_runs.put_dataset(workspace, [finished_runs.image("1", "oak")])
    run_id = finished_runs.put_run(
        workspace, "aaaa", dataset, [finished_runs.image("1", "oak")], [[0.5, 0.5]]
    )
    for _ in range(2):
        assert [row.run_id for row in runs(workspace).runs] == [run_id]
    cache = Records(workspace.settings.records_dir).cache / "runs.sqlite"
    assert cache.exists()
    cache.write_bytes(b"no database" * 1000)
    for _ in range(2):
        assert [row.run_id for row in runs(workspace).runs] == [run_id]
    finished_runs.put(workspace, layout.run_key(run_id, "status.json"), b"{}")
    assert [row.run_id for row in runs(workspace).runs] == [run_id], "a run that is over is not read again"
