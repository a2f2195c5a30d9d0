"""One long run, fifty random faults one after the other, and the bits of a run that was left in peace.

SOAK_SEED=N repeats what a seed did, as far as the computer is as fast as it was then.
"""

from __future__ import annotations

import os
import random
import re
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator.providers import local_folder
from remote.contract.layout import RunFolder
from tests.fakes.gcs_faults import Kind
from tests.faults.fork_server import Job
from tests.faults.machines import LocalMachine, Victim
from tests.faults.survival import MACHINE, World, world

_FAULTS = 50
_EPOCHS = 240
_SPARE_S = 100  # of the time of the soak tests, for what comes after the last fault
_STANDS_S = 120  # so long without an epoch: nobody brings it back


class NotThere(Exception):
    """What was to be struck."""


@pytest.fixture
def user(tmp_path_factory: pytest.TempPathFactory, code: Path) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("soak"), code, "local", epochs=_EPOCHS, train=16) as user:
        user.model_is_late = 0.0
        yield user


@dataclass
class Storm:
    user: World
    machine: LocalMachine
    run_id: str
    follower: Job
    chance: random.Random
    told: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    @property
    def run(self) -> RunFolder:
        return self.machine.run(self.run_id)

    @property
    def epoch(self) -> int:
        """The last that is over, where the run is now."""
        try:
            said = self.run.events.read_bytes()
        except FileNotFoundError:
            return 0
        return max(map(int, re.findall(rb'"epoch": (\d+), ', said)), default=0)

    @property
    def over(self) -> bool:
        return self.user.stored(f"runs/{self.run_id}/MANIFEST.json") is not None

    def await_epoch(self, epoch: int) -> None:
        """Somebody follows all the time, and comes back when he lost it."""
        deadline, seen = time.monotonic() + _STANDS_S, self.epoch
        while not self.over and self.epoch < epoch:
            if self.epoch != seen:
                deadline, seen = time.monotonic() + _STANDS_S, self.epoch
            assert time.monotonic() < deadline, f"it stands: {self.told}\n{self.follower.stderr[-3000:]}"
            if self.follower.ended(0.05):
                self.follower = self.user.begin("attach", "--recover", self.run_id)

    def strike(self) -> None:
        name = self.chance.choice([*self._faults])
        epoch = self.epoch
        try:
            self._faults[name]()
        except (NotThere, ProcessLookupError, FileNotFoundError):
            self.missed.append(name)
        else:
            self.told.append(f"{name} after epoch {epoch}")

    @property
    def _faults(self) -> dict[str, Callable[[], None]]:
        return {
            "training killed": lambda: self._kill("training"),
            "supervisor killed": lambda: self._kill("supervisor"),
            "both killed": lambda: self._kill("supervisor", "training"),
            "follower killed": self.follower.kill,
            "SSH server killed": self._kill_server,
            "frozen": self._freeze,
            "checkpoint damaged": self._damage,
            "bucket 503": lambda: self._fail("503"),
            "bucket 403": lambda: self._fail("403"),
            "bucket silent": lambda: self._fail("stall"),
            "machine taken away": self._take_away,
        }

    def _kill(self, *victims: Victim) -> None:
        try:
            self.machine.strike(self.run_id, *victims)
        except AssertionError as error:
            raise NotThere from error

    def _kill_server(self) -> None:
        server = self.machine.folder.server()
        if server is None:
            raise NotThere
        os.kill(server.pid, signal.SIGKILL)

    def _take_away(self) -> None:
        """Only while the run is at work on it: one that is just being made is another matter."""
        if not self.machine.is_active(self.run_id):
            raise NotThere
        local_folder.remove(self.machine.folder)

    def _freeze(self) -> None:
        try:
            with self.machine.frozen(self.run_id):
                time.sleep(self.chance.uniform(0.1, 3))
        except AssertionError as error:
            raise NotThere from error

    def _damage(self) -> None:
        newest = max(self.run.checkpoints.glob("checkpoint-*.pt"), default=None)
        if newest is None:
            raise NotThere
        content = bytearray(newest.read_bytes())
        content[self.chance.randrange(len(content))] ^= 1
        newest.write_bytes(content)
        self._kill("training")

    def _fail(self, kind: Kind) -> None:
        with self.user.bucket.failing(kind, on="objects.insert*"):
            self.await_epoch(self.epoch + self.chance.randint(1, 4))


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_fifty_faults_and_the_same_bits(user: World, capsys: pytest.CaptureFixture[str]) -> None:
    seed = int(os.environ.get("SOAK_SEED", "0")) or secrets.randbelow(2**31)
    with capsys.disabled():
        print(f"\nsoak: seed {seed}")
    ends = time.monotonic() + float(os.environ.get("SOAK_SECONDS", "480")) - _SPARE_S
    expected = user.undisturbed
    machine = LocalMachine(user.data, MACHINE)
    follower = user.begin(*user.run("--recover"))
    storm = Storm(user, machine, machine.next_run(), follower, random.Random(seed))
    while len(storm.told) < _FAULTS and not storm.over and time.monotonic() < ends:
        storm.await_epoch(storm.epoch + storm.chance.randint(1, 4))
        storm.strike()
    with capsys.disabled():
        print(f"soak: {len(storm.told)} faults, {len(storm.missed)} missed, {storm.told[-1:]} of {_EPOCHS}")
    assert len(storm.told) > len(storm.missed), storm.missed
    assert len(storm.told) == _FAULTS or time.monotonic() >= ends, "the run was over before all had struck"
    storm.await_epoch(_EPOCHS + 1)
    assert user.pulled(storm.run_id) == expected, storm.told
