"""What Compute Engine refuses in an instance, beyond what its discovery document says."""

from __future__ import annotations

import re
from collections import Counter
from datetime import datetime
from ipaddress import ip_network
from typing import Any

from tests.fakes.compute_catalogue import ACCELERATORS, TYPES, Type
from tests.fakes.compute_cloud import Cloud, items, not_found
from tests.fakes.compute_faults import Refused, quota_error

Resource = dict[str, Any]

_NAME = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")
_LABEL = re.compile(r"[a-z][-_a-z0-9]{0,62}"), re.compile(r"[-_a-z0-9]{0,63}")
_RUN_S = (30, 120 * 24 * 3600)  # maxRunDuration: thirty seconds to 120 days
_METADATA_BYTES = 256 * 1024  # of one value; 512 KiB of all


def check_instance(cloud: Cloud, zone: str, instance: Resource) -> None:
    """Raises what the service answers at once to an `insert` that asks for the impossible."""
    for needed in ("name", "machineType", "disks", "networkInterfaces"):
        if not instance.get(needed):
            raise invalid(needed, "", "Missing required field.", reason="required")
    check_name(instance["name"], "name")
    kind = machine_type(cloud, zone, instance["machineType"])
    check_labels(instance.get("labels", {}))
    check_metadata(instance.get("metadata"))
    for tag in instance.get("tags", {}).get("items", []):
        check_name(tag, "tags.items")
    count = _accelerators(cloud, zone, instance, kind)
    check_scheduling(cloud, instance.get("scheduling", {}), gpus=count)
    _disks(cloud, zone, instance)
    if len(instance.get("serviceAccounts", [])) > 1:
        raise invalid("serviceAccounts", "", "At most one service account can be specified.")
    for interface in instance["networkInterfaces"]:
        name = str(interface.get("network", "global/networks/default")).rpartition("/")[2]
        cloud.find("networks", "global", name)


def check_scheduling(cloud: Cloud, scheduling: Resource, *, gpus: int) -> None:
    model = scheduling.get("provisioningModel", "SPOT" if scheduling.get("preemptible") else "STANDARD")
    duration, until = scheduling.get("maxRunDuration"), scheduling.get("terminationTime")
    action = scheduling.get("instanceTerminationAction")
    is_spot = model == "SPOT" or scheduling.get("preemptible", False)
    if is_spot and scheduling.get("automaticRestart"):
        raise _bad("Scheduling must have preemptible be false when AutomaticRestart is true.")
    if is_spot and scheduling.get("onHostMaintenance", "TERMINATE") == "MIGRATE":
        raise _bad("Scheduling must have onHostMaintenance set to TERMINATE for Spot instances.")
    if duration and until:
        raise _bad("At most one of maxRunDuration and terminationTime can be specified.")
    if (duration or until) and not action:
        raise _bad("You must specify instanceTerminationAction with maxRunDuration or terminationTime.")
    if action and not (duration or until or is_spot):
        raise _bad(
            "You cannot specify a termination action for a VM instance that has the standard provisioning model "
            "(default) and no time limit."
        )
    if duration and not _RUN_S[0] <= int(duration.get("seconds", 0)) <= _RUN_S[1]:
        raise invalid("scheduling.maxRunDuration", str(duration), "Must be between 30 seconds and 120 days.")
    if until and datetime.fromisoformat(until) <= cloud.now():
        raise invalid("scheduling.terminationTime", until, "Must be in the future.")
    if gpus and scheduling.get("onHostMaintenance", "MIGRATE") == "MIGRATE" and not is_spot:
        raise _bad(
            "Instances with guest accelerators do not support live migration: set onHostMaintenance to TERMINATE."
        )


def check_quota(cloud: Cloud, zone: str, instance: Resource) -> None:
    """Failed with QUOTA_EXCEEDED when the instance does not fit beside what runs."""
    region = zone[:-2]
    for where, limits in (("", cloud.project_quotas), (region, cloud.region_quotas[region])):
        used = usage(cloud, where, but=instance)
        for metric, amount in demands(instance).items():
            if metric in limits and used.get(metric, 0) + amount > limits[metric]:
                raise quota_error(metric, limits[metric], where)


def usage(cloud: Cloud, region: str, but: Resource | None = None) -> Counter[str]:
    """What is used of each quota in a region, or everywhere ("")."""
    used: Counter[str] = Counter()
    for (scope, _), other in cloud.resources["instances"].items():
        here = not region or scope.removeprefix("zones/")[:-2] == region
        if here and other is not but and other["status"] not in {"TERMINATED", "PROVISIONING"}:
            used.update(demands(other))
    for (scope, _), disk in cloud.resources["disks"].items():
        if not region or scope.removeprefix("zones/")[:-2] == region:
            stored = str(disk.get("type", "pd-standard")).rpartition("/")[2]
            used["DISKS_TOTAL_GB" if stored == "pd-standard" else "SSD_TOTAL_GB"] += int(disk["sizeGb"])
    return used


def demands(instance: Resource) -> dict[str, int]:
    """What an instance takes of each quota."""
    kind = TYPES[instance["machineType"].rpartition("/")[2]]
    found: dict[str, int] = {"CPUS": kind.cpus, "CPUS_ALL_REGIONS": kind.cpus, "INSTANCES": 1}
    if any(interface.get("accessConfigs") for interface in instance["networkInterfaces"]):
        found["IN_USE_ADDRESSES"] = 1
    for name, count in gpus_of(instance):
        found["GPUS_ALL_REGIONS"] = found.get("GPUS_ALL_REGIONS", 0) + count
        if metric := ACCELERATORS[name].quota:
            spot = instance.get("scheduling", {}).get("provisioningModel") == "SPOT"
            found[f"PREEMPTIBLE_{metric}" if spot else metric] = count
    for disk in instance["disks"]:
        wanted = disk.get("initializeParams", {})
        disk_type = str(wanted.get("diskType", "pd-standard")).rpartition("/")[2]
        if size := int(wanted.get("diskSizeGb", 0)):  # before it is made; then the disk itself counts
            metric = "DISKS_TOTAL_GB" if disk_type == "pd-standard" else "SSD_TOTAL_GB"
            found[metric] = found.get(metric, 0) + size
    return found


def gpus_of(instance: Resource) -> list[tuple[str, int]]:
    """The accelerators of a machine, those that its type brings included."""
    kind = TYPES[instance["machineType"].rpartition("/")[2]]
    if kind.accelerator:
        return [(kind.accelerator, kind.count)]
    return [
        (entry["acceleratorType"].rpartition("/")[2], entry["acceleratorCount"])
        for entry in instance.get("guestAccelerators", [])
        if entry.get("acceleratorCount")
    ]


def machine_type(cloud: Cloud, zone: str, link: str) -> Type:
    name = link.rpartition("/")[2]
    if not re.fullmatch(rf"(?:\S*projects/[^/]+/)?zones/{zone}/machineTypes/[^/]+", link):
        raise invalid("machineType", link, "The URL is malformed.")
    if (f"zones/{zone}", name) not in cloud.resources["machineTypes"]:
        raise invalid(
            "machineType", link, f"Machine type with name '{name}' does not exist in zone '{zone}'."
        )
    return TYPES[name]


def image(cloud: Cloud, link: str) -> Resource:
    """The image that a link means, by its name or as the newest of its family."""
    found = re.fullmatch(
        r"(?:\S*projects/([^/]+)/)?(?:global/images|zones/[^/]+)/(family/|imageFamilyViews/)?([^/]+)", link
    )
    if found is None:
        raise invalid("disks[0].initializeParams.sourceImage", link, "The URL is malformed.")
    project, family, name = found[1] or cloud.project, found[2], found[3]
    if project not in cloud.images:
        raise Refused(
            403, "forbidden", f"Required 'compute.images.useReadOnly' permission for 'projects/{project}'"
        )
    if family:
        return newest(cloud, project, name)
    known = cloud.images[project].get(("global", name))
    if known is None or known.get("deprecated", {}).get("state") in {"OBSOLETE", "DELETED"}:
        raise not_found(f"projects/{project}/global/images/{name}")
    return known


def newest(cloud: Cloud, project: str, family: str) -> Resource:
    alive = [
        found
        for found in cloud.images.get(project, {}).values()
        if found.get("family") == family and found.get("deprecated", {}).get("state", "ACTIVE") == "ACTIVE"
    ]
    if not alive:
        raise not_found(f"projects/{project}/global/images/family/{family}")
    return max(alive, key=lambda found: str(found["creationTimestamp"]))


def check_firewall(rule: Resource) -> None:
    if bool(rule.get("allowed")) == bool(rule.get("denied")):
        raise invalid("allowed", "", "Exactly one of allowed and denied must be given.", reason="required")
    if not 0 <= rule.get("priority", 1000) <= 65535:
        raise invalid("priority", str(rule["priority"]), "Must be between 0 and 65535.")
    for addresses in rule.get("sourceRanges", []):
        try:
            ip_network(addresses)
        except ValueError as error:
            raise invalid("sourceRanges[0]", addresses, "Must be a valid CIDR.") from error


def check_name(name: str, field: str) -> None:
    if not _NAME.fullmatch(name):
        raise invalid(field, name, f"Must be a match of regex '{_NAME.pattern}'")


def check_labels(labels: dict[str, str]) -> None:
    for key, value in labels.items():
        if not _LABEL[0].fullmatch(key) or not _LABEL[1].fullmatch(value) or len(labels) > 64:
            raise invalid(
                "labels",
                f"{key}={value}",
                "Label keys and values: lowercase letters, digits, - and _, at most 63.",
            )


def check_metadata(metadata: Resource | None) -> None:
    entries = items(metadata)
    if metadata and len(entries) != len(metadata.get("items", [])):
        raise invalid("metadata.items", "", "Metadata has duplicate keys.")
    for key, value in entries.items():
        if not re.fullmatch(r"[a-zA-Z0-9-_]{1,128}", key) or len(value.encode()) > _METADATA_BYTES:
            raise invalid(
                "metadata.items", key, "The key is invalid, or the value has more than 262144 bytes."
            )


def invalid(field: str, value: str, message: str, reason: str = "invalid") -> Refused:
    return Refused(400, reason, f"Invalid value for field 'resource.{field}': '{value}'. {message}")


def _bad(message: str) -> Refused:
    return Refused(400, "badRequest", message)


def _accelerators(cloud: Cloud, zone: str, instance: Resource, kind: Type) -> int:
    """How many GPUs the machine gets; refuses what does not go together."""
    name = instance["machineType"].rpartition("/")[2]
    asked = [entry for entry in instance.get("guestAccelerators", []) if entry.get("acceleratorCount")]
    for entry in asked:
        accelerator = entry["acceleratorType"].rpartition("/")[2]
        if (f"zones/{zone}", accelerator) not in cloud.resources["acceleratorTypes"]:
            raise not_found(f"projects/{cloud.project}/zones/{zone}/acceleratorTypes/{accelerator}")
        fits = (
            name.startswith("n1-")
            and not kind.shared
            and not ACCELERATORS[accelerator].title.endswith(("L4", "GB"))
        )
        if not fits and (accelerator, entry["acceleratorCount"]) != (kind.accelerator, kind.count):
            raise _bad(f"[{name}, {accelerator}] features are not compatible for creating instance.")
        if entry["acceleratorCount"] > ACCELERATORS[accelerator].most:
            raise invalid(
                "guestAccelerators[0].acceleratorCount", str(entry["acceleratorCount"]), "Too many."
            )
    return sum(count for _, count in gpus_of(instance))


def _disks(cloud: Cloud, zone: str, instance: Resource) -> None:
    boot = [disk for disk in instance["disks"] if disk.get("boot")]
    if len(boot) != 1:
        raise invalid("disks", "", "Exactly one disk must be a boot disk.")
    for disk in instance["disks"]:
        if disk.get("source"):
            cloud.find("disks", f"zones/{zone}", disk["source"].rpartition("/")[2])
            continue
        wanted = disk.get("initializeParams", {})
        kind = str(wanted.get("diskType", "pd-standard")).rpartition("/")[2]
        cloud.find("diskTypes", f"zones/{zone}", kind)
        check_labels(wanted.get("labels", {}))
        if disk.get("type") == "SCRATCH":
            continue
        if not wanted.get("sourceImage"):
            raise invalid("disks[0].initializeParams.sourceImage", "", "A boot disk needs an image.")
        source = image(cloud, wanted["sourceImage"])
        size = int(wanted.get("diskSizeGb", disk.get("diskSizeGb", source["diskSizeGb"])))
        if size < int(source["diskSizeGb"]):
            raise invalid(
                "disks[0].initializeParams.diskSizeGb",
                str(size),
                f"Requested disk size cannot be smaller than the image size ({source['diskSizeGb']} GB)",
            )
