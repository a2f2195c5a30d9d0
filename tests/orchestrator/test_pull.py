"""Pulling a result: verified, again for nothing, resumed, never over the user's files, and nothing a manifest says leaves the folder."""

from __future__ import annotations

import base64
import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import google_crc32c
import pytest

from orchestrator.config import load
from orchestrator.errors import CloudError, ConfigError, ConflictError, NotFoundError
from orchestrator.progress import Bar, Silent
from orchestrator.workflows.results.pull import FILES_MAX, local_files, pull
from orchestrator.workflows.results.record import FILES
from orchestrator.workflows.runs.overview import runs
from orchestrator.workflows.workspace import Workspace
from remote.contract import document, layout
from remote.contract.document import ContractError
from remote.contract.run_spec import DatasetRef, StoreRef
from remote.contract.run_status import ResultFile, ResultManifest
from tests.documents import run_spec

RUN = "fixed-extractor-20260807-142530-k3qz"
RESULT = {
    "model/model.safetensors": b"weights" * 1000,
    "model/model.json": b"{}",
    "metrics.json": b'{"accuracy": 0.5}',
    "predictions.csv": b"",
    "log/0000000000000000": b"first\n",
    "log/0000000000000006": b"second\n",
    "events/0000000000000000": b"{}\n",
}
PULLED = {
    "model/model.safetensors": b"weights" * 1000,
    "model/model.json": b"{}",
    "metrics.json": b'{"accuracy": 0.5}',
    "predictions.csv": b"",
    "log.txt": b"first\nsecond\n",
    "events.jsonl": b"{}\n",
}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    project = tmp_path / "project"
    project.mkdir()
    return Workspace(load({}, environ={"TLVM_DATA_DIR": str(tmp_path / "data")}, folder=project))


def put(workspace: Workspace, key: str, data: bytes) -> None:
    path = workspace.settings.data_dir / "upload"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    workspace.store.upload(path, key)


def described(path: str, data: bytes, **changes: Any) -> ResultFile:
    checksum = google_crc32c.Checksum(data).digest()
    values: dict[str, Any] = {
        "path": path,
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "crc32c": base64.b64encode(checksum).decode(),
    }
    return ResultFile(**(values | changes))


def publish(workspace: Workspace, run_id: str = RUN, files: list[ResultFile] | None = None) -> None:
    """A run with its result in the store; `files` is what the manifest says instead of the truth."""
    spec = run_spec(
        run_id=run_id,
        dataset=DatasetRef("bees", "1" * 64),
        store=StoreRef(workspace.store.url),
        machine="tlvm-ana-bees",
    )
    put(workspace, layout.run_key(run_id, "spec.json"), document.encode(spec).encode())
    for path, data in RESULT.items():
        put(workspace, layout.run_key(run_id, path), data)
    truth = [described(path, data) for path, data in RESULT.items()]
    manifest = ResultManifest(
        run_id, "SUCCEEDED", "2026-08-07T14:30:00+00:00", truth if files is None else files
    )
    put(workspace, layout.run_key(run_id, "MANIFEST.json"), document.encode(manifest).encode())


def found(folder: Path) -> dict[str, bytes]:
    """All files but the two that this computer writes beside a result."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in FILES
    }


def test_a_result_is_pulled_whole_into_a_folder_of_its_own(workspace: Workspace) -> None:
    publish(workspace)
    result = pull(workspace, RUN)
    assert result.folder == workspace.project_folder / "runs" / RUN
    assert found(result.folder) == PULLED
    assert (result.files, result.fetched, result.state) == (6, 6, "SUCCEEDED")
    assert result.bytes == sum(map(len, PULLED.values()))


def test_a_run_that_another_computer_started_is_known_to_be_here(workspace: Workspace) -> None:
    publish(workspace)
    assert runs(workspace).runs[0].pulled_to is None
    folder = pull(workspace, RUN).folder
    assert runs(workspace).runs[0].pulled_to == str(folder)


def test_again_costs_nothing(workspace: Workspace) -> None:
    publish(workspace)
    folder = pull(workspace, RUN).folder
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert pull(workspace, "k3qz").fetched == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


class Swept:
    """Progress, at whose end another pull, which finds every file there, removes what lies beside them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.swept = False

    def say(self, label: str, text: str) -> None: ...

    def warn(self, text: str) -> None: ...

    @contextmanager
    def bar(self, label: str, total: int, unit: str) -> Iterator[Bar]:
        with Silent().bar(label, total, unit) as bar:
            yield bar
        for beside in self._folder.glob(".pull*"):
            shutil.rmtree(beside)
            self.swept = True


def test_another_that_tidies_up_at_the_same_moment_is_no_error(workspace: Workspace) -> None:
    publish(workspace)
    progress = Swept(workspace.project_folder / "runs" / RUN)
    assert pull(Workspace(workspace.settings, progress), RUN).fetched == len(PULLED)
    assert progress.swept


def test_what_is_missing_is_fetched_and_nothing_else(workspace: Workspace) -> None:
    publish(workspace)
    folder = pull(workspace, RUN).folder
    (folder / "metrics.json").unlink()
    (folder / "log.txt").unlink()
    assert pull(workspace, RUN).fetched == 2
    assert found(folder) == PULLED


def test_files_of_the_user_are_never_replaced(workspace: Workspace) -> None:
    publish(workspace)
    folder = workspace.project_folder / "runs" / RUN
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text("mine")
    (folder / "notes.txt").write_text("mine too")
    with pytest.raises(ConflictError, match=r"metrics\.json is not the run's"):
        pull(workspace, RUN)
    assert found(folder) == {"metrics.json": b"mine", "notes.txt": b"mine too"}
    (folder / "metrics.json").unlink()
    pull(workspace, RUN)
    assert found(folder) == {**PULLED, "notes.txt": b"mine too"}


@pytest.mark.parametrize("link", ["runs", f"runs/{RUN}", f"runs/{RUN}/model", f"runs/{RUN}/metrics.json"])
def test_links_that_lead_elsewhere_are_not_followed(workspace: Workspace, tmp_path: Path, link: str) -> None:
    publish(workspace)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    path = workspace.project_folder / link
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(elsewhere)
    with pytest.raises(ConflictError):
        pull(workspace, RUN)
    assert not list(elsewhere.iterdir())


def test_a_run_without_a_result_and_one_that_is_unknown(workspace: Workspace) -> None:
    publish(workspace)
    workspace.store.delete(layout.run_key(RUN, "MANIFEST.json"))
    with pytest.raises(NotFoundError, match="no result in the store yet"):
        pull(workspace, RUN)
    with pytest.raises(NotFoundError, match="There is no run"):
        pull(workspace, "zzzz")


def test_an_end_that_several_runs_have_is_refused_with_the_list(workspace: Workspace) -> None:
    publish(workspace)
    publish(workspace, "from-scratch-20260807-142530-k3qz")
    with pytest.raises(ConfigError, match="Several runs") as raised:
        pull(workspace, "k3qz")
    assert RUN in raised.value.detail


@pytest.mark.parametrize(
    "path",
    [
        "../outside",
        "/outside",
        "model/../../outside",
        "./metrics.json",
        "model//x",
        "a\\b",
        "a\nb",
        "a\x1b[31m",
        "",
        ".",
        ".hidden",
        "model/.envrc",
        ".git/hooks/post-checkout",
    ],
)
def test_no_path_of_a_manifest_leaves_the_folder_or_hides(
    workspace: Workspace, tmp_path: Path, path: str
) -> None:
    publish(workspace, files=[described(path, b"hostile")])
    before = found(tmp_path)
    with pytest.raises(CloudError, match="can't be trusted"):
        pull(workspace, RUN)
    assert found(tmp_path) == before


@pytest.mark.parametrize(
    "files",
    [
        [described("metrics.json", b"1"), described("metrics.json", b"1")],
        [described("metrics.json", b"1"), described("METRICS.json", b"2")],
        [described("model", b"1"), described("model/model.json", b"2")],
        [described("log.txt", b"1"), described("log/0000000000000000", b"1")],
        [described("log/0000000000000001", b"1")],
        [described("log/0000000000000000", b"12"), described("log/0000000000000001", b"1")],
        [described("metrics.json", b"1", size=-1)],
        [described("metrics.json", b"1", sha256="../../x")],
        [described(f"model/{number}", b"") for number in range(FILES_MAX + 1)],
    ],
    ids=["twice", "case", "folder", "stream", "gap", "overlap", "negative", "hash", "many"],
)
def test_manifests_that_no_run_writes_are_refused(files: list[ResultFile]) -> None:
    with pytest.raises(ContractError):
        local_files(ResultManifest(RUN, "SUCCEEDED", "", files), RUN)


def test_the_manifest_of_another_run_is_refused() -> None:
    with pytest.raises(ContractError, match="of the run"):
        local_files(ResultManifest("from-scratch-20260807-142530-aaaa", "SUCCEEDED", "", []), RUN)


@pytest.mark.parametrize(
    "lie",
    [{"size": 1}, {"size": 10**6}, {"sha256": "4" * 64}],
    ids=["smaller", "larger", "hash"],
)
def test_a_size_or_hash_that_lies_leaves_nothing(workspace: Workspace, lie: dict[str, Any]) -> None:
    publish(workspace, files=[described("metrics.json", RESULT["metrics.json"], **lie)])
    with pytest.raises(CloudError, match=r"runs/.*metrics\.json"):
        pull(workspace, RUN)
    assert found(workspace.project_folder) == {}


def test_a_result_larger_than_the_disk_is_refused_before_anything_is_fetched(workspace: Workspace) -> None:
    publish(workspace, files=[described("metrics.json", b"", size=2**62)])
    with pytest.raises(CloudError, match="can't be written") as raised:
        pull(workspace, RUN)
    assert "are free" in raised.value.detail
    assert found(workspace.project_folder) == {}


def test_a_file_that_is_gone_from_the_store_is_named_and_the_rest_stays(workspace: Workspace) -> None:
    publish(workspace)
    workspace.store.delete(layout.run_key(RUN, "metrics.json"))
    with pytest.raises(CloudError, match=r"metrics\.json is not in the store"):
        pull(workspace, RUN)
    put(workspace, layout.run_key(RUN, "metrics.json"), RESULT["metrics.json"])
    pull(workspace, RUN)
    assert found(workspace.project_folder / "runs" / RUN) == PULLED


def test_a_file_where_the_folder_belongs_is_left_alone(workspace: Workspace) -> None:
    publish(workspace)
    (workspace.project_folder / "runs").write_text("a list of mine")
    with pytest.raises(ConflictError, match="is not the run's"):
        pull(workspace, RUN)
    assert found(workspace.project_folder) == {"runs": b"a list of mine"}
