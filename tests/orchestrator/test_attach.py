"""`attach`, `cancel` and `authorize` on a local machine over real SSH: from this computer and from another one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import ConfigError, NotFoundError, RunFailed
from orchestrator.ssh import new_key
from orchestrator.workflows.clock import Clock
from orchestrator.workflows.machines.authorize import authorize
from orchestrator.workflows.runs.attach import attach
from orchestrator.workflows.runs.cancel import cancel
from orchestrator.workflows.runs.documents import stored_run
from orchestrator.workflows.runs.launch import Detached
from orchestrator.workflows.runs.logs import logs
from orchestrator.workflows.runs.run import RunResult, run
from orchestrator.workflows.workspace import Workspace
from tests.orchestrator.test_run import LINES, go, long_run, opened, project
from tests.remote.machine import eventually

__all__ = ["long_run", "project"]  # the machine of the runs' tests


def quick() -> Clock:
    """Whose pauses are short."""
    import time

    return Clock(sleep=lambda seconds: time.sleep(seconds / 50))


@pytest.fixture
def elsewhere(project: Path, tmp_path: Path) -> Workspace:
    """Another computer of the same owner: it sees machine and store, and has no record and no key."""
    here = opened(project)
    settings = here.settings.model_copy(
        update={
            "folder": tmp_path,
            "data_dir": tmp_path / "data",
            "store": here.settings.store.model_copy(update={"url": here.store.url}),
        }
    )
    found = Workspace(settings)
    found.provider = here.provider
    return found


def texts(happened: list[dict[str, Any]]) -> list[str]:
    return [event["text"] for event in happened if event["type"] == "log"]


EVENTS = [f"event {number}" for number in range(300)]


def test_attach_follows_from_the_first_word_to_the_verified_result(
    project: Path, long_run: RunResult
) -> None:
    happened: list[dict[str, Any]] = []

    def seen(event: dict[str, Any]) -> None:
        happened.append(event)
        if event.get("text") == "event 299":
            go(project).touch()

    result = attach(opened(project), on_event=seen)
    assert (result.run_id, result.state, result.detached) == (long_run.run_id, "SUCCEEDED", False)
    assert texts(happened) == EVENTS
    assert result.metrics == {"accuracy": 0.5}
    assert result.folder and (result.folder / "log.txt").read_text().splitlines() == LINES
    (only,) = result.attempts
    assert (only.number, only.provider, only.cost) == (1, "local", 0)


def test_a_run_that_has_ended_is_brought_here(project: Path) -> None:
    done = run(opened(project), "fixed-extractor")
    assert done.folder
    shutil.rmtree(done.folder)
    happened: list[dict[str, Any]] = []
    result = attach(opened(project), done.run_id[-4:], on_event=happened.append)
    assert (result.run_id, result.folder, result.metrics) == (done.run_id, done.folder, done.metrics)
    assert (done.folder / "model" / "model.safetensors").read_bytes() == b"weights" and happened == []
    with pytest.raises(RunFailed):  # the newest, but it has no result
        run(opened(project, seed=3), "fixed-extractor")
    with pytest.raises(NotFoundError, match="No run is at work") as raised:
        attach(opened(project))
    assert f"tlvm attach {done.run_id[-4:]}" in raised.value.next


def test_a_run_that_failed_says_the_same_again(project: Path) -> None:
    with pytest.raises(RunFailed) as first:
        run(opened(project, seed=3), "fixed-extractor")
    run_id = first.value.what.split()[2]
    with pytest.raises(RunFailed) as again:
        attach(opened(project), run_id)
    assert (again.value.what, again.value.detail) == (first.value.what, first.value.detail)


def test_ctrl_c_detaches_from_attach_too(project: Path, long_run: RunResult) -> None:
    def interrupt(event: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Detached) as raised:
        attach(opened(project), long_run.run_id, on_event=interrupt)
    assert raised.value.run.next.startswith(f"tlvm attach {long_run.run_id[-4:]} comes back to it")


def test_a_machine_that_was_stopped_is_started_and_the_run_goes_on(project: Path) -> None:
    workspace = opened(project, seed=60)
    begun = run(workspace, "fixed-extractor", detach=True)
    (machine,) = workspace.machines()
    eventually(lambda: list(logs(workspace, begun.run_id)) == LINES)
    workspace.provider.stop(machine.name)
    go(project).touch()
    try:
        result = attach(opened(project), begun.run_id)
    finally:
        go(project).unlink()
    assert result.state == "SUCCEEDED"
    assert [line.number for line in result.attempts] == [1, *[line.number for line in result.attempts[1:]]]
    assert len(result.attempts) == 2


# From another computer


def test_without_a_key_the_run_is_followed_through_the_store(
    project: Path, long_run: RunResult, elsewhere: Workspace
) -> None:
    happened: list[dict[str, Any]] = []

    def seen(event: dict[str, Any]) -> None:
        happened.append(event)
        go(project).touch()

    result = attach(elsewhere, long_run.run_id, on_event=seen, clock=quick())
    assert texts(happened) == EVENTS
    assert (result.state, result.folder) == ("SUCCEEDED", elsewhere.project_folder / "runs" / result.run_id)
    assert elsewhere.records.machines() == []


def test_authorize_lets_another_computer_in(project: Path, long_run: RunResult, elsewhere: Workspace) -> None:
    result = authorize(elsewhere)
    assert result.this_computer and result.public_key.startswith("ssh-ed25519 ")
    assert authorize(elsewhere).public_key == result.public_key
    with elsewhere.connect(elsewhere.machine()) as connection:
        assert connection.check("echo in") == b"in\n"
    eventually(lambda: list(logs(elsewhere, long_run.run_id)) == LINES)


def test_a_key_of_another_computer_is_added(project: Path, tmp_path: Path, elsewhere: Workspace) -> None:
    here = opened(project)
    with pytest.raises(ConfigError, match="no public key"):
        authorize(here, "ssh-rsa AAAA")
    (machine,) = here.machines()
    key = elsewhere.records.key_file(machine.provider, machine.name)
    public = new_key(key)
    assert not authorize(here, f"{public} bob@laptop").this_computer
    with elsewhere.connect(machine) as connection:
        assert connection.check("echo in") == b"in\n"


# Cancel


def test_cancel_ends_what_is_at_work_and_what_waits(project: Path, long_run: RunResult) -> None:
    waiting = run(opened(project), "fixed-extractor", detach=True)
    first = cancel(opened(project), waiting.run_id)
    assert (first.state, first.was_over, first.asked_machine) == ("CANCELLED", False, True)
    second = cancel(opened(project), long_run.run_id[-4:])
    assert (second.state, second.was_over) == ("CANCELLED", False)
    again = cancel(opened(project), long_run.run_id)
    assert (again.state, again.was_over) == ("CANCELLED", True)
    with pytest.raises(RunFailed, match="was cancelled") as raised:
        attach(opened(project), long_run.run_id)
    assert "cancelled" not in raised.value.detail.splitlines()  # said once


def test_a_computer_without_a_key_cancels_too(
    project: Path, long_run: RunResult, elsewhere: Workspace
) -> None:
    assert cancel(elsewhere, long_run.run_id).state == "CANCELLED"
    stored = stored_run(elsewhere.store, long_run.run_id)
    assert stored and stored.state == "CANCELLED"


def test_what_has_ended_is_not_cancelled(project: Path) -> None:
    done = run(opened(project), "fixed-extractor")
    result = cancel(opened(project), done.run_id)
    assert (result.state, result.was_over) == ("SUCCEEDED", True)


def test_since_wants_a_time(project: Path) -> None:
    done = run(opened(project), "fixed-extractor")
    assert list(logs(opened(project), done.run_id, since="1h")) == LINES
    with pytest.raises(ConfigError, match="--since 'yesterday' is no time"):
        logs(opened(project), done.run_id, since="yesterday")
