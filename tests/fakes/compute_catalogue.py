"""What the fake Compute Engine offers: zones, machine and accelerator types, images, quotas, the default network.

A small, fixed part of the real offer, in the shapes of the real answers. Names, sizes and what hangs on what are real;
which zone has what, and the quotas, are only plausible.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Resource = dict[str, Any]

LINK = "https://www.googleapis.com/compute/v1/"
DEEP_LEARNING = "deeplearning-platform-release"

ZONES = {
    "us-central1": "abcf", "us-east4": "abc", "us-west1": "abc", "europe-west1": "bcd", "europe-west4": "abc",
}  # fmt: skip


@dataclass(frozen=True)
class Accelerator:
    title: str
    zones: tuple[str, ...]
    quota: str  # "" where regions don't tell it
    most: int


ACCELERATORS = {
    "nvidia-tesla-t4": Accelerator(
        "NVIDIA T4",
        ("us-central1-a", "us-central1-b", "us-central1-c", "us-central1-f", "us-west1-a", "europe-west4-b"),
        "NVIDIA_T4_GPUS",
        4,
    ),
    "nvidia-tesla-p100": Accelerator("NVIDIA Tesla P100", ("us-central1-c",), "NVIDIA_P100_GPUS", 4),
    "nvidia-tesla-v100": Accelerator("NVIDIA V100", ("us-central1-a",), "NVIDIA_V100_GPUS", 8),
    "nvidia-l4": Accelerator(
        "NVIDIA L4",
        ("us-central1-a", "us-central1-b", "us-central1-c", "us-east4-a", "us-east4-c", "us-west1-a",
         "europe-west4-a", "europe-west4-b", "europe-west1-b"),
        "NVIDIA_L4_GPUS",
        8,
    ),
    "nvidia-tesla-a100": Accelerator(
        "NVIDIA A100 40GB", ("us-central1-a", "us-central1-f", "europe-west4-a"), "NVIDIA_A100_GPUS", 16
    ),
    "nvidia-a100-80gb": Accelerator(
        "NVIDIA A100 80GB", ("us-central1-a", "us-east4-c"), "NVIDIA_A100_80GB_GPUS", 8
    ),
    "nvidia-h100-80gb": Accelerator("NVIDIA H100 80GB", ("us-central1-a", "us-east4-a"), "", 8),
}  # fmt: skip


@dataclass(frozen=True)
class Type:
    cpus: int
    memory_gb: float
    accelerator: str = ""
    count: int = 0
    shared: bool = False


TYPES = {
    **{f"n1-standard-{n}": Type(n, n * 3.75) for n in (1, 2, 4, 8, 16, 32)},
    **{f"n1-highmem-{n}": Type(n, n * 6.5) for n in (2, 4, 8, 16)},
    **{f"e2-standard-{n}": Type(n, n * 4) for n in (2, 4, 8, 16)},
    **{f"n2-standard-{n}": Type(n, n * 4) for n in (2, 4, 8)},
    "f1-micro": Type(1, 0.6, shared=True),
    "g1-small": Type(1, 1.7, shared=True),
    "e2-micro": Type(2, 1, shared=True),
    "e2-medium": Type(2, 4, shared=True),
    **{f"g2-standard-{n}": Type(n, n * 4, "nvidia-l4", max(n // 12, 1)) for n in (4, 8, 12, 16, 24, 48, 96)},
    "g2-standard-32": Type(32, 128, "nvidia-l4", 1),
    **{f"a2-highgpu-{n}g": Type(n * 12, n * 85, "nvidia-tesla-a100", n) for n in (1, 2, 4, 8)},
    **{f"a2-ultragpu-{n}g": Type(n * 12, n * 170, "nvidia-a100-80gb", n) for n in (1, 2)},
    **{f"a3-highgpu-{n}g": Type(n * 26, n * 234, "nvidia-h100-80gb", n) for n in (1, 2, 4, 8)},
}
DISK_TYPES = ("pd-standard", "pd-balanced", "pd-ssd", "hyperdisk-balanced", "local-ssd")

# project: (image, family, GB, creation, state); as Google lists them, the newest last
IMAGES = {
    DEEP_LEARNING: [
        ("pytorch-2-4-cu124-ubuntu-2204-py310-v20250325", "pytorch-2-4-cu124-ubuntu-2204-py310", 50, "2025-03-25", "OBSOLETE"),
        ("pytorch-2-7-cu128-ubuntu-2204-nvidia-570-v20251210", "pytorch-2-7-cu128-ubuntu-2204-nvidia-570", 50, "2025-12-10", "DEPRECATED"),
        ("common-cu129-ubuntu-2204-nvidia-580-v20260416", "common-cu129-ubuntu-2204-nvidia-580", 50, "2026-04-16", ""),
        ("common-cu129-ubuntu-2404-nvidia-580-v20260416", "common-cu129-ubuntu-2404-nvidia-580", 50, "2026-04-16", ""),
        ("pytorch-2-9-cu129-ubuntu-2204-nvidia-580-v20260416", "pytorch-2-9-cu129-ubuntu-2204-nvidia-580", 50, "2026-04-16", ""),
        ("pytorch-2-9-cu129-ubuntu-2404-nvidia-580-v20260121", "pytorch-2-9-cu129-ubuntu-2404-nvidia-580", 50, "2026-01-21", "DEPRECATED"),
        ("pytorch-2-9-cu129-ubuntu-2404-nvidia-580-v20260416", "pytorch-2-9-cu129-ubuntu-2404-nvidia-580", 50, "2026-04-16", ""),
    ],
    "ubuntu-os-cloud": [("ubuntu-2404-noble-amd64-v20260915", "ubuntu-2404-lts-amd64", 10, "2026-09-15", "")],
    "debian-cloud": [
        ("debian-12-bookworm-v20261015", "debian-12", 10, "2026-10-15", ""),
        ("debian-13-trixie-v20261015", "debian-13", 10, "2026-10-15", ""),
    ],
}  # fmt: skip

REGION_QUOTAS = {
    "CPUS": 200, "DISKS_TOTAL_GB": 40960, "SSD_TOTAL_GB": 10240, "IN_USE_ADDRESSES": 8, "STATIC_ADDRESSES": 8,
    "INSTANCES": 240, "A2_CPUS": 96, "PREEMPTIBLE_CPUS": 0, "LOCAL_SSD_TOTAL_GB": 6000, "NVIDIA_T4_GPUS": 4,
    "NVIDIA_P100_GPUS": 1, "NVIDIA_V100_GPUS": 1, "NVIDIA_L4_GPUS": 4, "NVIDIA_A100_GPUS": 4,
    "NVIDIA_A100_80GB_GPUS": 2, "PREEMPTIBLE_NVIDIA_T4_GPUS": 4, "PREEMPTIBLE_NVIDIA_P100_GPUS": 1,
    "PREEMPTIBLE_NVIDIA_V100_GPUS": 1, "PREEMPTIBLE_NVIDIA_L4_GPUS": 4, "PREEMPTIBLE_NVIDIA_A100_GPUS": 4,
    "PREEMPTIBLE_NVIDIA_A100_80GB_GPUS": 2, "PREEMPTIBLE_NVIDIA_H100_GPUS": 8,
}  # fmt: skip
PROJECT_QUOTAS = {
    "GPUS_ALL_REGIONS": 8, "CPUS_ALL_REGIONS": 400, "NETWORKS": 5, "FIREWALLS": 100, "SNAPSHOTS": 1000, "IMAGES": 2000,
}  # fmt: skip


def link(project: str, scope: str, collection: str, name: str) -> str:
    """scope   "global", "zones/us-central1-a", "regions/us-central1", or "" for zones and regions themselves"""
    return LINK + "/".join(part for part in ("projects", project, scope, collection, name) if part)


def offered(project: str) -> dict[str, dict[tuple[str, str], Resource]]:
    """All that is there before anybody made anything: collection -> (scope, name) -> resource."""
    zones = {f"{region}-{letter}": region for region, letters in ZONES.items() for letter in letters}
    found: dict[str, dict[tuple[str, str], Resource]] = {
        "regions": {("", region): _region(project, region) for region in ZONES},
        "zones": {("", zone): _zone(project, zone, region) for zone, region in zones.items()},
        "machineTypes": {
            (f"zones/{zone}", name): _machine_type(project, zone, name, kind)
            for zone in zones
            for name, kind in TYPES.items()
            if not kind.accelerator or zone in ACCELERATORS[kind.accelerator].zones
        },
        "acceleratorTypes": {
            (f"zones/{zone}", name): _accelerator_type(project, zone, name, kind)
            for zone in zones
            for name, kind in ACCELERATORS.items()
            if zone in kind.zones
        },
        "diskTypes": {
            (f"zones/{zone}", name): _in_zone(project, zone, "diskTypes", "diskType", name)
            for zone in zones
            for name in DISK_TYPES
        },
        "networks": {("global", "default"): _network(project)},
        "subnetworks": {(f"regions/{region}", "default"): _subnetwork(project, region) for region in ZONES},
    }
    found["firewalls"] = {("global", rule["name"]): rule for rule in _firewalls(project)}
    for collection in found.values():
        for number, resource in enumerate(collection.values(), 1000):
            resource["id"] = str(number)
            resource.setdefault("creationTimestamp", "1969-12-31T16:00:00.000-08:00")
    return found


def images() -> dict[str, dict[tuple[str, str], Resource]]:
    """project -> (scope, name) -> image"""
    return {
        project: {("global", image[0]): _image(project, *image) for image in found}
        for project, found in IMAGES.items()
    }


def _image(project: str, name: str, family: str, size_gb: int, created: str, state: str) -> Resource:
    image = {
        "kind": "compute#image",
        "id": str(sum(name.encode())),
        "name": name,
        "family": family,
        "creationTimestamp": f"{created}T03:00:00.000-07:00",
        "selfLink": link(project, "global", "images", name),
        "diskSizeGb": str(size_gb),
        "status": "READY",
        "architecture": "X86_64",
        "sourceType": "RAW",
    }
    return image | ({"deprecated": {"state": state}} if state else {})


def _region(project: str, region: str) -> Resource:
    return {
        "kind": "compute#region",
        "name": region,
        "status": "UP",
        "selfLink": link(project, "", "regions", region),
        "zones": [link(project, "", "zones", f"{region}-{letter}") for letter in ZONES[region]],
    }


def _zone(project: str, zone: str, region: str) -> Resource:
    return {
        "kind": "compute#zone",
        "name": zone,
        "status": "UP",
        "region": link(project, "", "regions", region),
        "selfLink": link(project, "", "zones", zone),
        "availableCpuPlatforms": ["Intel Skylake", "Intel Cascade Lake"],
    }


def _in_zone(project: str, zone: str, collection: str, kind: str, name: str) -> Resource:
    return {
        "kind": f"compute#{kind}",
        "name": name,
        "description": name,
        "zone": zone if kind == "machineType" else link(project, "", "zones", zone),
        "selfLink": link(project, f"zones/{zone}", collection, name),
    }


def _machine_type(project: str, zone: str, name: str, kind: Type) -> Resource:
    made = _in_zone(project, zone, "machineTypes", "machineType", name)
    made |= {
        "guestCpus": kind.cpus,
        "memoryMb": int(kind.memory_gb * 1024),
        "isSharedCpu": kind.shared,
        "maximumPersistentDisks": 128,
        "maximumPersistentDisksSizeGb": "263168",
        "imageSpaceGb": 0,
        "architecture": "X86_64",
    }
    if kind.accelerator:
        made["accelerators"] = [
            {"guestAcceleratorType": kind.accelerator, "guestAcceleratorCount": kind.count}
        ]
    return made


def _accelerator_type(project: str, zone: str, name: str, kind: Accelerator) -> Resource:
    made = _in_zone(project, zone, "acceleratorTypes", "acceleratorType", name)
    return made | {"description": kind.title, "maximumCardsPerInstance": kind.most}


def _network(project: str) -> Resource:
    return {
        "kind": "compute#network",
        "name": "default",
        "description": "Default network for the project",
        "selfLink": link(project, "global", "networks", "default"),
        "autoCreateSubnetworks": True,
        "subnetworks": [link(project, f"regions/{region}", "subnetworks", "default") for region in ZONES],
        "routingConfig": {"routingMode": "REGIONAL"},
    }


def _firewalls(project: str) -> list[Resource]:
    """What the default network comes with: SSH is open to everybody."""
    rules = {
        "default-allow-icmp": ("0.0.0.0/0", [{"IPProtocol": "icmp"}]),
        "default-allow-internal": (
            "10.128.0.0/9",
            [{"IPProtocol": name, "ports": ["0-65535"]} for name in ("tcp", "udp")],
        ),
        "default-allow-rdp": ("0.0.0.0/0", [{"IPProtocol": "tcp", "ports": ["3389"]}]),
        "default-allow-ssh": ("0.0.0.0/0", [{"IPProtocol": "tcp", "ports": ["22"]}]),
    }
    return [
        {
            "kind": "compute#firewall",
            "name": name,
            "network": link(project, "global", "networks", "default"),
            "selfLink": link(project, "global", "firewalls", name),
            "direction": "INGRESS",
            "priority": 65534,
            "disabled": False,
            "sourceRanges": [source],
            "allowed": allowed,
        }
        for name, (source, allowed) in rules.items()
    ]


def _subnetwork(project: str, region: str) -> Resource:
    return {
        "kind": "compute#subnetwork",
        "name": "default",
        "network": link(project, "global", "networks", "default"),
        "region": link(project, "", "regions", region),
        "selfLink": link(project, f"regions/{region}", "subnetworks", "default"),
        "ipCidrRange": f"10.{128 + 4 * list(ZONES).index(region)}.0.0/20",
        "privateIpGoogleAccess": False,
        "purpose": "PRIVATE",
        "stackType": "IPV4_ONLY",
    }
