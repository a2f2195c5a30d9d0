"""The one request that makes a machine, as data: what `tlvm up` sends is what `tlvm up --dry-run` prints.

It already holds everything that keeps its user safe: labels, the hard clock with deletion at its end, an auto-deleted
disk, a key of this computer only, a service account with the least rights, and the startup script with the idle guard.
Nothing that matters is armed later.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.config import GceSettings
from orchestrator.providers.base import MachineSpec, Offer
from orchestrator.providers.keys import checked_key
from orchestrator.resources import folder

USER = "tlvm"  # who logs in; the startup script and Google's guest agent make the account
TAG = "tlvm"  # what the firewall rules are about
LABEL = "tlvm-machine"  # carries the machine's name; an instance without it is not ours
OWNER, PROJECT, EXPIRES, ATTEMPT = "tlvm-owner", "tlvm-project", "tlvm-expires", "tlvm-attempt"
ABOUT = "tlvm-about"  # metadata: what labels are too short for, as JSON
LOGIN_USER = "tlvm-user"  # metadata: who logs in
KEEP_UNTIL = "tlvm-keep-until"  # metadata: the guard ends nothing before; seconds since 1970
SHORTEST_S = 30  # the cloud takes no shorter life
_DISK_GB = 200  # where the user says nothing
ATTACHED = "n1-"  # to these machine types a GPU is added; the others come with theirs

_HYPERDISK = (
    "c4",
    "n4",
    "g4",
    "a4",
    "a3-ultragpu",
    "a3-edgegpu",
)  # machine types that take no persistent disk
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


@dataclass(frozen=True)
class Insert:
    project: str
    zone: str
    request_id: str
    body: Mapping[str, Any]  # an Instance of the API

    @property
    def path(self) -> str:
        return f"projects/{self.project}/zones/{self.zone}/instances"


@dataclass(frozen=True)
class Image:
    """What the disk is made from."""

    link: str  # "projects/deeplearning-platform-release/global/images/NAME"
    family: str
    disk_gb: int  # no disk may be smaller


def insert(
    spec: MachineSpec,
    offer: Offer,
    image: Image,
    settings: GceSettings,
    project: str,
    now: datetime,
    *,
    user: str = USER,
) -> Insert:
    """The request for this machine in this place. Pure: asks nobody, but reads the shipped scripts.

    user    who logs in; with OS Login another one
    """
    hours = spec.hours(offer.price_per_hour)
    ends = now + timedelta(hours=hours)
    marks = labels(spec, ends)
    body: dict[str, Any] = {
        "name": spec.name,
        "description": f"Made by tlvm for {spec.owner}; ends at {ends.astimezone(UTC):%Y-%m-%d %H:%M} UTC.",
        "machineType": f"zones/{offer.place}/machineTypes/{offer.machine_type}",
        "labels": marks,
        "tags": {"items": tags(spec.owner)},
        "disks": [
            {
                "boot": True,
                "autoDelete": True,
                "initializeParams": {
                    "sourceImage": image.link,
                    "diskSizeGb": str(disk_gb(spec, image)),
                    "diskType": f"zones/{offer.place}/diskTypes/{disk_type(settings, offer.machine_type)}",
                    "labels": marks,
                },
            }
        ],
        "networkInterfaces": [_network(settings, project, offer.region)],
        "serviceAccounts": [{"email": service_account(settings, project), "scopes": [_SCOPE]}],
        "scheduling": scheduling(hours * 3600, spot=spec.spot),
        "shieldedInstanceConfig": {
            "enableSecureBoot": False,  # it refuses NVIDIA's modules, which are not signed for it
            "enableVtpm": True,
            "enableIntegrityMonitoring": True,
        },
        "metadata": {"items": _metadata(spec, offer, settings, now, ends, user)},
    }
    if offer.accelerator != "none" and offer.machine_type.startswith(ATTACHED):
        link = f"projects/{project}/zones/{offer.place}/acceleratorTypes/{offer.accelerator}"
        body["guestAccelerators"] = [{"acceleratorType": link, "acceleratorCount": spec.accelerator_count}]
    return Insert(project, offer.place, spec.request_id, body)


def labels(spec: MachineSpec, ends: datetime) -> dict[str, str]:
    marks = {
        LABEL: spec.name,
        OWNER: spec.owner,
        PROJECT: spec.project,
        EXPIRES: str(int(ends.timestamp())),  # whole seconds, and never later than the cloud ends it
    }
    return marks | ({ATTEMPT: spec.request_id} if spec.request_id else {})


def tags(owner: str) -> list[str]:
    """Network tags: what all of ours share, and what those of one owner share."""
    return [TAG, f"{TAG}-{owner}"]


def scheduling(seconds: float, *, spot: bool) -> dict[str, Any]:
    """The hard clock and the kind of machine, in one message: what is set twice is set half."""
    return {
        "maxRunDuration": {"seconds": str(max(SHORTEST_S, math.ceil(seconds)))},
        "instanceTerminationAction": "DELETE",
        "provisioningModel": "SPOT" if spot else "STANDARD",
        "onHostMaintenance": "TERMINATE",  # a GPU can't move to another host
        "automaticRestart": not spot,  # the cloud takes no other value for spot
    }


def service_account(settings: GceSettings, project: str) -> str:
    return settings.service_account or f"tlvm-machine@{project}.iam.gserviceaccount.com"


def disk_gb(spec: MachineSpec, image: Image) -> int:
    return spec.disk_gb or max(_DISK_GB, image.disk_gb)


def disk_type(settings: GceSettings, machine_type: str) -> str:
    return settings.disk_type or (
        "hyperdisk-balanced" if machine_type.startswith(_HYPERDISK) else "pd-balanced"
    )


def ssh_key(public_key: str, expires: datetime) -> str:
    """A line of the metadata `ssh-keys`: Google's guest agent lets this key in until then."""
    until = f"{expires.astimezone(UTC):%Y-%m-%dT%H:%M:%S}+0000"
    options = json.dumps({"userName": USER, "expireOn": until})
    return f"{USER}:{checked_key(public_key)} google-ssh {options}"


def _network(settings: GceSettings, project: str, region: str) -> dict[str, Any]:
    network: dict[str, Any] = {"network": f"projects/{project}/global/networks/{settings.network}"}
    if settings.subnetwork:
        network["subnetwork"] = f"projects/{project}/regions/{region}/subnetworks/{settings.subnetwork}"
    if not settings.iap:
        network["accessConfigs"] = [{"type": "ONE_TO_ONE_NAT", "name": "External NAT"}]
    return network


def _metadata(
    spec: MachineSpec, offer: Offer, settings: GceSettings, now: datetime, ends: datetime, user: str
) -> list[dict[str, str]]:
    about = {
        "asked": now.isoformat(),
        "settings": spec.settings(),
        "store": {"url": spec.store.url, "endpoint": spec.store.endpoint},
        "price_per_hour": offer.price_per_hour,
        "accelerator": offer.accelerator,
        "accelerator_count": spec.accelerator_count if offer.accelerator != "none" else 0,
    }
    scripts = folder("infra") / "gce"
    keys = {
        "ssh-keys": ssh_key(spec.public_key, ends),
        "enable-oslogin": "FALSE",  # it would have these keys ignored
    }
    items = {
        **({"enable-oslogin": "TRUE"} if settings.os_login else keys),
        "block-project-ssh-keys": "TRUE",
        "enable-guest-attributes": "TRUE",  # where the machine says its host keys
        "startup-script": (scripts / "startup.sh").read_text(encoding="utf-8"),
        "tlvm-guard": (scripts / "guard.py").read_text(encoding="utf-8"),
        LOGIN_USER: user,
        "tlvm-ends": str(math.ceil(ends.timestamp())),
        "tlvm-idle-seconds": str(math.ceil(spec.idle_minutes * 60)),
        "tlvm-idle-action": spec.idle_action,
        ABOUT: json.dumps(about, sort_keys=True),
    }
    return [{"key": key, "value": value} for key, value in items.items()]
