"""The machine that faults strike: where a run is there, and a blow at what belongs to it. On `local`, and in a container."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, Signals
from typing import Any, Literal, Protocol

import docker
from docker.models.containers import Container

from orchestrator.providers.local_folder import MachineFolder, Server
from remote.contract.layout import MachineHome, RunFolder
from remote.job import line
from tests.faults.proxy import Proxy
from tests.processes import living
from tests.remote.machine import eventually

Victim = Literal["training", "supervisor"]

_MARKS: dict[Victim, str] = {"training": " -m remote train /", "supervisor": " -m remote /"}
_HOME = "/home/tlvm"
_WITHIN_S = 200
# In a container, one command instead of many looks from outside.
_AWAIT = """
for _ in $(seq 4000); do
    [ -d ~/.holds/"$1".reached ] && exit 0
    sleep 0.05
done
exit 1
"""
# Not in its home, whose disk may be full.
_HOLD = """
mkdir -p /tmp/holds
ln -sfn /tmp/holds ~/.holds
for epoch; do
    rm -rf ~/.holds/"$epoch".reached
    touch ~/.holds/"$epoch"
done
"""
_RELEASE = 'for epoch; do rm -f ~/.holds/"$epoch"; done'
# Whatever becomes free is taken at once, until /tmp/full is gone.
_FILL = """
touch /tmp/full
(
    while [ -e /tmp/full ]; do
        cat /dev/zero >>~/fill
        touch /tmp/filled
        sleep 0.02
    done
    rm ~/fill
    touch /tmp/room
) </dev/null >/dev/null 2>&1 &
until [ -e /tmp/filled ]; do sleep 0.02; done
"""
_EMPTY = """
rm /tmp/full
until [ -e /tmp/room ]; do sleep 0.02; done
rm /tmp/room /tmp/filled
"""
_KILL = """
run=$1 signal=$2; shift 2
for process in /proc/[0-9]*; do
    words=$(tr '\\0' ' ' <"$process/cmdline" 2>/dev/null) || continue
    for victim; do
        case "$words" in
            *"$victim"*"$run"*) kill -"$signal" "${process#/proc/}" && echo "$victim" ;;
        esac
    done
done
"""


class Machine(Protocol):
    def holding(self, *epochs: int) -> AbstractContextManager[None]:
        """The next training that has ended one of these epochs waits there; at the latest until this context ends."""

    def at_hold(self, epoch: int) -> None:
        """Wait until it waits there."""

    def release(self, *epochs: int) -> None:
        """It goes on."""

    def strike(self, run_id: str, *victims: Victim, signal: Signals = SIGKILL) -> None:
        """All of them in one blow. AssertionError when one is not there."""


class LocalMachine:
    def __init__(self, data_dir: Path, name: str) -> None:
        self.folder = MachineFolder(data_dir / "machines" / name)
        self.home = MachineHome(self.folder.home / ".tlvm")

    def run(self, run_id: str) -> RunFolder:
        return self.home.run(run_id)

    @contextmanager
    def holding(self, *epochs: int) -> Iterator[None]:
        self._holds.mkdir(exist_ok=True)
        for epoch in epochs:
            shutil.rmtree(self._reached(epoch), ignore_errors=True)
            (self._holds / str(epoch)).touch()
        try:
            yield
        finally:
            self.release(*epochs)

    def at_hold(self, epoch: int) -> None:
        eventually(self._reached(epoch).exists, within_s=_WITHIN_S)

    def release(self, *epochs: int) -> None:
        for epoch in epochs:
            (self._holds / str(epoch)).unlink(missing_ok=True)

    @property
    def _holds(self) -> Path:
        return self.folder.home / ".holds"

    def _reached(self, epoch: int) -> Path:
        return self._holds / f"{epoch}.reached"

    def strike(self, run_id: str, *victims: Victim, signal: Signals = SIGKILL) -> None:
        there = {victim: self._pids(run_id, victim) for victim in victims}
        missing = [victim for victim, pids in there.items() if not pids]
        assert not missing, f"there is no {' and no '.join(missing)} of {run_id}"
        for pid in chain.from_iterable(there.values()):
            os.kill(pid, signal)

    def _pids(self, run_id: str, victim: Victim) -> list[int]:
        return [pid for pid, words in living().items() if _MARKS[victim] in words and run_id in words]

    def next_run(self) -> str:
        """The id of the run that comes next, as soon as it has begun to work."""
        before = self._runs()
        eventually(lambda: bool(self._runs() - before), within_s=_WITHIN_S)
        (run_id,) = self._runs() - before
        return run_id

    def _runs(self) -> set[str]:
        return {path.parent.name for path in self.home.runs.glob("*/events.jsonl")}

    def set_clock(self, program: str) -> None:
        """Every Python of a run that begins there from now on runs this first."""
        for bundle in (self.home.root / "bundles").glob("*/READY"):
            bundle.with_name("sitecustomize.py").write_text(program)

    def is_active(self, run_id: str) -> bool:
        return line.is_held(line.run_lock(self.home.locks, run_id))

    @property
    def port(self) -> int:
        return self.server().port

    @contextmanager
    def behind(self, proxy: Proxy) -> Iterator[None]:
        """Who looks for the machine meanwhile finds the proxy."""
        server = self.server()
        self.folder.write_server(replace(server, port=proxy.port))
        try:
            yield
        finally:
            self.folder.write_server(server)

    @contextmanager
    def frozen(self, run_id: str) -> Iterator[None]:
        """All of it: who answers, who supervises, who trains."""
        server = self.server().pid
        os.kill(server, SIGSTOP)
        try:
            self.strike(run_id, "supervisor", "training", signal=SIGSTOP)
            yield
        finally:  # whoever is there: one may have ended between being found and being struck
            for pid in (server, *self._pids(run_id, "supervisor"), *self._pids(run_id, "training")):
                with suppress(ProcessLookupError):
                    os.kill(pid, SIGCONT)

    def server(self) -> Server:
        found = self.folder.server()
        assert found is not None
        return found


class DockerMachine:
    def __init__(self, client: docker.DockerClient, name: str) -> None:
        self._client = client
        self._name = name

    @property
    def container(self) -> Container:
        """As it is now: another one may have its name."""
        return self._client.containers.get(self._name)

    def with_a_small_disk(self, megabytes: int) -> None:
        """Another container in the place of this one, the same but for its home."""
        old = self.container
        api, made = self._client.api, old.attrs
        home = f"size={megabytes}m,exec,mode=0700,uid=1000,gid=1000"
        old.remove(force=True)
        create: Callable[[dict[str, Any], str], object] = api.create_container_from_config
        create({**made["Config"], "HostConfig": {**made["HostConfig"], "Tmpfs": {_HOME: home}}}, self._name)
        api.start(self._name)

    def fill(self) -> None:
        """Its disk takes no more, and what becomes free is taken at once, until `empty`."""
        assert self.shell(_FILL) == (0, "")

    def empty(self) -> None:
        assert self.shell(_EMPTY) == (0, "")

    def trains(self, run_id: str) -> bool:
        return bool(self.shell(_KILL, run_id, "0", _MARKS["training"])[1])

    def next_run(self) -> str:
        """The id of the run that comes next, as soon as it has begun to work."""
        before = self._runs()
        eventually(lambda: bool(self._runs() - before), within_s=_WITHIN_S)
        (run_id,) = self._runs() - before
        return run_id

    def _runs(self) -> set[str]:
        return {
            Path(path).parent.name
            for path in self.shell("ls ~/.tlvm/runs/*/events.jsonl 2>/dev/null")[1].split()
        }

    @contextmanager
    def holding(self, *epochs: int) -> Iterator[None]:
        code, said = self.shell(_HOLD, *map(str, epochs))
        assert code == 0, said
        try:
            yield
        finally:
            self.release(*epochs)

    def at_hold(self, epoch: int) -> None:
        code, said = self.shell(_AWAIT, str(epoch))
        assert code == 0, f"nobody came to epoch {epoch}: {said}"

    def release(self, *epochs: int) -> None:
        """Also where it is off, or another one: who trained there waits no more."""
        if self.container.status == "running":
            self.shell(_RELEASE, *map(str, epochs))

    def strike(self, run_id: str, *victims: Victim, signal: Signals = SIGKILL) -> None:
        marks = [_MARKS[victim] for victim in victims]
        _, said = self.shell(_KILL, run_id, str(int(signal)), *marks)
        assert set(said.splitlines()) == set(marks), f"not all of {victims} are there: {said}"

    def shell(self, script: str, *arguments: str, user: str = "tlvm") -> tuple[int, str]:
        done = self.container.exec_run(["/bin/sh", "-c", script, "sh", *arguments], user=user)
        assert done.exit_code is not None and isinstance(done.output, bytes)
        return done.exit_code, done.output.decode()
