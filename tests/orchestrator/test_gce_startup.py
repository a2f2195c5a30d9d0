"""The startup script, really run at every boot of a machine of the fake Compute Engine, with the guard that it starts."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.errors import NotFoundError
from orchestrator.providers import local_processes
from orchestrator.providers.base import Machine, MachineState
from orchestrator.providers.gce import GceProvider
from orchestrator.resources import folder
from remote.contract import layout
from tests.conformance.providers import eventually
from tests.fakes import compute_loopback
from tests.fakes.compute_server import ComputeServer
from tests.needs import lacks, need
from tests.orchestrator.gce_cloud import OFFER, gce, wanted
from tests.processes import living_with
from tests.remote.machine import TestMachine

RUN = "fixed-extractor-20260807-142530-k3qz"


class Booted:
    """A machine that has booted once."""

    def __init__(self, server: ComputeServer, disks: Path, **more: object) -> None:
        self.server = server
        self.provider: GceProvider = gce(server)
        self.made: Machine = self.provider.create(wanted(**more), OFFER)
        self.folder = disks / self.made.id
        self.home, self.system = self.folder / "home", self.folder / "system"

    @property
    def marker(self) -> Path:
        return self.home / ".tlvm" / "READY"

    def log(self) -> str:
        return (self.system / "var/log/tlvm-startup.log").read_text()

    def boot_again(self) -> None:
        self.provider.stop(self.made.name)
        self.provider.start(self.made.name)

    def guards(self) -> int:
        return len(living_with(str(self.system / "opt/tlvm/guard.py")))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ComputeServer]:
    need("loopback machines")
    with ComputeServer(compute_loopback.LoopbackHardware(tmp_path)) as running:
        yield running
        assert running.errors == []


def test_a_boot_publishes_the_host_key_starts_the_guard_and_leaves_the_marker(
    server: ComputeServer, tmp_path: Path
) -> None:
    machine = Booted(server, tmp_path)
    assert eventually(machine.marker.exists)
    published = machine.provider.host_keys(machine.made.name)
    assert published == [
        " ".join((machine.system / "etc/ssh/ssh_host_ed25519_key.pub").read_text().split()[:2])
    ]
    assert (machine.home / ".tlvm").stat().st_mode & 0o777 == 0o700
    assert "tlvm: host keys published" in machine.log() and "tlvm: guard started" in machine.log()
    assert eventually(lambda: "tlvm: ready" in machine.provider.said(machine.made.name))  # the serial console
    shipped = (folder("infra") / "gce" / "guard.py").read_text()
    assert (machine.system / "opt/tlvm/guard.py").read_text() == shipped
    assert eventually(lambda: machine.provider.soft_end(machine.made.name) is not None)
    assert machine.guards() == 1


def test_every_boot_is_the_same_and_what_was_active_goes_on(server: ComputeServer, tmp_path: Path) -> None:
    machine = Booted(server, tmp_path)
    assert eventually(machine.marker.exists)
    bundle = machine.home / ".tlvm/bundles" / ("b" * 64)
    (bundle / "remote").mkdir(parents=True)
    (bundle / "remote/__init__.py").touch()
    program = f"import sys; open({str(tmp_path / 'started')!r}, 'a').write(sys.argv[1] + '\\n')"
    (bundle / "remote/__main__.py").write_text(program)
    (bundle / "READY").touch()
    run = machine.home / ".tlvm/runs" / RUN
    run.mkdir(parents=True)
    (run / "spec.json").write_text(json.dumps({"bundle": "b" * 64}))
    (run / "status.json").write_text(json.dumps({"state": "INTERRUPTED", "published": False}))
    before = machine.marker.stat().st_ino, machine.provider.host_keys(machine.made.name)
    machine.boot_again()
    assert eventually(lambda: machine.log().count("tlvm: ready") == 2)
    assert (tmp_path / "started").read_text() == "resume\n"
    assert machine.provider.host_keys(machine.made.name) == before[1]
    assert eventually(lambda: machine.guards() == 1)


def test_a_machine_that_is_taken_away_has_its_run_in_the_store_within_its_notice(
    server: ComputeServer, tmp_path: Path
) -> None:
    """The guard hears of it at once; the run checkpoints, publishes and is INTERRUPTED."""
    machine = Booted(server, tmp_path, spot=True)
    assert eventually(lambda: machine.marker.exists() and machine.guards() == 1)
    remote = TestMachine(machine.folder, variables={local_processes.ID_VARIABLE: machine.made.id})
    spec = remote.spec("count", parameters={"behaviour": "count", "to": 8, "hold": 5})
    assert remote.start(spec, seconds_left=3600.0) == 0
    assert eventually(remote.log_says(spec, "counted 5"))
    server.instances.preempt(machine.made.name, notice_s=3600)
    assert eventually(lambda: remote.is_at_rest(spec))
    status = remote.stored_status(spec)
    assert (status.state, status.message) == ("INTERRUPTED", "the machine is being taken away")
    checkpoint = layout.checkpoint_key(spec.run_id, "attempt-1/checkpoint-00000005.pt")
    assert (remote.store / checkpoint).exists()
    assert (remote.store / layout.latest_checkpoints_key(spec.run_id)).exists()


def test_an_idle_machine_powers_itself_off_and_the_cloud_says_so(
    server: ComputeServer, tmp_path: Path
) -> None:
    machine = Booted(server, tmp_path, idle_minutes=1 / 30)
    off = MachineState.STOPPED

    def is_off() -> bool:
        found = machine.provider.get(machine.made.name)
        return found is not None and found.state is off

    assert eventually(is_off)
    assert "powered itself off" in machine.provider.said(machine.made.name)


def test_without_its_guard_a_machine_is_ready_and_says_what_is_missing(
    server: ComputeServer, tmp_path: Path
) -> None:
    machine = Booted(server, tmp_path)
    assert eventually(machine.marker.exists)
    (resource,) = server.cloud.resources["instances"].values()
    resource["metadata"]["items"] = [
        item for item in resource["metadata"]["items"] if item["key"] != "tlvm-guard"
    ]
    machine.boot_again()
    assert eventually(lambda: machine.log().count("tlvm: ready") == 2)
    assert "GUARD NOT STARTED" in machine.log()


def test_a_local_ssd_holds_what_can_be_fetched_again(server: ComputeServer, tmp_path: Path) -> None:
    """A real disk, as far as the kernel knows: a file behind a loop device, formatted and mounted by the script."""
    machine = Booted(server, tmp_path)
    assert eventually(machine.marker.exists)
    scratch, mounted = machine.system / "mnt/tlvm", machine.home / ".tlvm/packs"
    assert not mounted.is_symlink() and "scratch disk" not in machine.log()
    disk = machine.system / "dev/disk/by-id/google-local-nvme-ssd-0"
    disk.parent.mkdir(parents=True)
    with disk.open("wb") as file:
        file.truncate(16 * 1024 * 1024)
    if why := cannot_mount(disk, tmp_path / "try"):
        lacks(why)
    try:
        machine.boot_again()
        assert eventually(lambda: machine.log().count("tlvm: ready") == 2)
        assert f"tlvm: scratch disk {disk}" in machine.log()
        assert scratch.is_mount() and mounted.resolve() == scratch / "packs"
        (mounted / "some.tar").write_text("images")
        machine.boot_again()  # the power stayed on for the disk: what it holds is kept, and it is mounted once
        assert eventually(lambda: machine.log().count("tlvm: ready") == 3)
        assert (mounted / "some.tar").read_text() == "images"

        unmount(scratch)
        with disk.open("wb") as file:  # after a stop it is another, empty one
            file.truncate(16 * 1024 * 1024)
        machine.boot_again()
        assert eventually(lambda: machine.log().count("tlvm: ready") == 4)
        assert scratch.is_mount() and mounted.is_dir() and list(mounted.iterdir()) == []

        unmount(scratch)
        disk.write_bytes(b"no disk")
        machine.boot_again()
        assert eventually(lambda: machine.log().count("tlvm: ready") == 5)
        assert "the scratch disk can't be used" in machine.log()
        assert not mounted.is_symlink()  # what is fetched has a place on the other disk
    finally:
        if scratch.is_mount():
            unmount(scratch)


def cannot_mount(disk: Path, folder: Path) -> str:
    """Why no file can be mounted here; "" when it can, and then the disk is empty again."""
    if os.geteuid() != 0:
        return "mounting needs root"
    folder.mkdir()
    size = disk.stat().st_size
    commands: list[list[str | Path]] = [
        ["mkfs.ext4", "-q", "-F", disk],
        ["mount", disk, folder],
        ["umount", folder],
    ]
    for command in commands:
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=60)
        except (OSError, subprocess.CalledProcessError) as error:
            return f"a file can't be mounted here: {error}"
    with disk.open("wb") as file:
        file.truncate(size)
    return ""


def unmount(folder: Path) -> None:
    subprocess.run(["umount", folder], check=True, capture_output=True, timeout=60)


def test_nothing_of_a_machine_survives_it(server: ComputeServer, tmp_path: Path) -> None:
    machine = Booted(server, tmp_path)
    assert eventually(lambda: machine.marker.exists() and machine.guards() == 1)
    machine.provider.delete(machine.made.name)
    assert eventually(lambda: machine.provider.get(machine.made.name) is None)
    assert eventually(lambda: not living_with(str(machine.system)))
    with pytest.raises(NotFoundError):
        machine.provider.host_keys(machine.made.name)


# infra/gce/setup.sh, with a `gcloud` that writes down what it is asked

_GCLOUD = """#!/bin/sh
printf '%s\\n' "$*" >>"$ASKED"
case "$*" in
"config get-value account") echo ana@uni.example ;;
*describe*) [ -e "$ASKED.made" ] ;;
esac
"""


def asked_of_gcloud(tmp_path: Path, *arguments: str) -> list[str]:
    gcloud = tmp_path / "bin" / "gcloud"
    gcloud.parent.mkdir(exist_ok=True)
    gcloud.write_text(_GCLOUD)
    gcloud.chmod(0o755)
    asked = tmp_path / "asked"
    asked.unlink(missing_ok=True)
    script = folder("infra") / "gce" / "setup.sh"
    environment = {"PATH": f"{gcloud.parent}:/usr/bin:/bin", "ASKED": str(asked)}
    subprocess.run([script, *arguments], env=environment, check=True, capture_output=True, timeout=30)
    return asked.read_text().splitlines()


def test_the_account_of_the_machines_gets_the_least_it_needs(tmp_path: Path) -> None:
    asked = asked_of_gcloud(tmp_path, "trees-4711", "gs://trees-4711-tlvm/some/prefix")
    text = "\n".join(asked)
    assert "iam service-accounts create tlvm-machine --project=trees-4711" in text
    bindings = [line for line in asked if "buckets add-iam-policy-binding gs://trees-4711-tlvm " in line]
    reads = next(line for line in bindings if "objectViewer" in line)
    writes = next(line for line in bindings if "objectUser" in line)
    assert "--condition=None" in reads
    for prefix in ("runs/", "checkpoints/"):
        assert f'startsWith("projects/_/buckets/trees-4711-tlvm/objects/{prefix}")' in writes
    assert len(bindings) == 2
    (ends,) = [line for line in asked if line.startswith("projects add-iam-policy-binding")]
    assert 'startsWith("tlvm-")' in ends and "roles/tlvmMachineEnd" in ends
    assert "--permissions=compute.instances.delete " in text
    assert "roles/editor" not in text and "roles/owner" not in text
    assert "--member=user:ana@uni.example --role=roles/iam.serviceAccountUser" in text


def test_a_second_time_creates_nothing(tmp_path: Path) -> None:
    (tmp_path / "asked.made").touch()
    asked = asked_of_gcloud(tmp_path, "trees-4711", "trees-4711-tlvm")
    assert not any(" create " in line for line in asked)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        asked_of_gcloud(tmp_path, "trees-4711")
    assert caught.value.returncode == 2
