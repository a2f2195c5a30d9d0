"""A result is somebody else's word: whatever a manifest, a file or a name says, it stays in its folder and off the screen.

And what a laptop does to a pull: cut in the middle, twice at once, a full disk, a file in the way, many at once.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.config import load
from orchestrator.errors import CloudError, TlvmError
from orchestrator.render.text import clean
from orchestrator.workflows.results.pull import local_files, pull, pull_all
from orchestrator.workflows.results.record import FILES
from orchestrator.workflows.workspace import Workspace
from remote.contract import document, layout
from remote.contract.document import ContractError
from remote.contract.run_status import ResultFile, ResultManifest, RunStatus
from tests.fakes.gcs_server import GcsServer
from tests.orchestrator.finished_runs import image, opened, put, put_dataset, put_run
from tests.orchestrator.test_pull import PULLED, RESULT, RUN, described, found, publish, workspace

__all__ = ["workspace"]

_NASTY = st.sampled_from(
    ["..", ".", "", "~", "model", "metrics.json", "METRICS.JSON", "log.txt", "log", "\x1b[2J", "\u202e", "\ud800",
     "\x9b1m", "con", "a" * 300, "é", "e\u0301", "\x00", "/", "\\", " ", "run.json", "-rf", "[bold]", "${HOME}"]
)  # fmt: skip
_PATHS = st.lists(st.one_of(_NASTY, st.text(max_size=12)), max_size=10).map("/".join)
_SIZES = st.one_of(st.integers(-(2**70), 2**70), st.just(0))
_HASHES = st.one_of(st.text(max_size=70), st.just("0" * 64))
_FILE = st.builds(ResultFile, path=_PATHS, size=_SIZES, sha256=_HASHES, crc32c=st.text(max_size=9))
_JSON: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=12,
)  # fmt: skip


@given(st.lists(_FILE, max_size=6))
@settings(max_examples=300, deadline=None)
def test_what_is_taken_of_a_manifest_stays_below_its_folder_and_off_the_screen(
    files: list[ResultFile],
) -> None:
    try:
        taken = local_files(ResultManifest(RUN, "SUCCEEDED", "", files), RUN)
    except ContractError as error:
        assert "\x1b" not in clean(str(error))
        return
    below = Path("/somewhere/runs/x")
    for file in taken:
        path = below / file.path
        assert path.relative_to(below).parts and ".." not in path.parts
        assert file.path.isprintable() and clean(file.path) == file.path
        assert not any(part.startswith(".") for part in file.path.split("/"))
    assert len({file.path.casefold() for file in taken}) == len(taken)


@given(
    st.one_of(_JSON.map(json.dumps), st.text(max_size=40)), st.sampled_from(["MANIFEST.json", "status.json"])
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_documents_that_are_anything_end_in_an_error_or_a_whole_result(
    workspace: Workspace, text: str, name: str
) -> None:
    publish(workspace)
    put(workspace, layout.run_key(RUN, name), text.encode("utf-8", "surrogatepass"))
    try:
        result = pull(workspace, RUN)
    except TlvmError as error:
        assert "can't be trusted" in error.what or "no result" in error.what, error
    else:
        assert found(result.folder) == PULLED


@pytest.mark.parametrize("path", ["\ud800", "a" * 300, "\u202emetrics.json", "/".join("abcdefghi")])
def test_names_that_a_file_system_or_a_terminal_trips_over_are_refused(
    workspace: Workspace, path: str
) -> None:
    with pytest.raises(ContractError, match=r"no file of a result"):
        local_files(ResultManifest(RUN, "SUCCEEDED", "", [described(path, b"")]), RUN)


def test_two_spellings_of_one_accent_are_one_file() -> None:
    files = [described("model/\u00e9", b"1"), described("model/e\u0301", b"2")]
    with pytest.raises(ContractError, match="take for one"):
        local_files(ResultManifest(RUN, "SUCCEEDED", "", files), RUN)


def test_what_a_run_says_of_itself_reaches_no_terminal(workspace: Workspace) -> None:
    """Neither escapes nor markup nor links: in run.json they are escaped, in README.md they are gone."""
    publish(workspace)
    hostile = "\x1b]0;owned\x07 [bold]x[/] | <script> ](http://evil) `\u202e"
    status = RunStatus(
        RUN, "SUCCEEDED", "2026-08-07T14:30:00+00:00", started=hostile, message=hostile, published=True
    )
    put(workspace, layout.run_key(RUN, "status.json"), document.encode(status).encode())
    folder = pull(workspace, RUN).folder
    for name in FILES:
        text = (folder / name).read_text()
        assert text.isascii() and not any(ord(letter) < 32 and letter != "\n" for letter in text)
    assert "<script>" not in (folder / "README.md").read_text()


def test_what_stands_beside_a_result_is_the_same_on_every_computer_and_never_written_over(
    workspace: Workspace,
) -> None:
    publish(workspace)
    folder = pull(workspace, RUN).folder
    first = [(folder / name).read_text() for name in FILES]
    for name in FILES:
        (folder / name).unlink()
    pull(workspace, RUN)
    assert [(folder / name).read_text() for name in FILES] == first
    (folder / "run.json").unlink()
    (folder / "README.md").write_text("mine")
    pull(workspace, RUN)
    assert (folder / "README.md").read_text() == "mine"
    assert json.loads((folder / "run.json").read_text())["run_id"] == RUN


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """This process may write no larger file: what a full disk, or a quota, does to it."""
    before, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_disk_that_takes_no_more_is_a_clean_error_that_says_how_to_go_on(workspace: Workspace) -> None:
    publish(workspace)
    with files_of_at_most(len(RESULT["model/model.safetensors"]) // 2), pytest.raises(CloudError) as raised:
        pull(workspace, RUN)
    assert f"tlvm pull {RUN[-4:]} goes on" in raised.value.next
    folder = workspace.project_folder / "runs" / RUN
    assert not (folder / "model" / "model.safetensors").exists()
    assert all(
        PULLED[path] == content for path, content in found(folder).items() if not path.startswith(".pull/")
    )
    pull(workspace, RUN)
    assert found(folder) == PULLED


_KILLED = """
import os, sys
from pathlib import Path
from orchestrator.config import load
from orchestrator.workflows.results.pull import pull
from orchestrator.workflows.workspace import Workspace
pull(Workspace(load({}, environ=dict(os.environ), folder=Path(sys.argv[1]))), sys.argv[2])
"""


def test_a_pull_that_was_killed_goes_on_at_its_byte(tmp_path: Path) -> None:
    """The bucket falls silent in the middle of the model, the process is killed: the next one asks for the rest."""
    model = bytes(range(256)) * 40_000
    with GcsServer() as server:
        variables = {
            "TLVM_DATA_DIR": str(tmp_path / "data"),
            "TLVM_STORE_URL": server.create_bucket("trees"),
            "TLVM_STORE_ENDPOINT": server.endpoint,
        }
        here = Workspace(load({}, environ=variables, folder=tmp_path))
        files = {**RESULT, "model/model.safetensors": model}
        publish(here, files=[described(path, data) for path, data in files.items()])
        put(here, layout.run_key(RUN, "model/model.safetensors"), model)
        server.fail("stall halfway", on="objects.download", path="*model.safetensors*")
        environment = {name: text for name, text in os.environ.items() if not name.startswith("TLVM_")}
        pulling = subprocess.Popen(
            [sys.executable, "-c", _KILLED, str(tmp_path), RUN], env=environment | variables
        )
        beside = tmp_path / "runs" / RUN / ".pull"
        while not begun(beside) > 100_000:
            assert pulling.poll() is None
            time.sleep(0.01)
        pulling.kill()
        pulling.wait()
        came = begun(beside)
        before = server.sent["objects.download"]
        result = pull(here, RUN)
        assert (result.folder / "model" / "model.safetensors").read_bytes() == model
        assert server.sent["objects.download"] - before < len(model) - came + 100_000
        assert not beside.exists()


def begun(beside: Path) -> int:
    """Bytes of the largest file that is on its way."""
    sizes = [0]
    for path in beside.glob("*.part"):
        with suppress(FileNotFoundError):  # it has arrived
            sizes.append(path.stat().st_size)
    return max(sizes)


def test_two_pulls_at_once_do_not_disturb_each_other(workspace: Workspace) -> None:
    publish(workspace)
    results: list[int] = []
    pulls = [threading.Thread(target=lambda: results.append(pull(workspace, RUN).fetched)) for _ in range(3)]
    for one in pulls:
        one.start()
    for one in pulls:
        one.join(30)
    assert sorted(results) == [0, 0, 6]
    assert found(workspace.project_folder / "runs" / RUN) == PULLED


def test_all_that_are_finished_and_not_here_are_pulled_and_one_that_fails_stops_no_other(
    tmp_path: Path,
) -> None:
    here = opened(tmp_path)
    images = [image("1.png", "birch"), image("2.png", "oak")]
    dataset = put_dataset(here, images)
    *runs, _of_another_project = [
        put_run(here, tail, dataset, images, [[0.9, 0.1], [0.2, 0.8]])
        for tail in ("aaaa", "bbbb", "cccc", "dddd")
    ]
    mine = [adopted(here, run_id) for run_id in runs]
    here.store.delete(layout.run_key(mine[1], "metrics.json"))
    first = pull_all(here)
    assert [one.run_id for one in first.pulled] == [mine[2], mine[0]]
    assert "metrics.json is not in the store" in first.failed[mine[1]] and first.exit_code == 3
    again = pull_all(here)
    assert (again.pulled, [*again.failed]) == ([], [mine[1]])


def adopted(workspace: Workspace, run_id: str) -> str:
    """The run as one of this project."""
    key, path = layout.run_key(run_id, "spec.json"), workspace.settings.data_dir / "spec.json"
    workspace.store.download(key, path)
    spec = json.loads(path.read_text()) | {"project": workspace.settings.project}
    put(workspace, key, json.dumps(spec).encode())
    return run_id
