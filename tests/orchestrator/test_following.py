"""A peer that freezes is noticed by our own clock; then the provider is asked, and what it says is told."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.app import main
from orchestrator.errors import ConfigError
from orchestrator.progress import Silent
from orchestrator.providers.local_folder import MachineFolder
from orchestrator.workflows.runs import following, watch
from orchestrator.workflows.runs.attach import attach
from orchestrator.workflows.runs.documents import stored_run
from orchestrator.workflows.runs.following import MachineLost, follow
from orchestrator.workflows.runs.logs import logs
from orchestrator.workflows.runs.run import RunResult
from orchestrator.workflows.runs.stored_streams import stored_bytes
from orchestrator.workflows.workspace import Workspace
from remote.contract import document, layout
from remote.contract.run_status import RunStatus, State
from tests.orchestrator import finished_runs
from tests.orchestrator.test_run import go, long_run, opened, project
from tests.processes import living

__all__ = ["long_run", "project"]  # the machine of the runs' tests

EVENTS = [f"event {number}" for number in range(300)]


class Warned(Silent):
    """Acts on the first warning."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.said: list[str] = []
        self._act = act

    def warn(self, text: str) -> None:
        if not self.said:
            self._act()
        self.said.append(text)


def frozen(workspace: Workspace, project: Path, pids: Callable[[], list[int]]) -> tuple[Warned, list[str]]:
    """Follow the only run; stop those processes after its last word, and let them go on once that was noticed."""
    stopped: list[int] = []

    def thaw() -> None:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        go(project).touch()

    def freeze(event: dict[str, Any]) -> None:
        if event.get("text"):
            seen.append(event["text"])
        if event.get("text") == EVENTS[-1]:
            stopped.extend(pids())
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)

    seen: list[str] = []
    warned = Warned(thaw)
    workspace.progress = warned
    timer = threading.Timer(60, thaw)  # for a failing test
    timer.start()
    attach(workspace, on_event=freeze)
    timer.cancel()
    return warned, seen


def test_a_machine_that_freezes_is_noticed_and_said(
    project: Path, long_run: RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "SILENCE_S", 1.0)
    workspace = opened(project)
    folder = MachineFolder(project / "data" / "machines" / long_run.machine)

    def server() -> list[int]:
        found = folder.server()
        assert found
        return [found.pid]

    warned, seen = frozen(workspace, project, server)
    assert seen == EVENTS, "a line came twice, or never"
    assert warned.said[0].startswith(f"No word from {long_run.machine}")
    assert "local says that it is running" in warned.said[0] and "connecting again" in warned.said[0]


def test_a_follower_that_freezes_on_a_machine_that_answers_is_begun_anew(
    project: Path, long_run: RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "FROZEN_S", 2.5)

    def follower() -> list[int]:
        return [pid for pid, words in living().items() if f"remote follow {long_run.run_id}" in words]

    warned, seen = frozen(opened(project), project, follower)
    assert seen == EVENTS, "a line came twice, or never"
    assert "No word from" in warned.said[0]


def test_a_supervisor_that_freezes_on_a_machine_that_answers_is_said(
    project: Path, long_run: RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LOOK_S", 1.0)
    told = go(project).parent / "runs" / long_run.run_id / "supervisor.json"
    warned, seen = frozen(opened(project), project, lambda: [json.loads(told.read_bytes())["pid"]])
    assert seen == EVENTS
    assert warned.said[0].startswith(f"Nothing moves: the supervisor of {long_run.run_id}")


def test_a_machine_that_is_deleted_is_said_to_be_gone(
    project: Path, long_run: RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = opened(project)
    stored = stored_run(workspace.store, long_run.run_id)
    assert stored
    monkeypatch.setattr(workspace.provider, "get", lambda name: None)
    with pytest.raises(MachineLost, match="is gone") as raised:
        list(follow(workspace, stored.spec, "events"))
    assert raised.value.how == "gone"
    assert f"tlvm attach --recover {long_run.run_id[-4:]}" in raised.value.next


# From a time on


def marked(workspace: Workspace, times: list[tuple[int, int]]) -> str:
    """A finished run whose events say at which second its log was how long; its id."""
    dataset = finished_runs.put_dataset(workspace, [finished_runs.image("1", "oak")])
    run_id = finished_runs.put_run(
        workspace, "k3qz", dataset, [finished_runs.image("1", "oak")], [[0.5, 0.5]], looked=False
    )
    marks = "".join(f'{{"t": {second}, "type": "logged", "bytes": {length}}}\n' for second, length in times)
    finished_runs.put(workspace, layout.segment_key(run_id, "events", 0), marks.encode())
    finished_runs.put(workspace, layout.segment_key(run_id, "log", 0), b"a\nb\nc\n")
    return run_id


def test_since_shows_what_came_after(tmp_path: Path) -> None:
    workspace = finished_runs.opened(tmp_path)
    run_id = marked(workspace, [(1000, 2), (2000, 4), (3000, 6)])
    assert list(logs(workspace, run_id)) == ["a", "b", "c"]
    assert list(logs(workspace, run_id, since="1970-01-01T00:16:00+00:00")) == ["a", "b", "c"]
    assert list(logs(workspace, run_id, since="1970-01-01T00:20:00+00:00")) == ["b", "c"]
    assert list(logs(workspace, run_id, since="1970-01-01T00:40:00Z")) == ["c"]
    assert list(logs(workspace, run_id, since="10m")) == []
    with pytest.raises(ConfigError, match="--since 'yesterday' is no time"):
        logs(workspace, run_id, since="yesterday")


@pytest.mark.parametrize("state", ["FAILED", "SUCCEEDED"])
def test_the_log_of_a_run_without_a_result_ends_with_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], state: State
) -> None:
    workspace = finished_runs.opened(tmp_path)
    run_id = marked(workspace, [])
    why = "Stopped after its max_hours of 2, before there was a result: tlvm run --spec k3qz --max-hours 3"
    status = document.encode(RunStatus(run_id, state, "now", message=why)).encode()
    finished_runs.put(workspace, layout.run_key(run_id, "status.json"), status)
    monkeypatch.setenv("TLVM_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["logs", "k3qz"])
    assert not ended.value.code
    assert capsys.readouterr() == ("a\nb\nc\n", f"state   failed: {why}\n" if state == "FAILED" else "")


def test_a_stream_in_segments_is_read_from_any_byte(tmp_path: Path) -> None:
    workspace = finished_runs.opened(tmp_path)
    run_id = marked(workspace, [])
    finished_runs.put(workspace, layout.segment_key(run_id, "log", 6), b"d\ne\n")
    for start in range(11):
        position = following.Position(start)
        assert b"".join(stored_bytes(workspace.store, run_id, "log", position)) == b"a\nb\nc\nd\ne\n"[start:]
        assert position.bytes == 10
