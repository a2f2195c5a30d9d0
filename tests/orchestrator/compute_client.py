"""Google's own client library against the fake Compute Engine, and an instance to ask for."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from google.auth.credentials import AnonymousCredentials, Credentials
from google.cloud import compute_v1 as compute

from tests.fakes.compute_server import PROJECT, ComputeServer

ZONE = "us-central1-a"
PLACE = {"project": PROJECT, "zone": ZONE}
IMAGE = "projects/deeplearning-platform-release/global/images/family/pytorch-2-9-cu129-ubuntu-2404-nvidia-580"


@dataclass
class Client:
    """The library polls operations at Google's own address whatever endpoint it is given: so `*_unary` and `wait`."""

    server: ComputeServer
    credentials: Credentials = field(default_factory=AnonymousCredentials)

    def of(self, kind: str) -> Any:
        options = {"api_endpoint": self.server.url}
        return getattr(compute, f"{kind}Client")(credentials=self.credentials, client_options=options)

    @cached_property
    def instances(self) -> Any:
        return self.of("Instances")

    @cached_property
    def operations(self) -> Any:
        return self.of("ZoneOperations")

    def insert(self, request_id: str = "", **more: Any) -> Any:
        """Accepted, and waited for; the operation as it ended."""
        resource = instance(**more)
        request = compute.InsertInstanceRequest(**PLACE, instance_resource=resource)
        if request_id:
            request.request_id = request_id
        return self.finish(self.instances.insert_unary(request, timeout=5))

    def finish(self, operation: compute.Operation) -> Any:
        return self.operations.wait(**PLACE, operation=operation.name)

    def get(self, name: str = "tlvm-a") -> Any:
        return self.instances.get(**PLACE, instance=name)

    def act(self, verb: str, name: str = "tlvm-a", **more: Any) -> Any:
        return self.finish(getattr(self.instances, f"{verb}_unary")(**PLACE, instance=name, **more))


def instance(
    name: str = "tlvm-a",
    machine_type: str = "g2-standard-8",
    scheduling: dict[str, Any] | None = None,
    disk_gb: int = 200,
    image: str = IMAGE,
    account: str = f"tlvm-machine@{PROJECT}.iam.gserviceaccount.com",
    metadata: dict[str, str] | None = None,
    **more: Any,
) -> compute.Instance:
    wanted = scheduling if scheduling is not None else standard()
    return compute.Instance(
        name=name,
        machine_type=f"zones/{ZONE}/machineTypes/{machine_type}",
        labels={"tlvm-owner": "ana"},
        disks=[
            compute.AttachedDisk(
                boot=True,
                auto_delete=True,
                initialize_params=compute.AttachedDiskInitializeParams(
                    source_image=image, disk_size_gb=disk_gb, disk_type=f"zones/{ZONE}/diskTypes/pd-balanced"
                ),
            )
        ],
        network_interfaces=[
            compute.NetworkInterface(
                network="global/networks/default",
                access_configs=[compute.AccessConfig(type_="ONE_TO_ONE_NAT", name="External NAT")],
            )
        ],
        scheduling=compute.Scheduling(**wanted),
        metadata=compute.Metadata(
            items=[
                compute.Items(key=key, value=value)
                for key, value in {"enable-guest-attributes": "TRUE", **(metadata or {})}.items()
            ]
        ),
        service_accounts=[
            compute.ServiceAccount(email=account, scopes=["https://www.googleapis.com/auth/cloud-platform"])
        ],
        **more,
    )


def standard(seconds: int = 3600, **more: Any) -> dict[str, Any]:
    return {
        "on_host_maintenance": "TERMINATE",
        "automatic_restart": False,
        "instance_termination_action": "DELETE",
        "max_run_duration": compute.Duration(seconds=seconds),
    } | more


def spot(**more: Any) -> dict[str, Any]:
    return standard(provisioning_model="SPOT", **more)
