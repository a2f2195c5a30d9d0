"""The bundle: what it holds for which machine, and how it gets there."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from orchestrator import bundle
from orchestrator.bundle import Bundle, MachinePython
from orchestrator.errors import CloudError, ConfigError
from orchestrator.progress import Silent
from orchestrator.resources import folder
from orchestrator.stores import open_store
from remote.contract import layout
from remote.contract.run_spec import StoreRef

DEBIAN = MachinePython(
    python=(3, 13),
    implementation="cpython",
    executable="/usr/bin/python3",
    system="Linux",
    machine="x86_64",
    libc=("glibc", "2.41"),
    modules={"torch": "2.6.0", "torchvision": "0.21.0", "numpy": "2.2.4", "PIL": "11.1.0"},
    bundles=frozenset(),
)
COMPLETE = dataclasses.replace(
    DEBIAN, modules={**DEBIAN.modules, "safetensors": "0.8.0", "google_crc32c": "1.9.0"}
)


class HomeShell:
    """A machine without SSH: its shell is ours, with another home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {
            **os.environ,
            "HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        }

    def check(self, command: str, *, input: bytes | None = None, timeout_s: float = 60) -> bytes:
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            env=self.environment,
            cwd=self.home,
            input=input or b"",
            capture_output=True,
            timeout=timeout_s,
        )
        if done.returncode != 0:
            raise CloudError(done.stderr.decode())
        return done.stdout

    def put(self, path: Path, remote_path: str) -> None:
        (self.home / remote_path).write_bytes(path.read_bytes())


@pytest.fixture
def shell(tmp_path: Path) -> HomeShell:
    home = tmp_path / "home"
    home.mkdir()
    return HomeShell(home)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests of this file, so that each wheel is fetched once."""
    return tmp_path_factory.mktemp("cache")


def built(about: MachinePython, cache: Path, *, provider: str = "docker", bucket: bool = False) -> Bundle:
    return bundle.build(about, provider=provider, bucket=bucket, cache=cache, progress=Silent())


def names(made: Bundle) -> list[str]:
    with tarfile.open(made.path) as archive:
        return archive.getnames()


def test_a_complete_machine_gets_the_sources_alone(cache: Path) -> None:
    made = built(COMPLETE, cache)
    held = names(made)
    assert "install.py" in held
    assert "remote/__main__.py" in held
    assert "remote/contract/run_spec.py" in held
    assert not [name for name in held if name.endswith((".whl", ".pyc"))]


def test_the_same_sources_give_the_same_bytes_named_by_their_hash(cache: Path, tmp_path: Path) -> None:
    first, second = built(COMPLETE, cache), built(COMPLETE, tmp_path)
    assert first.hash == second.hash == hashlib.sha256(second.path.read_bytes()).hexdigest()
    with tarfile.open(second.path) as archive:
        assert {(entry.mtime, entry.uid, entry.uname, entry.mode) for entry in archive} == {(0, 0, "", 0o644)}


def test_debian_gets_the_wheels_that_it_lacks(cache: Path) -> None:
    wheels = [name for name in names(built(DEBIAN, cache)) if name.endswith(".whl")]
    assert [name.split("-")[0] for name in wheels] == ["wheels/google_crc32c", "wheels/safetensors"]
    assert "cp313" in wheels[0]
    assert all("x86_64" in name for name in wheels)


def test_another_python_and_processor_get_others(cache: Path) -> None:
    arm = dataclasses.replace(DEBIAN, machine="aarch64", python=(3, 10), libc=("glibc", "2.31"))
    wheels = [name for name in names(built(arm, cache)) if name.endswith(".whl")]
    assert "cp310" in wheels[0]
    assert all("aarch64" in name for name in wheels)


def test_a_bucket_needs_google_cloud_storage_too(cache: Path) -> None:
    wheels = {
        name.split("-")[0] for name in names(built(COMPLETE, cache, bucket=True)) if name.endswith(".whl")
    }
    assert {"wheels/google_cloud_storage", "wheels/google_crc32c", "wheels/requests"} <= wheels
    has_it = dataclasses.replace(COMPLETE, modules={**COMPLETE.modules, "google.cloud.storage": "3.1.0"})
    assert built(has_it, cache, bucket=True).hash == built(COMPLETE, cache).hash


def test_torch_never_travels(cache: Path) -> None:
    lacking = dataclasses.replace(COMPLETE, modules={"numpy": "2.0.0"})
    with pytest.raises(ConfigError, match=r"tlvm\[train\]"):
        built(lacking, cache, provider="local")
    with pytest.raises(CloudError, match="lacks torch, torchvision, PIL"):
        built(lacking, cache)


def test_what_is_too_old_is_named(cache: Path) -> None:
    old = dataclasses.replace(COMPLETE, modules={**COMPLETE.modules, "torch": "2.4.1+cu121"})
    with pytest.raises(CloudError, match=r"torch is 2\.4\.1\+cu121, tlvm needs 2\.6"):
        built(old, cache)
    with pytest.raises(CloudError, match=r"Python 3\.9"):
        built(dataclasses.replace(COMPLETE, python=(3, 9)), cache)
    with pytest.raises(CloudError, match="no wheels for it"):
        built(dataclasses.replace(DEBIAN, python=(3, 14)), cache)


def test_wheels_are_pinned_with_hashes_and_name_no_index() -> None:
    text = (folder("infra") / "bundle" / "wheels.txt").read_text()
    assert "://" not in text
    listed = bundle._listed()
    assert set(listed["always"]) == {"safetensors", "google-crc32c"}
    assert "google-cloud-storage" in listed["google"]
    for group in listed.values():
        assert all("--hash=sha256:" in line for line in group.values())
    assert not {"torch", "torchvision", "numpy", "pillow"} & {
        name for group in listed.values() for name in group
    }


def test_the_machine_is_asked_and_answers(shell: HomeShell) -> None:
    about = bundle.ask(shell)
    assert about.python == sys.version_info[:2]
    assert about.modules["google_crc32c"]
    assert about.bundles == frozenset()


def test_a_machine_that_answers_nonsense_is_an_error(shell: HomeShell, tmp_path: Path) -> None:
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "python3").write_text("#!/bin/sh\necho '[1, 2]'\n")
    (fake / "python3").chmod(0o755)
    shell.environment["PATH"] = f"{fake}:/usr/bin:/bin"
    with pytest.raises(CloudError, match="no sensible answer"):
        bundle.ask(shell)


def test_installed_once_and_run_from_there(shell: HomeShell, cache: Path) -> None:
    made = built(COMPLETE, cache)
    assert bundle.install(shell, made, bundle.ask(shell))
    about = bundle.ask(shell)
    assert about.bundles == {made.hash}
    assert not bundle.install(shell, made, about)
    assert [path.name for path in (shell.home / ".tlvm" / "bundles").iterdir()] == [made.hash]
    assert (shell.home / ".tlvm" / "bundles").stat().st_mode & 0o777 == 0o700
    said = shell.check(bundle.command(made.hash, "status"))
    assert json.loads(said) == {"schema": 1, "runs": [], "damaged": []}


def test_the_sources_that_run_are_those_of_the_bundle(shell: HomeShell, cache: Path) -> None:
    made = built(COMPLETE, cache)
    bundle.install(shell, made, bundle.ask(shell))
    where = shell.check(
        bundle.command(made.hash).replace("-m remote", "-c 'import remote; print(remote.__file__)'")
    )
    assert where.decode().startswith(str(shell.home / ".tlvm" / "bundles" / made.hash / "remote"))


def test_installing_twice_at_once_is_fine(shell: HomeShell, cache: Path) -> None:
    made, about = built(COMPLETE, cache), bundle.ask(shell)
    assert bundle.install(shell, made, about)
    assert bundle.install(shell, made, about), "the other laptop asked before the first one had installed it"
    assert [path.name for path in (shell.home / ".tlvm" / "bundles").iterdir()] == [made.hash]


def test_a_half_installed_folder_is_replaced(shell: HomeShell, cache: Path) -> None:
    made = built(COMPLETE, cache)
    (shell.home / ".tlvm" / "bundles" / made.hash / "remote").mkdir(parents=True)
    assert bundle.install(shell, made, bundle.ask(shell))
    assert bundle.ask(shell).bundles == {made.hash}


def test_a_bundle_damaged_on_its_way_is_refused(shell: HomeShell, cache: Path, tmp_path: Path) -> None:
    made = built(COMPLETE, cache)
    cut = tmp_path / "cut.tar"
    cut.write_bytes(made.path.read_bytes()[:-1024])
    with pytest.raises(CloudError, match="damaged on its way"):
        bundle.install(shell, Bundle(made.hash, cut), bundle.ask(shell))
    assert list((shell.home / ".tlvm" / "bundles").iterdir()) == []


@pytest.mark.parametrize("name", ["../outside.py", "/outside.py", "remote/../../outside.py"])
@pytest.mark.parametrize("kind", ["tar", "wheel"])
def test_no_path_leaves_the_bundle(shell: HomeShell, tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / "bad.tar"
    with tarfile.open(path, "w") as archive:
        data, member = b"hostile", name
        if kind == "wheel":
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w") as wheel:
                wheel.writestr(name, data)
            data, member = packed.getvalue(), "wheels/bad-1-py3-none-any.whl"
        entry = tarfile.TarInfo(member)
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(CloudError, match="leaves its folder"):
        bundle.install(shell, Bundle(digest, path), bundle.ask(shell))
    assert not list(tmp_path.rglob("outside.py"))
    assert not Path("/outside.py").exists()


def test_wheels_are_unpacked_where_python_finds_them(shell: HomeShell, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as wheel:
        wheel.writestr("tlvm_probe.py", "SAYS = 'found'")
        wheel.writestr("x-1.data/purelib/tlvm_other.py", "SAYS = 'too'")
        wheel.writestr("x-1.data/scripts/tool", "no script is wanted")
    path = tmp_path / "good.tar"
    with tarfile.open(path, "w") as archive:
        for name, data in (("remote/__init__.py", b""), ("wheels/x-1-py3-none-any.whl", packed.getvalue())):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    made = Bundle(hashlib.sha256(path.read_bytes()).hexdigest(), path)
    bundle.install(shell, made, bundle.ask(shell))
    ask = "-c 'import tlvm_probe, tlvm_other; print(tlvm_probe.SAYS, tlvm_other.SAYS)'"
    assert shell.check(bundle.command(made.hash).replace("-m remote", ask)) == b"found too\n"
    site = shell.home / ".tlvm" / "bundles" / made.hash / "site"
    assert sorted(path.name for path in site.iterdir() if path.suffix == ".py") == [
        "tlvm_other.py",
        "tlvm_probe.py",
    ]


def test_the_store_keeps_it_once(cache: Path, tmp_path: Path) -> None:
    made = built(COMPLETE, cache)
    store = open_store(StoreRef(str(tmp_path / "store")))
    bundle.keep(store, made)
    first = store.get(layout.bundle_key(made.hash))
    bundle.keep(store, made)
    assert first
    assert store.get(layout.bundle_key(made.hash)) == first


def test_arguments_reach_the_machine_as_they_are(shell: HomeShell, cache: Path) -> None:
    made = built(COMPLETE, cache)
    said = bundle.command(made.hash, "follow", "a b;$(touch x)'")
    assert said.endswith("python3 -m remote follow 'a b;$(touch x)'\"'\"''")
