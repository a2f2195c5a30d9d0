"""A machine of one test: a home, a folder as the store with a dataset in it, and real supervisors as processes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from remote.contract import document, layout
from remote.contract.dataset_manifest import DatasetManifest, encode
from remote.contract.layout import MachineHome, RunFolder
from remote.contract.run_spec import DatasetRef, RunSpec, StoreRef, new_run_id
from remote.contract.run_status import ResultManifest, RunStatus
from remote.contract.start_request import StartRequest
from remote.job import line
from tests.documents import image, run_spec

ROOT = Path(__file__).resolve().parents[2]
STANDIN = Path(__file__).with_name("standin_training.py")
SUPERVISE = """
import sys
from pathlib import Path
from remote.contract.layout import MachineHome
from remote.job.supervisor import supervise
from remote.job.training_process import Limits
lock = int(sys.argv[3]) if len(sys.argv) > 2 else None
ticket = sys.argv[5] if len(sys.argv) > 4 else None
limits = Limits(hang_s={hang_s}, grace_s={grace_s}, publish_s={publish_s}, poll_s=0.02,
    unmeasured_s={unmeasured_s}, margin_s={margin_s}, tell_s={tell_s}, room_s={room_s}, room_bytes={room_bytes})
command = [*{before!r}, sys.executable, {standin!r}]
sys.exit(supervise(Path(sys.argv[1]), MachineHome.of_this_user(), command=command, limits=limits, lock=lock,
    ticket=ticket))
"""


@dataclass
class TestMachine:
    __test__ = False
    folder: Path
    name: str = "home"  # two machines of one store have two
    hang_s: float = 60
    grace_s: float = 5
    publish_s: float = 5
    unmeasured_s: float = 30
    margin_s: float = 30
    tell_s: float = 30
    room_s: float = 60
    room_bytes: int = 64_000_000
    before: tuple[str, ...] = ()  # words that begin the command of the training
    first_paths: list[str] = field(default_factory=list)  # of PYTHONPATH
    variables: dict[str, str] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.home = MachineHome(self.folder / self.name / ".tlvm")
        self.store = self.folder / "store"
        self.store.mkdir(exist_ok=True)
        self.home.root.mkdir(parents=True, exist_ok=True)
        self.pack = b"a pack of images" * 100
        self.dataset = self._publish_dataset()

    @property
    def environment(self) -> dict[str, str]:
        path = os.pathsep.join([*self.first_paths, str(ROOT)])
        return {**os.environ, **self.variables, "HOME": str(self.home.root.parent), "PYTHONPATH": path}

    def spec(self, behaviour: str, *, scenario: str = "fixed-extractor", **changes: Any) -> RunSpec:
        values: dict[str, Any] = {
            "run_id": new_run_id(scenario, datetime.now(UTC)),
            "scenario": scenario,
            "dataset": self.dataset,
            "store": StoreRef(str(self.store)),
            "parameters": {"behaviour": behaviour},
            "machine": "tlvm-test",
        }
        return run_spec(**(values | changes))

    def write(self, spec: RunSpec) -> Path:
        path = self.folder / f"{spec.run_id}.json"
        document.write(path, spec)
        return path

    def supervisor(self) -> list[str]:
        """A command that supervises with the stand-in as training, followed by the path of the spec."""
        script = SUPERVISE.format(
            hang_s=self.hang_s,
            grace_s=self.grace_s,
            publish_s=self.publish_s,
            unmeasured_s=self.unmeasured_s,
            margin_s=self.margin_s,
            tell_s=self.tell_s,
            room_s=self.room_s,
            room_bytes=self.room_bytes,
            before=self.before,
            standin=str(STANDIN),
        )
        return [sys.executable, "-c", script]

    def begin(self, spec: RunSpec, *, within: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """within      a command that is followed by the supervisor's"""
        command = [*within, *self.supervisor(), str(self.write(spec))]
        process = subprocess.Popen(command, env=self.environment, stdin=subprocess.DEVNULL)
        self.processes.append(process)
        return process

    def start(self, spec: RunSpec, **more: Any) -> int:
        """As a laptop asks for it; the exit code. `more` is of a StartRequest."""
        code = (
            f"import sys; from remote.job import launch; from remote.contract.layout import MachineHome\n"
            f"home = MachineHome.of_this_user()\n"
            f"launch.start(launch.accept(sys.stdin.buffer.read(), home), home, command={self.supervisor()!r})"
        )
        request = document.encode(StartRequest(spec, **more)).encode()
        return subprocess.run(
            [sys.executable, "-c", code], env=self.environment, input=request, timeout=60
        ).returncode

    def is_at_rest(self, spec: RunSpec) -> bool:
        return not line.is_held(line.run_lock(self.home.locks, spec.run_id))

    def carry_out(self, spec: RunSpec) -> int:
        return self.begin(spec).wait(60)

    def remote(self, *arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "remote", *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, timeout=timeout_s)

    def run_folder(self, spec: RunSpec) -> RunFolder:
        return self.home.run(spec.run_id)

    def status(self, spec: RunSpec) -> RunStatus:
        return document.decode(RunStatus, self.run_folder(spec).status.read_bytes(), what="status")

    def stored(self, spec: RunSpec, file: str) -> bytes:
        return (self.store / layout.run_key(spec.run_id, file)).read_bytes()

    def stored_status(self, spec: RunSpec) -> RunStatus:
        return document.decode(RunStatus, self.stored(spec, "status.json"), what="status")

    def manifest(self, spec: RunSpec) -> ResultManifest:
        return document.decode(ResultManifest, self.stored(spec, "MANIFEST.json"), what="manifest")

    def stored_stream(self, spec: RunSpec, stream: str) -> bytes:
        folder = self.store / layout.run_key(spec.run_id, stream)
        return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))

    def log_says(self, spec: RunSpec, text: str) -> Callable[[], bool]:
        log = self.run_folder(spec).log
        return lambda: log.exists() and text in log.read_text()

    def end(self) -> None:
        for folder in self.home.runs.glob("*"):
            (folder / "cancel").touch()
            lock = line.run_lock(self.home.locks, folder.name)
            eventually(partial(_is_free, lock))
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
                process.wait(20)

    def _publish_dataset(self) -> DatasetRef:
        digest = hashlib.sha256(self.pack).hexdigest()
        bee = image("train/bees/1.jpg", sha256="1" * 64, pack=digest)
        data, version = encode(
            DatasetManifest("bees", ["ants", "bees"], "folders", "horizontal", None, [bee])
        )
        for key, content in (
            (layout.pack_key(digest), self.pack),
            (layout.manifest_key("bees", version), data),
        ):
            path = self.store / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return DatasetRef("bees", version)


def _is_free(lock: Path) -> bool:
    return not line.is_held(lock)


def eventually(happened: Callable[[], bool], *, within_s: float = 120) -> None:
    deadline = time.monotonic() + within_s
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def events_of(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in io.BytesIO(data)]
