"""What is special about this computer as a machine: its folder, its server process, and what happens when either is hurt."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.errors import CloudError, ConfigError, ConflictError, NotFoundError
from orchestrator.providers.base import Machine, MachineSpec, MachineState, Provider
from orchestrator.providers.local import LocalProvider
from orchestrator.providers.local_folder import MachineFolder, Server
from orchestrator.ssh import Connection, connect, new_key
from remote.contract import document
from remote.contract.run_spec import StoreRef
from tests.conformance.providers import eventually
from tests.processes import living_with

NAME = "tlvm-here"
ROOT = Path(__file__).resolve().parents[2]


class Here:
    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.key_file = data_dir / "key"
        self.provider: Provider = LocalProvider(data_dir)
        self.spec = MachineSpec(
            name=NAME, owner="ana", project="trees", public_key=new_key(self.key_file),
            store=StoreRef(str(data_dir)), max_hours=1,
        )  # fmt: skip
        self.folder = MachineFolder(data_dir / "machines" / NAME)

    def create(self) -> Machine:
        return self.provider.create(self.spec, self.provider.offers(self.spec)[0])

    def state(self) -> MachineState:
        machine = self.provider.get(NAME)
        assert machine is not None
        return machine.state

    def connect(self) -> Connection:
        machine = self.provider.get(NAME)
        assert machine is not None
        assert machine.ssh is not None
        return connect(machine.ssh, host_keys=self.provider.host_keys(NAME), key_file=self.key_file)

    def sleeper(self, marker: str) -> None:
        """A detached process on the machine."""
        with self.connect() as connection:
            connection.check(
                f"python3 -c 'import os, time; os.setsid() if os.fork() == 0 else os._exit(0); "
                f"time.sleep(600) # {marker}' </dev/null >/dev/null 2>&1"
            )
        assert eventually(lambda: bool(living_with(marker)))

    def server(self) -> Server:
        server = self.folder.server()
        assert server is not None
        return server

    def kill_server(self) -> None:
        os.kill(self.server().pid, signal.SIGKILL)
        assert eventually(lambda: self.folder.server() is None)

    def set_ends(self, ends: datetime) -> None:
        label = self.folder.path / "machine.json"
        document.write_text(label, json.dumps(json.loads(label.read_text()) | {"ends": ends.isoformat()}))


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    made = Here(tmp_path)
    yield made
    made.provider.delete(NAME)
    assert living_with(str(tmp_path)) == []


def test_what_is_being_written_there_does_not_make_the_folder_anew(here: Here) -> None:
    here.create()
    folder = here.folder.home / "written"
    with here.connect() as connection:
        connection.check(
            f"while :; do mkdir -p {folder}/a; rmdir {folder}/a; done </dev/null >/dev/null 2>&1 &"
        )
    assert eventually(folder.exists)
    here.provider.delete(NAME)
    assert not here.folder.path.exists()
    here.create()


def test_only_this_user_reaches_the_folder_and_only_loopback_the_server(here: Here) -> None:
    here.create()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (here.folder.path, here.folder.home)] == [0o700] * 2
    assert stat.S_IMODE(here.folder.host_key.stat().st_mode) == 0o600
    for name in ("authorized_keys", "machine.json", "server.json"):
        assert stat.S_IMODE((here.folder.path / name).stat().st_mode) == 0o600
    listening = Path("/proc/net/tcp")
    if listening.exists():
        port = f"{here.server().port:04X}"
        addresses = {line.split()[1] for line in listening.read_text().splitlines()[1:]}
        assert [address for address in addresses if address.endswith(f":{port}")] == [f"0100007F:{port}"]


def test_commands_see_a_home_of_their_own_and_little_of_the_users_environment(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "not for runs")
    monkeypatch.setenv("PYTHONSTARTUP", "/nowhere")
    here.create()
    with here.connect() as connection:
        lines = connection.check("env; pwd").decode().splitlines()
        python = connection.check("python3 -c 'import sys; print(sys.executable, sys.prefix)'").decode()
    seen = dict(line.partition("=")[::2] for line in lines[:-1])
    assert seen["HOME"] == lines[-1] == str(here.folder.home)
    assert seen["TLVM_MACHINE"] == NAME
    assert "SECRET_TOKEN" not in seen
    assert not [name for name in seen if name.startswith("PYTHON")]
    assert python.split() == [sys.executable, sys.prefix]  # with the packages of this environment


def test_a_machine_survives_the_command_that_made_it(here: Here) -> None:
    program = (
        "import sys; from pathlib import Path; from orchestrator.providers import provider\n"
        "from orchestrator.providers.base import MachineSpec; from remote.contract.run_spec import StoreRef\n"
        "p = provider('local', data_dir=Path(sys.argv[1]))\n"
        f"s = MachineSpec('{NAME}', 'ana', 'trees', sys.argv[2], StoreRef('/'), 1)\n"
        "print(p.create(s, p.offers(s)[0]).id)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(here.data_dir), here.spec.public_key],
        capture_output=True, text=True, cwd=ROOT, start_new_session=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    machine = here.provider.get(NAME)
    assert machine is not None
    assert machine.id == done.stdout.strip()
    with here.connect() as connection:
        assert connection.check("echo in") == b"in\n"


def test_a_killed_server_shows_as_stopped_and_what_ran_goes_on(here: Here) -> None:
    made = here.create()
    keys = here.provider.host_keys(NAME)
    marker = f"survivor-{made.id}"
    here.sleeper(marker)
    here.kill_server()
    assert here.state() is MachineState.STOPPED
    here.provider.start(NAME)
    again = here.provider.get(NAME)
    assert again is not None
    assert (again.id, again.ends, again.state) == (made.id, made.ends, MachineState.RUNNING)
    assert here.provider.host_keys(NAME) == keys
    assert living_with(marker)
    here.connect().close()
    here.kill_server()
    here.provider.delete(NAME)
    assert not living_with(marker)


def test_stop_lets_a_process_write_its_checkpoint(here: Here) -> None:
    here.create()
    with here.connect() as connection:
        job = b"trap 'echo saved > checkpoint; exit 12' TERM; touch set; while :; do sleep 0.05; done"
        connection.check("cat > job; sh job </dev/null >/dev/null 2>&1 &", input=job)
        assert eventually((here.folder.home / "set").exists)
        here.provider.stop(NAME)
    assert (here.folder.home / "checkpoint").read_text() == "saved\n"
    assert here.state() is MachineState.STOPPED


def test_a_process_that_took_over_the_number_of_a_dead_server_is_not_touched(here: Here) -> None:
    here.create()
    here.provider.stop(NAME)
    with subprocess.Popen(["sleep", "600"]) as innocent:
        here.folder.write_server(Server(innocent.pid, "another boot 1", port=1))
        assert here.state() is MachineState.STOPPED
        here.provider.stop(NAME)
        here.provider.delete(NAME)
        assert innocent.poll() is None
        innocent.kill()


def test_what_expired_while_it_was_stopped_is_removed_on_sight(here: Here) -> None:
    made = here.create()
    marker = f"forgotten-{made.id}"
    here.sleeper(marker)
    here.kill_server()
    here.set_ends(datetime.now(UTC) - timedelta(seconds=1))
    assert here.provider.get(NAME) is None
    assert not here.folder.path.exists()
    assert not living_with(marker)
    with pytest.raises(NotFoundError):
        here.provider.start(NAME)


def test_a_server_that_hangs_past_the_end_is_removed_on_sight(here: Here) -> None:
    here.create()
    os.kill(here.server().pid, signal.SIGSTOP)
    here.set_ends(datetime.now(UTC) - timedelta(minutes=1))
    assert here.provider.machines() == []
    assert list((here.data_dir / "machines").iterdir()) == []


def test_a_folder_that_is_taken_away_ends_its_machine(here: Here) -> None:
    made = here.create()
    marker = f"homeless-{made.id}"
    here.sleeper(marker)
    here.folder.path.rename(here.data_dir / "elsewhere")
    assert eventually(lambda: not living_with(marker))
    assert eventually(lambda: not living_with(f"local_server {here.folder.path}"))


def test_a_deletion_that_was_cut_short_is_finished_by_whoever_comes(here: Here) -> None:
    made = here.create()
    marker = f"half-gone-{made.id}"
    here.sleeper(marker)
    here.kill_server()
    here.folder.path.rename(here.folder.path.with_name(f".gone-{NAME}-0"))
    fresh = here.folder.path.with_name(".new-other-0")
    stale = here.folder.path.with_name(".new-other-1")
    for path in (fresh, stale):
        (path / "home").mkdir(parents=True)
    os.utime(stale, (time.time() - 10_000,) * 2)
    assert here.provider.machines() == []
    assert not living_with(marker)
    assert list((here.data_dir / "machines").iterdir()) == [fresh]


def test_a_creation_that_was_cut_short_is_finished_by_the_next(here: Here) -> None:
    made = here.create()
    here.provider.stop(NAME)
    here.folder.ready.unlink()  # as if its server had never run
    assert here.state() is MachineState.STOPPED
    again = here.create()
    assert (again.id, again.state) == (made.id, MachineState.RUNNING)


def test_a_stopped_machine_is_adopted_as_it_is(here: Here) -> None:
    made = here.create()
    here.provider.stop(NAME)
    again = here.create()
    assert (again.id, again.state) == (made.id, MachineState.STOPPED)


def test_a_server_that_does_not_start_leaves_nothing(here: Here) -> None:
    program = (
        "import sys; from pathlib import Path; from orchestrator.providers.local import LocalProvider\n"
        "from orchestrator.providers.base import MachineSpec; from remote.contract.run_spec import StoreRef\n"
        "sys.executable = '/bin/false'; p = LocalProvider(Path(sys.argv[1]))\n"
        f"s = MachineSpec('{NAME}', 'ana', 'trees', sys.argv[2], StoreRef('/'), 1)\n"
        "p.create(s, p.offers(s)[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(here.data_dir), here.spec.public_key],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 1
    assert "did not start" in done.stderr
    assert here.provider.get(NAME) is None
    assert list((here.data_dir / "machines").iterdir()) == []


def test_folders_that_are_not_ours(here: Here) -> None:
    here.folder.path.mkdir(parents=True)
    (here.folder.path / "machine.json").write_text('{"kind": "a slot machine"}')
    assert here.provider.machines() == []
    here.provider.delete(NAME)
    with pytest.raises(ConflictError, match="in the way"):
        here.create()
    assert [path.name for path in here.folder.path.iterdir()] == ["machine.json"]
    (here.folder.path / "machine.json").write_text('{"kind": "tlvm local machine", "schema": 99}')
    with pytest.raises(CloudError, match="can't be read"):
        here.provider.machines()
    (here.folder.path / "machine.json").unlink()


def test_files_that_are_hard_to_remove(here: Here) -> None:
    here.create()
    with here.connect() as connection:
        connection.check("mkdir -p a/b && touch a/b/c && chmod 500 a/b a && ln -s / root && mkfifo pipe")
    here.provider.delete(NAME)
    assert list((here.data_dir / "machines").iterdir()) == []
    assert Path("/etc").is_dir()


@pytest.mark.parametrize("name", ["", "..", "a/b", "Ana", "-a", ".gone-x", "a" * 64, "a\n"])
def test_names_that_are_no_names(here: Here, name: str) -> None:
    with pytest.raises(ConfigError, match="not the name of a machine"):
        here.provider.create(replace(here.spec, name=name), here.provider.offers(here.spec)[0])
    with pytest.raises(ConfigError, match="not the name of a machine"):
        here.provider.get(name)


def test_a_data_directory_that_can_not_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    provider = LocalProvider(tmp_path / "file")
    spec = MachineSpec(NAME, "ana", "trees", "ssh-ed25519 AAAA", StoreRef("/"), 1)
    with pytest.raises(CloudError, match="can't be used"):
        provider.create(spec, provider.offers(spec)[0])
    assert provider.machines() == []


def test_a_gpu_that_this_computer_does_not_have(here: Here) -> None:
    with pytest.raises(ConfigError, match="does not have"):
        here.provider.offers(replace(here.spec, accelerator="nvidia-l4", accelerator_count=99))
