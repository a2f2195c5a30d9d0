"""What only containers promise: who comes in, what they may, whose files they write, and what Docker's errors become."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import paramiko
import pytest
from docker.models.containers import Container

from orchestrator.errors import AuthError, CloudError, ConfigError, ConflictError
from orchestrator.progress import Silent
from orchestrator.providers.base import Machine, MachineState
from orchestrator.providers.docker import DockerProvider, image, store_access
from orchestrator.stores import open_store
from remote.contract.run_spec import StoreRef
from tests.conformance.providers import CASES, Place, place
from tests.docker_engine import by_hand, engine

CASE = next(case for case in CASES if case.name == "docker")
REMOTE = Path(__file__).parents[2] / "remote"
RUN = "runs/fixed-extractor-20261122-144512-k3qz"
# A checksum that needs no library: the folder's rules are tested here, not crc32c.
WRITE = """
import hashlib, pathlib, tempfile
from remote.contract.folder import Folder
class Sum:
    def __init__(self): self.of = hashlib.sha256()
    def update(self, data): self.of.update(data)
    def digest(self): return self.of.digest()[:4]
folder = Folder(pathlib.Path("/srv/tlvm-store"), Sum)
source = tempfile.TemporaryFile()
source.write(b"from the machine")
source.seek(0)
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(CASE, tmp_path_factory.mktemp("docker")) as made:
        yield made


def test_a_container_that_ends_at_once_leaves_its_last_words(here: Place) -> None:
    made = here.create(here.spec("failing"))
    with engine() as client:
        container = client.containers.get(made.id)
        assert container.exec_run(["pkill", "sshd"]).exit_code == 0
        assert container.wait(timeout=30)["StatusCode"] == 1
    found = here.provider.get(made.name)
    assert found is not None and found.state is MachineState.STOPPED
    assert "Server listening" in here.provider.said(made.name)
    here.provider.delete(made.name)


@pytest.fixture(scope="module")
def machine(here: Place) -> Machine:
    """One machine for every test that leaves it as it found it."""
    made = here.create(here.spec("docker"))
    with here.reach(made.name) as connection:
        connection.check("mkdir -p code/remote")
        for path in (REMOTE / "__init__.py", *sorted((REMOTE / "contract").glob("*.py"))):
            connection.check(f"mkdir -p code/remote/{path.parent.name if path.parent != REMOTE else '.'}")
            connection.put(path, f"code/{path.relative_to(REMOTE.parent).as_posix()}")
    return made


@pytest.fixture
def container(machine: Machine) -> Iterator[Container]:
    with engine() as client:
        yield client.containers.get(machine.id)


def python(here: Place, name: str, code: str) -> str:
    """What a program prints on the machine, as its user."""
    with here.reach(name) as connection:
        return connection.check("PYTHONPATH=code python3 -", input=code.encode()).decode()


@pytest.mark.docker
def test_the_port_is_published_on_this_computer_only(container: Container) -> None:
    published = container.attrs["NetworkSettings"]["Ports"]
    assert list(published) == ["2222/tcp"]
    assert [place["HostIp"] for place in published["2222/tcp"]] == ["127.0.0.1"]


@pytest.mark.docker
def test_the_container_has_limits_and_few_rights(here: Place, machine: Machine, container: Container) -> None:
    host = container.attrs["HostConfig"]
    assert (host["Privileged"], host["Init"], host["CapDrop"]) == (False, True, ["ALL"])
    assert sorted(cap.removeprefix("CAP_") for cap in host["CapAdd"]) == [
        "AUDIT_WRITE", "CHOWN", "SETGID", "SETUID", "SYS_CHROOT",
    ]  # fmt: skip
    assert "no-new-privileges" in host["SecurityOpt"]
    assert (host["NanoCpus"], host["Memory"], host["MemorySwap"]) == (10**9, 10**9, 10**9)
    assert host["PidsLimit"] > 0
    assert not [mount for mount in container.attrs["Mounts"] if "docker.sock" in str(mount)]
    with here.reach(machine.name) as connection:
        assert connection.run("test -e /var/run/docker.sock").exit_code == 1
        rights = dict(
            line.split(":", 1) for line in connection.check("cat /proc/self/status").decode().splitlines()
        )
        assert (rights["CapEff"].strip(), rights["CapPrm"].strip()) == ("0" * 16, "0" * 16)
        assert rights["NoNewPrivs"].strip() == "1"
        assert connection.run("cat /etc/shadow || cat /etc/ssh/ssh_host_ed25519_key").exit_code != 0


@pytest.mark.docker
def test_the_image_holds_no_host_keys(container: Container) -> None:
    with engine() as client:
        listed = client.containers.run(
            container.attrs["Image"], ["-c", "ls /etc/ssh"], entrypoint="/bin/sh", remove=True
        )
    assert b"moduli" in listed
    assert b"ssh_host" not in listed


@pytest.mark.docker
def test_nobody_comes_in_as_root_and_only_local_forwarding_is_allowed(here: Place, machine: Machine) -> None:
    assert machine.ssh is not None
    key = paramiko.Ed25519Key.from_private_key_file(str(here.key_file))
    with paramiko.Transport((machine.ssh.host, machine.ssh.port)) as transport:
        transport.start_client(timeout=10)
        with pytest.raises(paramiko.AuthenticationException):
            transport.auth_publickey("root", key)
    with paramiko.Transport((machine.ssh.host, machine.ssh.port)) as transport:
        transport.start_client(timeout=10)
        transport.auth_publickey(machine.ssh.user, key)
        inward = transport.open_channel("direct-tcpip", ("127.0.0.1", 2222), ("127.0.0.1", 0), timeout=10)
        assert inward.recv(4) == b"SSH-"
        with pytest.raises(paramiko.SSHException):
            transport.request_port_forward("127.0.0.1", 0)


@pytest.mark.docker
def test_the_contract_runs_on_the_machines_python(here: Place, machine: Machine) -> None:
    names = sorted(path.stem for path in (REMOTE / "contract").glob("*.py") if path.stem != "__init__")
    said = python(
        here,
        machine.name,
        f"import importlib, sys\nfor name in {names}: importlib.import_module('remote.contract.' + name)\n"
        "import torch, torchvision\nprint(*sys.version_info[:2], torch.__version__, torchvision.__version__)",
    )
    assert said.split()[:2] == ["3", "13"]
    assert tuple(int(part) for part in said.split()[2].split(".")[:2]) >= (2, 6)


@pytest.mark.docker
def test_the_machine_reads_the_store_and_writes_only_runs_and_checkpoints(
    here: Place, machine: Machine, tmp_path: Path
) -> None:
    assert machine.store == StoreRef("/srv/tlvm-store")
    store = open_store(StoreRef(str(here.data_dir / "store")))
    (tmp_path / "pack").write_bytes(b"images")
    store.upload(tmp_path / "pack", "packs/one.tar")
    store.upload(tmp_path / "pack", f"{RUN}/spec.json")
    with here.reach(machine.name) as connection:
        assert connection.check("cat /srv/tlvm-store/packs/one.tar") == b"images"
        for path in ("x", "packs/one.tar", "packs/x", "datasets"):
            assert connection.run(f"touch /srv/tlvm-store/{path}").exit_code != 0
        assert connection.run("rm -f /srv/tlvm-store/packs/one.tar").exit_code != 0
    python(
        here,
        machine.name,
        f"{WRITE}\nfor key in ('{RUN}/status.json', '{RUN}/events/0', 'checkpoints/a/b', '{RUN}/spec.json'):\n"
        " folder.put(source, key, None)\n source.seek(0)",
    )
    for key in (f"{RUN}/status.json", f"{RUN}/events/0", "checkpoints/a/b", f"{RUN}/spec.json"):
        store.download(key, tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == b"from the machine"
    assert [blob.key for blob in store.blobs("checkpoints/")] == ["checkpoints/a/b"]


@pytest.mark.docker
@pytest.mark.needs("root")
def test_files_belong_to_the_owner_of_the_store(tmp_path: Path) -> None:
    with place(CASE, tmp_path) as here:
        spec = here.spec("owner")
        root = Path(spec.store.url)
        os.chown(root, 4321, 8765)
        root.chmod(0o700)
        here.create(spec)
        with here.reach(spec.name) as connection:
            assert connection.check("id -u; id -g").split() == [b"4321", b"8765"]
            connection.check("mkdir /srv/tlvm-store/runs/a && echo hello > /srv/tlvm-store/runs/a/b")
        found = (root / "runs/a/b").stat()
        assert (found.st_uid, found.st_gid) == (4321, 8765)


@pytest.mark.docker
@pytest.mark.needs("root")
def test_a_folder_of_root_is_shared_with_one_group_and_the_machine_is_not_root(
    here: Place, machine: Machine
) -> None:
    with here.reach(machine.name) as connection:
        assert connection.check("id -u; id -g").split() == [b"1000", b"1000"]
        connection.check("echo hello > /srv/tlvm-store/runs/file")
    for folder in ("runs", "checkpoints"):
        found = (here.data_dir / "store" / folder).stat()
        assert (found.st_uid, found.st_gid) == (0, 1000)
        assert stat.S_IMODE(found.st_mode) & 0o2770 == 0o2770
    assert (here.data_dir / "store/runs/file").read_text() == "hello\n"


@pytest.mark.docker
@pytest.mark.needs("root")
def test_a_private_store_of_root_can_be_read_by_the_machine_and_links_are_not_followed(
    tmp_path: Path,
) -> None:
    with place(CASE, tmp_path) as here:
        spec = here.spec("private")
        store = Path(spec.store.url)
        (store / "packs").mkdir(mode=0o700)
        (store / "packs/one.tar").write_bytes(b"images")
        (tmp_path / "elsewhere").write_text("mine")
        (store / "runs/.tmp").mkdir(parents=True)
        (store / "runs/.tmp/lock").touch(0o600)  # as a run on the provider `local` leaves it
        (store / "packs/link").symlink_to(tmp_path / "elsewhere")
        for path in (store, store / "packs/one.tar", tmp_path / "elsewhere"):
            path.chmod(stat.S_IMODE(path.stat().st_mode) & 0o700)
        here.create(spec)
        with here.reach(spec.name) as connection:
            assert connection.check("cat /srv/tlvm-store/packs/one.tar") == b"images"
            connection.check("exec 9<> /srv/tlvm-store/runs/.tmp/lock")
        found = (tmp_path / "elsewhere").stat()
        assert (found.st_gid, stat.S_IMODE(found.st_mode)) == (0, 0o600)


@pytest.mark.docker
def test_of_a_bucket_only_the_named_credentials_get_in(tmp_path: Path) -> None:
    with place(CASE, tmp_path) as here:
        with pytest.raises(ConfigError, match="no Google identity"):
            here.create(here.spec("bucket", store=StoreRef("gs://trees")))
        with pytest.raises(ConfigError, match=r"missing\.json"):
            here.create(
                here.spec("bucket", store=StoreRef("gs://trees", None, str(tmp_path / "missing.json")))
            )
        secret = tmp_path / "key.json"
        secret.write_text("{}")
        secret.chmod(0o600)
        store = StoreRef("gs://trees", "http://172.17.0.1:9", str(secret))
        made = here.create(here.spec("bucket", store=store))
        assert (made.store.url, made.store.endpoint) == (store.url, store.endpoint)
        with here.reach(made.name) as connection:
            assert connection.check(f"cat {made.store.credentials_file}") == b"{}"
            connection.run(f"rm -f {made.store.credentials_file}; echo x > {made.store.credentials_file}")
        assert secret.read_text() == "{}"
        with engine() as client:
            mounts = client.containers.get(made.id).attrs["Mounts"]
        assert [(mount["Source"], mount["RW"]) for mount in mounts] == [(str(secret), False)]


@pytest.mark.docker
def test_a_stopped_machine_past_its_deadline_is_gone_and_removed(here: Place) -> None:
    made = here.create(here.spec("late"))
    here.provider.stop(made.name)
    later = DockerProvider(here.data_dir, now=lambda: datetime.now(UTC) + timedelta(hours=2))
    # Its clock is two hours ahead: the machines of other tests would be over, too, so it is asked for this one only.
    assert later.get(made.name) is None
    assert here.provider.get(made.name) is None


@pytest.mark.docker
def test_a_frozen_container_can_be_stopped_and_started(here: Place) -> None:
    made = here.create(here.spec("frozen"))
    with engine() as client:
        client.containers.get(made.id).pause()
        here.provider.start(made.name)
        here.reach(made.name).close()
        client.containers.get(made.id).pause()
        here.provider.stop(made.name)
        assert client.containers.get(made.id).status == "exited"
    here.provider.delete(made.name)


@pytest.mark.docker
def test_stopping_asks_politely_first(here: Place) -> None:
    made = here.create(here.spec("polite"))
    with here.reach(made.name) as connection:
        connection.check(
            'setsid -f sh -c \'trap "echo asked > /srv/tlvm-store/runs/asked; exit" TERM; '
            "while :; do sleep 0.05; done' </dev/null >/dev/null 2>&1; sleep 0.2"
        )
    here.provider.stop(made.name)
    assert (here.data_dir / "store/runs/asked").read_text() == "asked\n"
    here.provider.delete(made.name)


@pytest.mark.docker
@pytest.mark.parametrize("labels", [{}, {"tlvm.machine": "another-name"}, {"tlvm.machine": "{name}"}])
def test_a_container_of_somebody_else_is_never_touched(here: Place, labels: dict[str, str]) -> None:
    name = here.spec("foreign").name
    with by_hand(name, {label: text.format(name=name) for label, text in labels.items()}) as untouched:
        assert here.provider.get(name) is None
        assert name not in [found.name for found in here.provider.machines()]
        with pytest.raises(ConflictError, match=name):
            here.create(here.spec("foreign"))
        here.provider.delete(name)
        assert untouched()


@pytest.mark.docker
def test_what_this_engine_can_never_give_is_refused(here: Place) -> None:
    for settings in ({"cpus": 4096}, {"memory_gb": 10**6}, {"store": StoreRef("relative")}):
        with pytest.raises(ConfigError):
            here.provider.offers(here.spec("huge", **settings))
    with engine() as client:
        if "nvidia" not in client.info()["Runtimes"]:
            with pytest.raises(ConfigError, match="NVIDIA"):
                here.provider.offers(here.spec("gpu", accelerator="any", accelerator_count=1))
    with pytest.raises(ConfigError, match="public key"):
        here.create(here.spec("key", public_key='command="reboot" ssh-ed25519 AAAA'))
    assert here.provider.get(here.spec("key").name) is None


@pytest.mark.docker
def test_a_machine_that_can_not_start_leaves_nothing(here: Place) -> None:
    with pytest.raises(ConfigError, match="none"):
        here.create(here.spec("broken", image="tlvm-test.invalid/none"))
    folder = here.data_dir / "broken"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM debian:trixie-slim\nUSER nobody-of-that-name\n")
    with engine() as client:
        name = image.built(client, folder, here.data_dir / "lock", Silent())
        try:
            with pytest.raises(CloudError, match="nobody-of-that-name"):
                here.create(here.spec("broken", image=name))
            assert not client.containers.list(all=True, filters={"name": here.spec("broken").name})
        finally:
            client.images.remove(name)


@pytest.mark.docker
def test_an_image_that_can_not_be_made_says_why(tmp_path: Path) -> None:
    folder = tmp_path / "docker"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM debian:trixie-slim\nRUN echo the reason; exit 3\n")
    with engine() as client:
        with pytest.raises(CloudError, match="the reason"):
            image.built(client, folder, tmp_path / "lock", Silent())
        (folder / "Dockerfile").write_text("FROM tlvm-test.invalid/base\n")
        with pytest.raises(CloudError, match="base-image"):
            image.built(client, folder, tmp_path / "lock", Silent())
        assert not client.images.list(f"{image.REPOSITORY}:{image.content_hash(folder)[:12]}")


def test_the_name_of_the_image_follows_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = image.content_hash(tmp_path)
    os.utime(tmp_path / "a", (0, 0))
    assert image.content_hash(tmp_path) == first
    (tmp_path / "a").rename(tmp_path / "b")
    assert image.content_hash(tmp_path) != first


@pytest.mark.parametrize(
    "host", ["tcp://192.0.2.1:2375", "ssh://somebody@192.0.2.1", "http://127.0.0.1:2375"]
)
def test_an_engine_elsewhere_is_refused(host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    with pytest.raises(ConfigError, match="not on this computer"):
        DockerProvider(tmp_path).machines()


def test_a_store_that_no_container_reaches_is_refused_with_a_way_out() -> None:
    with pytest.raises(ConfigError, match="TLVM_STORE_URL"):
        store_access.check(StoreRef("s3://trees"))


def test_no_engine_is_an_error_that_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "docker.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CloudError, match="not installed"):
        DockerProvider(tmp_path).get("tlvm-any")
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    with pytest.raises(CloudError, match="not running"):
        DockerProvider(tmp_path).get("tlvm-any")


def test_a_socket_that_is_not_for_us_is_an_auth_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "docker.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        path.chmod(0)
        me = os.geteuid()
        if me == 0:
            os.seteuid(65534)  # root may open anything
        try:
            with pytest.raises(AuthError, match="permission denied"):
                DockerProvider(tmp_path).get("tlvm-any")
        finally:
            os.seteuid(me)


def test_an_engine_that_hangs_up_is_an_error_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "docker.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def hang_up() -> None:
            for _ in range(2):  # the knock, and the question for the version
                listening.accept()[0].close()

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        with pytest.raises(CloudError, match="Docker could not"):
            DockerProvider(tmp_path).get("tlvm-any")
        thread.join(timeout=10)
