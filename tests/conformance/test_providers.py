"""One suite for every provider: what `orchestrator.providers.base` promises, on real machines over real SSH.

A new provider adds one line to CASES in `providers.py`.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

import paramiko
import pytest

from orchestrator.errors import AuthError, ConfigError, NotFoundError
from orchestrator.providers import provider
from orchestrator.providers.base import Machine, MachineState
from orchestrator.ssh import connect, new_key
from tests.conformance.providers import PARAMETERS, Case, Place, eventually, place
from tests.processes import living_with


@pytest.fixture(scope="module", params=PARAMETERS)
def case(request: pytest.FixtureRequest) -> Case:
    found = request.param
    assert isinstance(found, Case)
    return found


@pytest.fixture(scope="module")
def here(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(case, tmp_path_factory.mktemp(case.name)) as made:
        yield made


@pytest.fixture(scope="module")
def machine(here: Place) -> Machine:
    """One machine for every test that leaves it as it found it."""
    made = here.create(here.spec("shared"))
    here.reach(made.name).close()
    found = here.provider.get(made.name)
    assert found is not None
    return found


def test_an_unknown_provider_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="locale") as error:
        provider("locale", data_dir=tmp_path)
    assert "'local'" in str(error.value)


def test_what_was_asked_for_is_what_get_and_machines_show(here: Place, machine: Machine) -> None:
    spec = here.spec("shared")
    assert (machine.name, machine.provider, machine.owner, machine.project) == (
        spec.name, here.case.name, "ana", "trees",
    )  # fmt: skip
    assert machine.state is MachineState.RUNNING
    assert machine.settings == spec.settings()
    assert machine.created <= here.now()
    assert abs((machine.ends - machine.created) - timedelta(hours=1)) < timedelta(seconds=10)
    assert machine.ends.utcoffset() == timedelta(0)
    assert here.provider.get(machine.name) == machine
    assert [found for found in here.provider.machines() if found.name == machine.name] == [machine]
    assert machine.ssh is not None
    assert ip_address(machine.ssh.host).is_loopback


def test_the_same_name_again_adopts(here: Place, machine: Machine) -> None:
    other = here.spec("shared", max_hours=2.0)
    assert here.create(other).id == machine.id
    assert here.provider.get(machine.name) == machine


def test_missing_is_none_and_deleting_it_succeeds(here: Place) -> None:
    assert here.provider.get("tlvm-nobody") is None
    here.provider.delete("tlvm-nobody")
    here.provider.delete("tlvm-nobody")
    for verb in (here.provider.host_keys, here.provider.start, here.provider.stop):
        with pytest.raises(NotFoundError, match="tlvm-nobody"):
            verb("tlvm-nobody")
    with pytest.raises(NotFoundError, match="tlvm-nobody"):
        here.provider.authorize("tlvm-nobody", here.public_key, here.now() + timedelta(hours=1))


def test_what_a_machine_said_is_text_and_nothing_of_one_that_is_missing(
    here: Place, machine: Machine
) -> None:
    assert isinstance(here.provider.said(machine.name), str)
    assert here.provider.said("never-made") == ""


def test_offers_are_places_with_a_price(here: Place) -> None:
    offers = here.provider.offers(here.spec("shared"))
    assert offers
    assert all(offer.place and offer.price_per_hour >= 0 for offer in offers)


def test_the_pinned_host_key_is_the_one_that_ssh_shows(here: Place, machine: Machine) -> None:
    assert machine.ssh is not None
    with paramiko.Transport((machine.ssh.host, machine.ssh.port)) as transport:
        transport.start_client(timeout=10)
        shown = transport.get_remote_server_key()
    pinned = [" ".join(key.split()[:2]) for key in here.provider.host_keys(machine.name)]
    assert f"{shown.get_name()} {shown.get_base64()}" in pinned


def test_another_key_is_refused(here: Place, machine: Machine, tmp_path: Path) -> None:
    new_key(tmp_path / "stranger")
    assert machine.ssh is not None
    with pytest.raises(AuthError):
        connect(machine.ssh, host_keys=here.provider.host_keys(machine.name), key_file=tmp_path / "stranger")


def test_the_key_of_another_machine_is_refused_and_so_is_its_host_key(
    here: Place, machine: Machine, tmp_path: Path
) -> None:
    other_key = tmp_path / "other"
    other = here.create(here.spec("other", public_key=new_key(other_key)))
    here.reach(other.name, key_file=other_key).close()
    with pytest.raises(AuthError):
        here.reach(machine.name, key_file=other_key)
    assert machine.ssh is not None
    with pytest.raises(AuthError, match="host key"):
        connect(machine.ssh, host_keys=here.provider.host_keys(other.name), key_file=here.key_file)
    here.provider.delete(other.name)
    assert eventually(lambda: here.provider.get(other.name) is None)


def test_passwords_are_refused(machine: Machine) -> None:
    assert machine.ssh is not None
    with paramiko.Transport((machine.ssh.host, machine.ssh.port)) as transport:
        transport.start_client(timeout=10)
        with pytest.raises(paramiko.BadAuthenticationType) as error:
            transport.auth_none(machine.ssh.user)
    assert error.value.allowed_types == ["publickey"]


def test_commands_have_exit_codes_input_and_two_outputs(here: Place, machine: Machine) -> None:
    with here.reach(machine.name) as connection:
        output = connection.run("cat; echo oops >&2; exit 7", input=b"\x00\xff in")
        assert (output.exit_code, output.stdout, output.stderr) == (7, b"\x00\xff in", b"oops\n")
        assert connection.check("echo \"a 'b' $((1+2))\"") == b"a 'b' 3\n"
        assert connection.check("python3 -c 'import sys; print(sys.version_info[0])'").strip() == b"3"
        assert connection.run("kill -9 $$").exit_code in (137, 255)  # a signal, not a lost connection
        assert connection.check('cd && pwd -P && test "$HOME" && umask').splitlines()


def test_home_holds_the_startup_marker(here: Place, machine: Machine) -> None:
    with here.reach(machine.name) as connection:
        connection.check('test -f "$HOME/.tlvm/READY"')
        assert connection.check('python3 -c "import os; print(oct(os.stat(os.path.expanduser(\'~/.tlvm\')).st_mode)[-3:])"') == b"700\n"  # fmt: skip


def test_a_hundred_megabytes_of_output(here: Place, machine: Machine) -> None:
    line = b"epoch 1 of 25, loss 0.693147\n" * 4
    count = 100_000_000 // len(line)
    wanted = hashlib.sha256()
    for _ in range(count):
        wanted.update(line)
    program = f"import sys\nfor _ in range({count}): sys.stdout.buffer.write({line!r})\n"
    seen = hashlib.sha256()
    with here.reach(machine.name) as connection:
        connection.check("cat > chatter.py", input=program.encode())
        for piece in connection.stream("python3 chatter.py; rm chatter.py", idle_timeout_s=20):
            seen.update(piece)
    assert seen.digest() == wanted.digest()


def test_files_travel_both_ways(here: Place, machine: Machine, tmp_path: Path) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    there.write_bytes(os.urandom(20_000_000))
    with here.reach(machine.name) as connection:
        home = connection.check("pwd").decode().strip()
        connection.put(there, f"{home}/parcel bé")
        connection.put(there, "parcel")
        connection.get("parcel", back)
        assert back.read_bytes() == there.read_bytes()
        assert connection.check("ls -A | grep parcel").decode().splitlines() == ["parcel", "parcel bé"]
        connection.check("rm parcel*")
        with pytest.raises(NotFoundError, match="parcel"):
            connection.get("parcel", tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_another_computer_comes_in_until_its_time(here: Place, machine: Machine, tmp_path: Path) -> None:
    keys = {name: new_key(tmp_path / name) for name in ("second", "late")}
    here.provider.authorize(machine.name, keys["second"], here.now() + timedelta(hours=1))
    here.provider.authorize(machine.name, keys["second"], here.now() + timedelta(hours=1))
    here.provider.authorize(machine.name, keys["late"], here.now() - timedelta(seconds=1))
    with here.reach(machine.name, key_file=tmp_path / "second") as connection:
        assert connection.check("echo in") == b"in\n"
    with pytest.raises(AuthError):
        here.reach(machine.name, key_file=tmp_path / "late")
    here.reach(machine.name).close()


def test_stop_and_start_keep_the_machine(here: Place) -> None:
    made = here.create(here.spec("sleeper"))
    keys = here.provider.host_keys(made.name)
    with here.reach(made.name) as connection:
        keys = here.provider.host_keys(made.name)
        connection.check("echo kept > file")
    here.provider.stop(made.name)
    here.provider.stop(made.name)
    stopped = here.provider.get(made.name)
    assert stopped is not None
    assert (stopped.id, stopped.state, stopped.ends) == (made.id, MachineState.STOPPED, made.ends)
    assert made.name in [found.name for found in here.provider.machines()]
    here.provider.start(made.name)
    here.provider.start(made.name)
    with here.reach(made.name) as connection:
        assert connection.check("cat file") == b"kept\n"
    started = here.provider.get(made.name)
    assert started is not None
    assert (started.id, started.state, started.ends) == (made.id, MachineState.RUNNING, made.ends)
    assert here.provider.host_keys(made.name) == keys
    here.provider.stop(made.name)
    here.provider.delete(made.name)
    assert eventually(lambda: here.provider.get(made.name) is None)


def test_delete_leaves_nothing_not_even_a_detached_child(here: Place) -> None:
    made = here.create(here.spec("parent"))
    marker = f"orphan-of-{made.name}"
    detach = (
        f"import os, time\nif os.fork() == 0:\n os.setsid()\n if os.fork() == 0: time.sleep(600) # {marker}"
    )
    with here.reach(made.name) as connection:
        connection.check(f"python3 -c '{detach}' </dev/null >/dev/null 2>&1")
        assert eventually(lambda: bool(living_with(marker)))
        here.provider.delete(made.name)
        here.provider.delete(made.name)
    assert eventually(lambda: here.provider.get(made.name) is None)
    assert eventually(lambda: not living_with(marker))
    assert made.name not in [found.name for found in here.provider.machines()]
    again = here.create(here.spec("parent"))
    assert again.id != made.id
    here.provider.delete(again.name)


def test_a_machine_ends_at_its_deadline(here: Place) -> None:
    spec = here.spec("mayfly", max_hours=here.case.shortest_life_s / 3600)
    made = here.create(spec)
    marker = f"run-of-{made.name}"
    with here.reach(made.name) as connection:
        connection.check(f"python3 -c 'import time; time.sleep(600) # {marker}' </dev/null >/dev/null 2>&1 &")
        assert eventually(lambda: bool(living_with(marker)))
    here.world.let_pass(here.case.shortest_life_s)
    assert eventually(lambda: here.provider.get(made.name) is None, within_s=30 + here.case.shortest_life_s)
    assert here.now() >= made.ends
    assert eventually(lambda: not living_with(marker))
    assert made.name not in [found.name for found in here.provider.machines()]


def test_what_was_made_by_hand_is_never_touched(case: Case, tmp_path: Path) -> None:
    with place(case, tmp_path) as here:
        name = here.spec("by-hand").name
        with here.world.by_hand(name) as untouched:
            assert here.provider.get(name) is None
            assert name not in [found.name for found in here.provider.machines()]
            here.provider.delete(name)
            assert untouched()
            with pytest.raises(Exception, match=name):
                here.create(here.spec("by-hand"))
            assert untouched()


def test_two_at_once_make_one_machine(here: Place) -> None:
    spec = here.spec("twins")
    together = threading.Barrier(3)

    def create(_: int) -> str:
        together.wait(timeout=10)
        return here.world.open().create(spec, here.provider.offers(spec)[0]).id

    with ThreadPoolExecutor(3) as pool:
        ids = set(pool.map(create, range(3)))
    assert len(ids) == 1
    assert [found.id for found in here.provider.machines() if found.name == spec.name] == list(ids)
    here.reach(spec.name).close()
    here.provider.delete(spec.name)
