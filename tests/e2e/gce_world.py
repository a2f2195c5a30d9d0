"""Google Cloud for the command line: the fake Compute Engine with machines that boot, the fake bucket, and `tlvm` told of both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.command import Tlvm
from tests.fakes.compute_cloud import Clock
from tests.fakes.compute_hardware import Hardware
from tests.fakes.compute_server import PROJECT, ComputeServer
from tests.fakes.gcs_server import GcsServer

BUCKET = "trees-4711-tlvm"
OWNER = "ana"
MACHINE = "tlvm-ana-trees"

SETTINGS = (
    f"""provider = "gce"
owner = "{OWNER}"

[machine]
name = "{MACHINE}"
accelerator = "none"

[gce]
project = "{PROJECT}"
zones = ["us-central1-a", "us-central1-b"]
ssh_source_ranges = ["203.0.113.7/32"]
"""
    """endpoint = "{cloud}"

[store]
url = "{bucket}"
endpoint = "{storage}"
"""
)


@dataclass(frozen=True)
class World:
    tlvm: Tlvm
    cloud: ComputeServer
    bucket: GcsServer

    def instances(self) -> list[dict[str, Any]]:
        """What exists, and costs money."""
        return list(self.cloud.cloud.resources["instances"].values())

    def left_over(self) -> list[str]:
        """Instances and disks."""
        kinds = self.cloud.cloud.resources
        return [name for kind in ("instances", "disks") for _, name in kinds[kind]]

    def inserts(self) -> list[dict[str, Any]]:
        """The body of every request that would make a machine."""
        return [request.body for request in self.cloud.requests if request.call == "instances.insert"]


@contextmanager
def world(
    home: Path,
    hardware: Hardware | None = None,
    *,
    bucket: GcsServer | None = None,
    address: str = "127.0.0.1",
    clock: Clock | None = None,
    variables: Mapping[str, str] | None = None,
) -> Iterator[World]:
    """A user's project folder with a `tlvm.toml`, and a cloud of its own.

    address      of this computer, as machines see it
    variables    more settings, as environment variables
    """
    addresses = tuple(dict.fromkeys(("127.0.0.1", address)))
    with bucket or GcsServer(addresses) as storage, ComputeServer(hardware, clock=clock) as cloud:
        tlvm = Tlvm(home, variables=dict(variables or {}))
        text = SETTINGS.format(
            bucket=storage.create_bucket(BUCKET), storage=storage.endpoint_at(address), cloud=cloud.url
        )
        (tlvm.folder / "tlvm.toml").write_text(text)
        yield World(tlvm, cloud, storage)
        assert cloud.errors == []
        assert storage.errors == []
