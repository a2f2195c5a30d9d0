"""The guard on a rented machine: what counts as idle, with time, terminals and runs under the test's control."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from orchestrator.providers.base import Machine
from orchestrator.resources import folder
from orchestrator.stores import open_store
from remote.contract import layout
from remote.contract.run_spec import StoreRef
from remote.job import line
from tests.conformance.providers import eventually
from tests.fakes.compute_cloud import Clock
from tests.fakes.compute_server import ComputeServer
from tests.fakes.gcs_server import GcsServer
from tests.fakes.metadata_server import MetadataServer
from tests.orchestrator.gce_cloud import OFFER, gce, wanted

RUN = "fixed-extractor-20260807-142530-k3qz"


@pytest.fixture(scope="module")
def module() -> ModuleType:
    """The file as it travels: it is no part of a package."""
    spec = importlib.util.spec_from_file_location("tlvm_guard", folder("infra") / "gce" / "guard.py")
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules["tlvm_guard"] = found  # dataclasses look their module up
    spec.loader.exec_module(found)
    return found


class Watched:
    """A machine of the fake Compute Engine, and its guard."""

    def __init__(self, module: ModuleType, server: ComputeServer, tmp_path: Path, **more: object) -> None:
        self.server = server
        self.provider = gce(server)
        self.made: Machine = self.provider.create(wanted(**more), OFFER)
        self.home = tmp_path / "home" / ".tlvm"
        self.terminals = tmp_path / "pts"
        self.terminals.mkdir()
        self.metadata = MetadataServer(server.cloud, server.instances, self.made.id)
        self.metadata.start()
        self.ended: list[str] = []
        self.said: list[str] = []
        self.guard = module.Guard(
            module.Home(self.home),
            module.Metadata(self.metadata.host),
            self.ended.append,
            now=lambda: server.clock.now().timestamp(),
            terminals=self.terminals,
            say=self.said.append,
        )

    def metadata_of(self, module: ModuleType) -> Any:
        """As a program on the machine asks for it."""
        return module.Metadata(self.metadata.host)

    def tell(self, key: str, value: str) -> None:
        """In the metadata of the machine."""
        (resource,) = self.server.cloud.resources["instances"].values()
        items = [item for item in resource["metadata"]["items"] if item["key"] != key]
        resource["metadata"]["items"] = [*items, {"key": key, "value": value}]

    def let_pass(self, minutes: float) -> None:
        """Minute by minute, as the guard looks now and then."""
        for _ in range(int(minutes * 2)):
            self.server.clock.advance(30)
            self.guard.tick()

    def soft_end(self) -> float | None:
        """How many minutes from now."""
        found = self.provider.soft_end(self.made.name)
        return None if found is None else (found - self.server.clock.now()).total_seconds() / 60

    def put_run(self, **status: object) -> Path:
        run = self.home / "runs" / RUN
        run.mkdir(parents=True, exist_ok=True)
        (run / "status.json").write_text(json.dumps({"run_id": RUN, **status}))
        return run

    def lock(self) -> int:
        (self.home / "locks").mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.home / "locks" / f"run-{RUN}", os.O_RDWR | os.O_CREAT)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return descriptor

    def type_now(self) -> None:
        terminal = self.terminals / "0"
        terminal.touch()
        at = self.server.clock.now().timestamp()
        os.utime(terminal, (at, at))


@pytest.fixture
def watched(module: ModuleType, tmp_path: Path) -> Iterator[Watched]:
    with ComputeServer(clock=Clock(rate=0), wait_s=0.05) as server:
        found = Watched(module, server, tmp_path)
        try:
            yield found
        finally:
            found.metadata.stop()
        assert server.errors == []


def test_an_idle_machine_ends_after_its_minutes_and_says_before_when(watched: Watched) -> None:
    watched.guard.tick()
    left = watched.soft_end()
    assert left is not None and 29 < left <= 30
    watched.let_pass(29)
    assert watched.ended == []
    watched.let_pass(1.5)
    assert watched.ended == ["stop"]
    watched.let_pass(3)
    assert watched.ended == ["stop"]
    watched.let_pass(4)
    assert watched.ended == ["stop", "stop"]  # it is still here: what was accepted did not happen


def test_a_machine_with_a_run_does_not_end(watched: Watched) -> None:
    held = watched.lock()
    watched.put_run(state="RUNNING", published=False)
    watched.let_pass(60)
    assert watched.ended == [] and watched.soft_end() is None
    os.close(held)
    watched.put_run(state="SUCCEEDED", published=True)
    watched.let_pass(29)
    assert watched.ended == [] and watched.soft_end() is not None
    watched.let_pass(2)
    assert watched.ended == ["stop"]


@pytest.mark.parametrize("state", ["SUCCEEDED", "FAILED", "INTERRUPTED", "RUNNING"])
def test_a_result_that_is_not_in_the_bucket_keeps_the_machine(watched: Watched, state: str) -> None:
    watched.put_run(state=state, published=False)
    watched.let_pass(120)
    assert watched.ended == []


def test_who_types_keeps_it_and_who_only_looks_does_not(watched: Watched) -> None:
    watched.let_pass(20)
    watched.type_now()
    watched.let_pass(29)
    assert watched.ended == []
    terminal = watched.terminals / "0"
    typed = terminal.stat().st_atime
    os.utime(terminal, (typed, watched.server.clock.now().timestamp()))  # output, as of a follower
    watched.let_pass(2)
    assert watched.ended == ["stop"]


def test_extending_moves_the_soft_clock_up_to_the_hard_end(watched: Watched) -> None:
    now = watched.server.clock.now()
    watched.provider.keep_until(watched.made.name, now + timedelta(hours=2))
    watched.let_pass(110)
    assert watched.ended == []
    watched.let_pass(12)
    assert watched.ended == ["stop"]


def test_no_further_than_the_hard_end(watched: Watched) -> None:
    watched.provider.keep_until(watched.made.name, watched.server.clock.now() + timedelta(hours=99))
    watched.guard.tick()
    left = watched.soft_end()
    assert left is not None and 238 < left <= 240.1


def test_a_machine_that_the_cloud_started_again_ends_when_its_time_is_over(watched: Watched) -> None:
    """The cloud counts from the new start; a run that does not end keeps the idle clock off."""
    held = watched.lock()
    watched.put_run(state="RUNNING", published=False)
    watched.let_pass(3 * 60)
    watched.server.instances.host_error(watched.made.name)
    watched.let_pass(60 + 9)
    there = watched.provider.get(watched.made.name)
    assert there is not None and there.ends < watched.server.clock.now()  # the cloud would let it live on
    assert watched.ended == []
    watched.let_pass(2)
    assert watched.ended == ["stop"] and "time is over" in watched.said[-1]
    os.close(held)


def test_no_idle_minutes_no_end(module: ModuleType, tmp_path: Path) -> None:
    with ComputeServer(clock=Clock(rate=0), wait_s=0.05) as server:
        found = Watched(module, server, tmp_path, idle_minutes=0)
        found.let_pass(200)
        assert found.ended == []
        found.metadata.stop()


def test_a_clock_that_jumps_makes_nobody_idle(watched: Watched) -> None:
    watched.guard.tick()
    watched.server.clock.advance(3 * 3600)
    watched.guard.tick()
    assert watched.ended == []


def test_a_metadata_server_that_is_silent_ends_nothing(watched: Watched, module: ModuleType) -> None:
    watched.guard.metadata = module.Metadata("127.0.0.1:1")
    watched.let_pass(60)
    assert watched.ended == []


@pytest.mark.parametrize("taken", [False, True])
def test_runs_are_asked_to_checkpoint_before_the_end(watched: Watched, taken: bool) -> None:
    held = watched.lock()
    run = watched.put_run(state="RUNNING", published=False)
    with subprocess.Popen(["sleep", "60"]) as supervisor:
        (run / "supervisor.json").write_text(json.dumps({"pid": supervisor.pid}))
        if taken:
            watched.server.cloud.guests[watched.made.id].preempted = True
        else:
            watched.let_pass(234)
            assert supervisor.poll() is None
        watched.let_pass(3)
        assert supervisor.wait(timeout=10) == -signal.SIGTERM
    os.close(held)
    assert RUN in watched.said[-1]


def test_a_pid_that_is_somebody_elses_now_is_left_alone(watched: Watched) -> None:
    run = watched.put_run(state="RUNNING", published=False)
    with subprocess.Popen(["sleep", "60"]) as other:
        (run / "supervisor.json").write_text(json.dumps({"pid": other.pid}))
        assert watched.guard.home.interrupt() == []  # nobody holds the lock of that run
        assert other.poll() is None
        other.terminate()


def test_it_deletes_itself_where_it_may_and_powers_off_where_not(
    watched: Watched, module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    power = tmp_path / "bin" / "poweroff"
    power.parent.mkdir()
    power.write_text(f"#!/bin/sh\ntouch {tmp_path}/off\n")
    power.chmod(0o755)
    monkeypatch.setenv("PATH", f"{power.parent}:{os.environ['PATH']}")
    (resource,) = watched.server.cloud.resources["instances"].values()
    resource["metadata"]["items"].append({"key": "tlvm-endpoint", "value": watched.server.url})
    metadata = watched.guard.metadata
    watched.server.faults.add("403 permission", "instances.delete")
    module.end(metadata, "delete")
    assert (tmp_path / "off").exists() and watched.provider.get(watched.made.name) is not None
    (tmp_path / "off").unlink()
    module.end(metadata, "delete")
    assert watched.provider.get(watched.made.name) is None and not (tmp_path / "off").exists()


def put_bundle(home: Path, digest: str, program: str) -> Path:
    """Code that stands in for `remote`."""
    bundle = home / "bundles" / digest
    (bundle / "remote").mkdir(parents=True)
    (bundle / "remote" / "__init__.py").touch()
    (bundle / "remote" / "__main__.py").write_text(program)
    (bundle / "READY").touch()
    return bundle


def writes(path: Path) -> str:
    """A program that writes down what it is told."""
    return f"import sys; open({str(path)!r}, 'a').write(' '.join([*sys.argv[1:], sys.stdin.read()]).strip() + '\\n')"


def test_after_a_boot_the_newest_code_is_asked_to_go_on(
    watched: Watched, module: ModuleType, tmp_path: Path
) -> None:
    home = module.Home(tmp_path / ".tlvm")
    assert module.resume(home, watched.metadata_of(module)) == 0  # nothing ever ran here
    for number, name in enumerate("ab"):
        ready = put_bundle(home.root, name * 64, writes(tmp_path / name)) / "READY"
        os.utime(ready, (number, number))
    assert module.resume(home, watched.metadata_of(module)) == 0
    verb, option, left = (tmp_path / "b").read_text().split()
    assert (verb, option) == ("resume", "--seconds-left") and not (tmp_path / "a").exists()
    ends = watched.metadata_of(module).number("tlvm-ends")
    assert abs(float(left) - (ends - time.time())) < 60


def test_the_run_of_the_metadata_goes_on_with_the_bundle_that_it_names(
    watched: Watched, module: ModuleType, tmp_path: Path
) -> None:
    """Out of the bucket, with the machine's own account; and of another hash it is not run."""
    home = module.Home(tmp_path / ".tlvm")
    with GcsServer() as bucket:
        url = bucket.create_bucket("trees-4711")
        data = packed({"remote/__init__.py": "", "remote/__main__.py": writes(tmp_path / "told")})
        digest = hashlib.sha256(data).hexdigest()
        (tmp_path / "tar").write_bytes(data)
        store = open_store(StoreRef(url, bucket.endpoint_at("127.0.0.1")))
        store.upload(tmp_path / "tar", layout.bundle_key(digest))
        store.upload(tmp_path / "tar", layout.bundle_key("c" * 64))
        for named in ("c" * 64, digest):
            about = {"run_id": RUN, "bundle": named, "store": {"url": url, "endpoint": bucket.endpoint_at("127.0.0.1")}}  # fmt: skip
            watched.tell("tlvm-run", json.dumps(about))
            environment = {**os.environ, "HOME": str(tmp_path), "GCE_METADATA_HOST": watched.metadata.host}
            program = folder("infra") / "gce" / "guard.py"
            done = subprocess.run(
                [sys.executable, program, "resume"],
                env=environment,
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode == 0, done.stderr
            assert ("another hash" in done.stdout) == (named != digest)
            assert (tmp_path / "told").exists() == (named == digest)
    assert (tmp_path / "told").read_text().startswith("resume --boot --seconds-left ")
    assert RUN in (tmp_path / "told").read_text() and (home.root / "bundles" / digest / "READY").exists()


def packed(files: dict[str, str]) -> bytes:
    """A bundle."""
    files = {**files, "install.py": (folder("infra") / "bundle" / "install.py").read_text()}
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return whole.getvalue()


def test_a_machine_that_shuts_down_tells_its_runs_and_waits_for_them(
    watched: Watched, module: ModuleType
) -> None:
    held = watched.lock()
    run = watched.put_run(state="RUNNING", published=False)
    with subprocess.Popen(["sleep", "60"], pass_fds=[held]) as supervisor:
        os.close(held)  # only the supervisor has it now
        (run / "supervisor.json").write_text(json.dumps({"pid": supervisor.pid}))
        assert module.leave(module.Home(watched.home)) == 0
        assert supervisor.wait(timeout=10) == -signal.SIGTERM


def test_a_machine_that_is_taken_away_is_noticed_at_once(watched: Watched, module: ModuleType) -> None:
    taken = threading.Event()
    threading.Thread(target=module.watch, args=(watched.metadata_of(module), taken), daemon=True).start()
    assert not taken.wait(0.2)
    with watched.server.cloud.lock:
        watched.server.cloud.guests[watched.made.id].preempted = True
        watched.server.cloud.changed.notify_all()
    assert taken.wait(5)


def test_a_clock_that_is_an_hour_wrong_moves_no_end(watched: Watched) -> None:
    """The guard's machine is an hour ahead of the cloud, and says the soft end by the cloud's clock."""
    watched.guard.now = lambda: watched.server.clock.now().timestamp() + 3600
    watched.guard.ahead_s = lambda: 3600.0
    watched.let_pass(29)
    left = watched.soft_end()
    assert left is not None and 0 < left <= 1.5 and watched.ended == []
    watched.let_pass(1.5)
    assert watched.ended == ["stop"]


def test_the_metadata_server_tells_how_wrong_the_clock_is(watched: Watched, module: ModuleType) -> None:
    metadata = watched.metadata_of(module)
    metadata.attribute("tlvm-ends")
    assert abs(metadata.ahead_s()) < 5


def test_it_runs_as_a_program_and_only_once(watched: Watched, tmp_path: Path) -> None:
    """As startup.sh starts it, on a machine whose metadata asks for an end after one second."""
    system = tmp_path / "opt"
    system.mkdir()
    program = system / "guard.py"
    program.write_text((folder("infra") / "gce" / "guard.py").read_text())
    commands = {"getent": f"echo tlvm:x:1:1::{tmp_path}/home:/bin/sh", "poweroff": f"touch {tmp_path}/off"}
    for name, command in commands.items():
        (system / name).write_text(f"#!/bin/sh\n{command}\n")
        (system / name).chmod(0o755)
    (resource,) = watched.server.cloud.resources["instances"].values()
    for item in resource["metadata"]["items"]:
        if item["key"] == "tlvm-idle-seconds":
            item["value"] = "1"
    environment = {
        **os.environ,
        "PATH": f"{system}:{os.environ['PATH']}",
        "GCE_METADATA_HOST": watched.metadata.host,
    }
    with subprocess.Popen([sys.executable, program], env=environment, stdout=subprocess.DEVNULL) as guard:
        try:
            assert eventually(lambda: line.is_held(system / "guard.lock") or (tmp_path / "off").exists())
            assert subprocess.run([sys.executable, program], env=environment, timeout=60).returncode == 0
            assert eventually((tmp_path / "off").exists)
        finally:
            guard.terminate()
