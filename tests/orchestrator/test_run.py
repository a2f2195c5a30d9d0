"""`run` and `logs` on a local machine over real SSH: followed, cut, detached, failed. Training is a stand-in."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from orchestrator import bundle
from orchestrator.config import load
from orchestrator.errors import ConfigError, ConnectionLost, NotFoundError, RunFailed
from orchestrator.progress import Silent
from orchestrator.providers.base import Machine
from orchestrator.ssh import Connection
from orchestrator.ssh.connection import Output
from orchestrator.workflows.data.upload import upload
from orchestrator.workflows.machines.up import Clock, ensure
from orchestrator.workflows.runs.documents import stored_run
from orchestrator.workflows.runs.following import follow
from orchestrator.workflows.runs.logs import logs
from orchestrator.workflows.runs.overview import runs
from orchestrator.workflows.runs.run import Detached, RunResult, run
from orchestrator.workflows.workspace import Workspace
from tests.remote.machine import eventually

STANDIN = Path(__file__).with_name("standin_train.py")
LINES = [f"line {number}" for number in range(300)]


class CutWorkspace(Workspace):
    """Real connections, of which each stream is cut after some bytes, `cuts` times."""

    cuts = 0

    def connect(self, machine: Machine, *, timeout_s: float = 10) -> Connection:
        connection = super().connect(machine, timeout_s=timeout_s)
        whole = connection.stream

        def stream(command: str, *, idle_timeout_s: float, speaks_within_s: float) -> Iterator[bytes]:
            for piece in whole(command, idle_timeout_s=idle_timeout_s, speaks_within_s=speaks_within_s):
                if self.cuts > 0:
                    self.cuts -= 1
                    yield piece[: len(piece) // 2]
                    raise ConnectionLost("cut by the test")
                yield piece

        vars(connection)["stream"] = stream
        return connection


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A machine with the stand-in in its bundle, and a dataset, for all tests of this file."""
    folder = tmp_path_factory.mktemp("project")
    for path in ("train/ants/1", "train/ants/2", "train/bees/1", "train/bees/2", "val/ants/3", "val/bees/3"):
        image = folder / "photos" / f"{path}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (len(path) * 9, sum(path.encode()) % 250, 90)).save(image)
    workspace = opened(folder)
    machine = ensure(workspace)
    upload(workspace, folder / "photos", name="insects")
    with workspace.connect(machine) as connection:
        about = bundle.ask(connection)
        made = bundle.build(
            about,
            provider="local",
            bucket=False,
            cache=workspace.settings.data_dir / "cache",
            progress=Silent(),
        )
        bundle.install(connection, made, about)
        home = Path(connection.check("echo $HOME").decode().strip())
    shutil.copy(STANDIN, home / ".tlvm" / "bundles" / made.hash / "remote" / "train.py")
    yield folder
    workspace.provider.delete(machine.name)


def opened(folder: Path, *, seed: int = 0, kind: type[Workspace] = Workspace) -> Workspace:
    flags = {"run.weights": "none", "run.seed": seed}
    return kind(load(flags, environ={"TLVM_DATA_DIR": str(folder / "data")}, folder=folder))


def go(folder: Path) -> Path:
    """The file that ends a training with seed 60."""
    return next((folder / "data").glob("machines/*/home/.tlvm")) / "go"


@pytest.fixture
def long_run(project: Path) -> Iterator[RunResult]:
    """One that is at work until `go`."""
    result = run(opened(project, seed=60), "fixed-extractor", detach=True)
    yield result
    go(project).touch()
    workspace = opened(project)

    def over() -> bool:
        stored = stored_run(workspace.store, result.run_id)
        return stored is not None and not stored.active

    eventually(over)
    go(project).unlink()


def test_a_run_is_followed_to_its_verified_result(project: Path) -> None:
    happened: list[dict[str, Any]] = []
    result = run(opened(project), "fixed-extractor", on_event=happened.append)
    assert (result.state, result.detached, result.metrics) == ("SUCCEEDED", False, {"accuracy": 0.5})
    assert result.folder == project / "runs" / result.run_id
    assert (result.folder / "log.txt").read_text().splitlines() == LINES
    assert [event["text"] for event in happened if event["type"] == "log"] == [
        f"event {number}" for number in range(300)
    ]
    states = [event["state"] for event in happened if event["type"] == "state"]
    assert states == ["QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]
    row = runs(opened(project)).runs[0]
    assert (row.run_id, row.state, row.pulled_to) == (result.run_id, "SUCCEEDED", str(result.folder))


def test_cuts_of_the_connection_lose_nothing_and_repeat_nothing(project: Path) -> None:
    workspace = opened(project, kind=CutWorkspace)
    assert isinstance(workspace, CutWorkspace)
    workspace.cuts = 3
    happened: list[dict[str, Any]] = []
    run(workspace, "fixed-extractor", on_event=happened.append)
    assert workspace.cuts == 0
    assert [event["text"] for event in happened if event["type"] == "log"] == [
        f"event {number}" for number in range(300)
    ]


def test_a_training_that_fails_raises_its_reason(project: Path) -> None:
    with pytest.raises(RunFailed) as raised:
        run(opened(project, seed=3), "fixed-extractor")
    assert raised.value.detail.startswith("Only one class: bees\n")
    assert "line 299" in raised.value.detail
    assert raised.value.detail.splitlines().count("Only one class: bees") == 1


def test_ctrl_c_detaches_and_the_run_goes_on(project: Path) -> None:
    def interrupt(event: dict[str, Any]) -> None:
        if event["type"] == "log":
            raise KeyboardInterrupt

    with pytest.raises(Detached) as raised:
        run(opened(project, seed=60), "fixed-extractor", on_event=interrupt)
    left = raised.value.run
    assert (left.state, left.detached) == ("RUNNING", True)
    name = left.run_id[-4:]
    assert left.next == raised.value.next
    assert left.next == f"tlvm attach {name} comes back to it; tlvm pull {name} fetches its result."
    workspace = opened(project)
    go(project).touch()
    assert list(logs(workspace, raised.value.run.run_id, follow=True)) == LINES
    stored = stored_run(workspace.store, raised.value.run.run_id)
    assert stored
    assert stored.state == "SUCCEEDED"
    go(project).unlink()


class InterruptedStart(Workspace):
    """Real connections, on which Ctrl-C comes with the command that starts the run: before it, or after."""

    after = False

    def connect(self, machine: Machine, *, timeout_s: float = 10) -> Connection:
        connection = super().connect(machine, timeout_s=timeout_s)
        whole = connection.run

        def run(command: str, *, input: bytes | None = None, timeout_s: float = 60) -> Output:
            if command.endswith("start -"):
                if self.after:
                    whole(command, input=input, timeout_s=timeout_s)
                raise KeyboardInterrupt
            return whole(command, input=input, timeout_s=timeout_s)

        vars(connection)["run"] = run
        return connection


def test_ctrl_c_before_a_run_has_started_takes_it_back(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.workflows.runs.launch._ACCEPTS_WITHIN_S", 0.5)
    workspace = opened(project, kind=InterruptedStart)
    before = (runs(workspace).runs, workspace.records.runs())
    with pytest.raises(KeyboardInterrupt) as raised:
        run(workspace, "fixed-extractor")
    assert not isinstance(raised.value, Detached)
    assert (runs(workspace).runs, workspace.records.runs()) == before


def test_ctrl_c_once_the_machine_has_the_run_detaches(project: Path) -> None:
    workspace = opened(project, kind=InterruptedStart)
    assert isinstance(workspace, InterruptedStart)
    workspace.after = True
    with pytest.raises(Detached) as raised:
        run(workspace, "fixed-extractor")
    assert list(logs(workspace, raised.value.run.run_id, follow=True)) == LINES
    stored = stored_run(workspace.store, raised.value.run.run_id)
    assert stored and stored.state == "SUCCEEDED"


def test_a_log_is_whole_while_the_run_goes_on(project: Path, long_run: RunResult) -> None:
    workspace = opened(project)
    eventually(lambda: list(logs(workspace, long_run.run_id)) == LINES)


def test_two_follow_one_run(project: Path, long_run: RunResult) -> None:
    seen: list[list[str]] = []
    followers = [
        threading.Thread(
            target=lambda: seen.append(list(logs(opened(project), long_run.run_id, follow=True)))
        )
        for _ in range(2)
    ]
    for follower in followers:
        follower.start()
    go(project).touch()
    for follower in followers:
        follower.join(30)
    assert seen == [LINES, LINES]


def test_a_machine_that_stays_away_ends_in_connection_lost(project: Path, long_run: RunResult) -> None:
    class Away(Workspace):
        def connect(self, machine: Machine, *, timeout_s: float = 10) -> Connection:
            raise ConnectionLost("nobody answers")

    workspace = opened(project, kind=Away)
    stored = stored_run(workspace.store, long_run.run_id)
    assert stored
    time_s = 0.0

    def sleep(seconds: float) -> None:
        nonlocal time_s
        time_s += seconds

    with pytest.raises(ConnectionLost, match="can't be reached") as raised:
        list(follow(workspace, stored.spec, "events", clock=Clock(lambda: time_s, sleep)))
    assert 120 < time_s < 140
    assert f"tlvm attach {long_run.run_id[-4:]} " in raised.value.next


def test_what_cannot_be_run_is_said_before_anything_is_done(project: Path) -> None:
    before = len(runs(opened(project)).runs)
    with pytest.raises(ConfigError, match="Did you mean 'fixed-extractor'"):
        run(opened(project), "fixed-extracter")
    with pytest.raises(ConfigError, match="Did you mean 'folds'"):
        run(opened(project), "fixed-extractor", parameters={"fold": 3})
    with pytest.raises(NotFoundError):
        list(logs(opened(project), "nope"))
    assert len(runs(opened(project)).runs) == before
