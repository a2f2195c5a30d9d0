"""`up --upload`: the machine has the packs while the upload still goes on, and whatever hinders it hinders nothing else."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.config import load
from orchestrator.datasets.packs import packing
from orchestrator.errors import Interruption
from orchestrator.progress import Silent
from orchestrator.providers.local_folder import MachineFolder
from orchestrator.workflows.data.up_upload import Stored, up_and_upload
from orchestrator.workflows.data.upload import UploadResult, upload
from orchestrator.workflows.workspace import Workspace
from remote.contract import layout
from remote.contract.layout import MachineHome
from remote.contract.run_spec import DatasetRef, StoreRef
from remote.job.fetch import fetch
from remote.store import open_store
from tests.documents import run_spec
from tests.e2e.command import Tlvm
from tests.fakes.gcs_server import GcsServer
from tests.orchestrator.pictures import fill
from tests.processes import living_with
from tests.remote.machine import eventually

BUGS = {"train/ants": 8, "train/bees": 8, "val/ants": 4, "val/bees": 4}
SMALL = 6000  # bytes of a pack: the images are four packs or more
PATIENT_S = 120.0

Sent = Callable[[str, Stored], None]


class Heard(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, label: str, text: str) -> None:
        self.lines.append(f"{label}: {text}")

    def warn(self, text: str) -> None:
        self.lines.append(f"warn: {text}")

    def about_packs(self) -> list[str]:
        return [line for line in self.lines if "packs" in line]


class Project:
    """A folder with images, and a machine of this computer that `up` makes."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.data = folder / "data"
        self.photos = fill(folder / "bugs", BUGS)
        self.heard = Heard()
        found = load(dict(settings), environ={"TLVM_DATA_DIR": str(self.data)}, folder=folder)
        self.workspace = Workspace(found, self.heard)
        self.name = found.machine_name

    @property
    def home(self) -> MachineHome:
        return MachineHome(MachineFolder(self.data / "machines" / self.name).home / ".tlvm")

    @property
    def ref(self) -> StoreRef:
        return self.workspace.settings.store_ref

    def packs_here(self) -> int:
        return len([*(self.home.root / "packs").glob("*.tar")])

    def up(self, sent: Sent, *, patience_s: float = PATIENT_S) -> UploadResult:
        """`sent` stands between the upload and who is told of its packs."""

        def send(own: Workspace, folder: Path, stored: Stored) -> list[UploadResult]:
            return upload(own, folder, stored=lambda pack: sent(pack, stored), pack_bytes=SMALL)

        _, (uploaded,) = up_and_upload(
            self.workspace, self.photos, send=send, patience_s=patience_s, ahead_s=PATIENT_S
        )
        return uploaded

    def fetched_by_a_run(self, uploaded: UploadResult) -> list[int]:
        """How many files a run of this version still fetches."""
        spec = run_spec(
            dataset=DatasetRef(uploaded.name, uploaded.version), store=self.ref, machine=self.name
        )
        self.home.run(spec.run_id).root.mkdir(parents=True)
        told: list[int] = []
        fetch(spec, self.home, open_store(self.ref), lambda done, total: told.append(total))
        return told


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path)
    yield made
    made.workspace.provider.delete(made.name)
    assert living_with(str(tmp_path)) == []


def test_the_machine_has_every_pack_before_the_upload_has_ended(tmp_path: Path) -> None:
    with GcsServer() as server:
        settings = {"store.url": server.create_bucket("bugs"), "store.endpoint": server.endpoint}
        project = Project(tmp_path, **settings)
        store = open_store(project.ref)
        there: list[str] = []

        def sent(pack: str, stored: Stored) -> None:
            """The upload goes no further before the machine has this pack."""
            stored(pack)
            eventually(project.home.pack(pack).exists, within_s=PATIENT_S)
            assert store.get(layout.head_key("bugs")) is None
            there.append(pack)

        try:
            uploaded = project.up(sent)
            assert len(there) == uploaded.packs_sent >= 4
            assert f"packs: {len(there)} packs fetched by {project.name} already" in project.heard.lines
            packs_bytes = sum(project.home.pack(pack).stat().st_size for pack in there)
            assert server.sent["objects.download"] == packs_bytes  # each of them once
            assert project.fetched_by_a_run(uploaded) == [0]
            manifest = store.get(layout.manifest_key("bugs", uploaded.version))
            assert manifest is not None
            assert server.sent["objects.download"] == packs_bytes + manifest.size
        finally:
            project.workspace.provider.delete(project.name)


def test_what_was_stored_before_comes_too(project: Project) -> None:
    (before,) = upload(project.workspace, project.photos, pack_bytes=SMALL)
    _, (again,) = up_and_upload(project.workspace, project.photos, ahead_s=PATIENT_S)
    assert again.unchanged
    assert again.packs_reused == before.packs_sent == project.packs_here() >= 4
    assert project.fetched_by_a_run(again) == [0]


def test_a_machine_that_is_killed_meanwhile_hinders_no_upload(project: Project) -> None:
    machine = MachineFolder(project.data / "machines" / project.name)

    def sent(pack: str, stored: Stored) -> None:
        stored(pack)
        eventually(project.home.pack(pack).exists, within_s=PATIENT_S)
        server = machine.server()
        assert server is not None
        os.kill(server.pid, signal.SIGKILL)

    uploaded = project.up(_once(sent))
    assert uploaded.packs_sent >= 4
    (line,) = project.heard.about_packs()
    assert line.startswith(
        f"warn: {project.name} did not fetch packs ahead, a run will: The SSH connection to "
    )


def test_what_the_machine_refuses_is_one_line(project: Project) -> None:
    def sent(pack: str, stored: Stored) -> None:
        stored("../../etc/passwd")
        stored(pack)

    uploaded = project.up(sent)
    assert uploaded.packs_sent >= 4
    (line,) = project.heard.about_packs()
    assert line.startswith(
        f"warn: {project.name} did not fetch packs ahead, a run will: '../../etc/passwd' is not a"
    )


def test_ctrl_c_waits_for_no_pack(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_UNSEEN_S", 0.0)  # what is on its way is shown
    gone_on = threading.Event()

    def sent(pack: str, stored: Stored) -> None:
        stored(pack)
        eventually(project.home.pack(pack).exists, within_s=PATIENT_S)
        os.kill(os.getpid(), signal.SIGINT)
        gone_on.wait(PATIENT_S)

    with pytest.raises(Interruption) as raised:
        project.up(_once(sent), patience_s=0)
    assert raised.value.what == f"The machine {project.name} is up; the upload is not finished"
    gone_on.set()
    eventually(lambda: not [one for one in threading.enumerate() if one.name in ("prefetch", "upload")])
    eventually(lambda: not living_with("remote prefetch"))


def _once(sent: Sent) -> Sent:
    """Does it for the first pack; the others go by unnoticed meanwhile."""
    begun = threading.Lock()

    def once(pack: str, stored: Stored) -> None:
        if begun.acquire(blocking=False):
            sent(pack, stored)
        else:
            stored(pack)

    return once


def test_on_the_command_line(tmp_path: Path) -> None:
    tlvm = Tlvm(tmp_path)
    photos = fill(tmp_path / "bugs", BUGS)
    try:
        said = tlvm("up", "--upload", photos)
        assert "fetched by" in said.stderr or "goes on fetching" in said.stderr
        eventually(lambda: len([*tmp_path.glob("data/machines/*/home/.tlvm/packs/*.tar")]) == 1)
    finally:
        tlvm("down")
