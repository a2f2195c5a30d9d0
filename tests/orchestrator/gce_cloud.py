"""What the tests of the provider `gce` share: a fake Compute Engine, settings that lead there, and what to ask for."""

from __future__ import annotations

import uuid
from dataclasses import replace

from orchestrator.config import GceSettings
from orchestrator.providers.base import MachineSpec, Offer
from orchestrator.providers.gce import GceProvider
from orchestrator.providers.gce.operations import Waiting
from remote.contract.run_spec import StoreRef
from tests.fakes.compute_server import PROJECT, ComputeServer

PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFd0aGlzIGtleSBpcyBub2JvZHkncywgaXQgc3RhbmRz"
OFFER = Offer("us-central1-a", "nvidia-l4", 0.886, "g2-standard-8", "us-central1")


def gce_settings(server: ComputeServer, **more: object) -> GceSettings:
    given = {"project": PROJECT, "endpoint": server.url, "ssh_source_ranges": "203.0.113.7/32"} | more
    return GceSettings.model_validate(given)


def gce(server: ComputeServer, **more: object) -> GceProvider:
    """No pause is real: waiting moves the server's clock."""
    waiting = Waiting(now=lambda: server.clock.now().timestamp(), sleep=server.clock.advance)
    return GceProvider(gce_settings(server, **more), now=server.clock.now, waiting=waiting)


def wanted(**more: object) -> MachineSpec:
    spec = MachineSpec(
        name="tlvm-ana-trees",
        owner="ana",
        project="trees",
        public_key=PUBLIC_KEY,
        store=StoreRef("gs://trees-4711-tlvm"),
        max_hours=4,
        accelerator="l4",
        accelerator_count=1,
        idle_minutes=30,
        request_id=str(uuid.uuid4()),
    )
    return replace(spec, **more)  # type: ignore[arg-type]
