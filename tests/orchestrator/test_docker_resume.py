"""Runs in a container that is stopped, or killed, and started again; and in one that has not enough memory."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.providers.base import Machine
from remote.contract import document, layout
from remote.contract.run_spec import RunSpec
from remote.contract.start_request import StartRequest
from remote.contract.stored_checkpoints import LatestCheckpoints
from tests.conformance.providers import CASES, Place, eventually, place
from tests.docker_engine import engine
from tests.remote.machine import STANDIN, TestMachine

pytestmark = pytest.mark.docker

CASE = next(case for case in CASES if case.name == "docker")
REMOTE = Path(__file__).parents[2] / "remote"
BUNDLE = "b" * 64
TRAIN = """
import sys
from remote import standin
def main(spec_path, **hours):
    sys.argv = ["train", str(spec_path)]
    return standin.main()
"""
CRC32C = """
TABLE = []
for byte in range(256):
    for _ in range(8):
        byte = byte >> 1 ^ 0x82F63B78 * (byte & 1)
    TABLE.append(byte)

class Checksum:
    def __init__(self):
        self.value = 0xFFFFFFFF
    def update(self, data):
        for byte in bytes(data):
            self.value = self.value >> 8 ^ TABLE[(self.value ^ byte) & 255]
    def digest(self):
        return (self.value ^ 0xFFFFFFFF).to_bytes(4, "big")
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(CASE, tmp_path_factory.mktemp("docker")) as made:
        yield made


def bundle() -> bytes:
    """The code of machines with a stand-in as training, and a checksum that needs no wheel."""
    files = {f"remote/{path.relative_to(REMOTE)}": path.read_text() for path in REMOTE.rglob("*.py")}
    files |= {"remote/train.py": TRAIN, "remote/standin.py": STANDIN.read_text()}
    files |= {"site/google_crc32c.py": CRC32C, "READY": ""}
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return whole.getvalue()


def begin(here: Place, made: Machine, spec: RunSpec, says: str) -> None:
    """Until the log says something."""
    request = StartRequest(spec, 1, made.name, 3000.0, {"SECRET": "of-the-run"})
    code = f"~/.tlvm/bundles/{BUNDLE}"
    with here.reach(made.name) as connection:
        connection.check(f"umask 077; mkdir -p {code} && tar -x -C {code}", input=bundle())
        connection.check(
            f"cd {code} && PYTHONPATH=$PWD:$PWD/site python3 -m remote start -",
            input=document.encode(request).encode(),
        )
        log = f"~/.tlvm/runs/{spec.run_id}/log.txt"
        assert eventually(lambda: connection.run(f"grep -q '{says}' {log}").exit_code == 0)


def test_a_training_that_wants_more_memory_than_there_is_fails_with_the_reason(here: Place) -> None:
    """Killed by the kernel; supervisor and machine go on."""
    made = here.create(here.spec("hungry", memory_gb=1))
    remote = TestMachine(here.data_dir, made.name)
    spec = remote.spec("hungry", bundle=BUNDLE, store=made.store, machine=made.name)
    begin(here, made, spec, "training begins")
    assert eventually((remote.store / layout.run_key(spec.run_id, "MANIFEST.json")).exists, within_s=60)
    assert eventually(lambda: remote.stored_status(spec).published)
    status = remote.stored_status(spec)
    assert (status.state, status.exit_code) == ("FAILED", -9)
    assert "the machine ran out of memory" in status.message
    assert status.resources is not None and 500 < status.resources.peak_memory_mb < 1100
    assert "training begins" in status.log_tail
    here.provider.delete(made.name)


@pytest.mark.parametrize("politely", [True, False])
def test_a_run_survives_its_container(here: Place, politely: bool) -> None:
    made = here.create(here.spec(f"survives-{politely}".lower()))
    remote = TestMachine(here.data_dir, made.name)
    parameters = {"behaviour": "count", "to": 8, "hold": 5}
    spec = remote.spec("count", parameters=parameters, bundle=BUNDLE, store=made.store, machine=made.name)
    begin(here, made, spec, "counted 5")
    if politely:
        here.provider.stop(made.name)
        assert remote.stored_status(spec).state == "INTERRUPTED"
        text = (remote.store / layout.latest_checkpoints_key(spec.run_id)).read_bytes()
        latest = document.decode(LatestCheckpoints, text, what="latest")
        assert latest.files[0].name == "attempt-1/checkpoint-00000005.pt"
    else:
        with engine() as client:
            client.containers.get(made.id).kill()
    here.provider.start(made.name)
    manifest = remote.store / layout.run_key(spec.run_id, "MANIFEST.json")
    assert eventually(manifest.exists, within_s=60)
    assert eventually(lambda: remote.stored_status(spec).published, within_s=60)
    status = remote.stored_status(spec)
    assert status.state == "SUCCEEDED"
    assert [times.how for times in status.attempts] == ["INTERRUPTED" if politely else "KILLED", "SUCCEEDED"]
    counted = [row for row in remote.stored_stream(spec, "log").decode().splitlines() if "counted" in row]
    assert counted == [f"counted {number}" for number in range(1, 9)]
    assert "of-the-run" not in "".join(path.read_text(errors="replace") for path in remote.store.rglob("*") if path.is_file())  # fmt: skip
    here.provider.delete(made.name)
