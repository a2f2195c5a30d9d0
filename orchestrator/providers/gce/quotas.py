"""How much of what a project may have: what the cloud tells of it, and what a machine would take.

Advice only: whether a machine may be made, only its insert shows. The newest accelerators (H100 and later) have quotas
that regions do not tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from orchestrator.config import GceSettings
from orchestrator.providers.base import MachineSpec, Offer
from orchestrator.providers.rented import Quota

from .request import disk_type
from .rest import Rest

ALL_GPUS, ALL_CPUS = "GPUS_ALL_REGIONS", "CPUS_ALL_REGIONS"
_DISK_GB = 200


def metric(accelerator: str, *, spot: bool = False) -> str:
    """ "nvidia-tesla-t4" -> "NVIDIA_T4_GPUS"."""
    name = accelerator.removeprefix("nvidia-").removeprefix("tesla-").removesuffix("-vws")
    name = {"h100-80gb": "h100", "h100-mega-80gb": "h100-mega", "h200-141gb": "h200"}.get(name, name)
    return f"{'PREEMPTIBLE_' if spot else ''}NVIDIA_{name.upper().replace('-', '_')}_GPUS"


def told(resource: Mapping[str, Any], region: str = "") -> dict[str, Quota]:
    """The quotas that a project's or a region's resource carries, by metric."""
    return {
        str(found["metric"]): Quota(
            str(found["metric"]), region, float(found.get("limit", 0)), float(found.get("usage", 0))
        )
        for found in resource.get("quotas", [])
    }


def regions(rest: Rest, names: Iterable[str] = ()) -> dict[str, dict[str, Quota]]:
    """The quotas of each region, in one request; only of those named, if any are."""
    wanted = set(names)
    found = rest.items("regions", fields="items(name,quotas(metric,limit,usage)),nextPageToken")
    return {
        region["name"]: told(region, region["name"])
        for region in found
        if not wanted or region["name"] in wanted
    }


def needs(offer: Offer, spec: MachineSpec, settings: GceSettings, cpus: float) -> dict[str, float]:
    """What a machine takes of each quota of its region, and of the project."""
    disk = disk_type(settings, offer.machine_type)
    found = {
        "CPUS": cpus,
        ALL_CPUS: cpus,
        "DISKS_TOTAL_GB" if disk == "pd-standard" else "SSD_TOTAL_GB": float(spec.disk_gb or _DISK_GB),
    }
    if not settings.iap:
        found["IN_USE_ADDRESSES"] = 1
    if offer.accelerator != "none":
        found[metric(offer.accelerator, spot=spec.spot)] = spec.accelerator_count
        found[ALL_GPUS] = spec.accelerator_count
    return found


def lacking(needed: Mapping[str, float], *tables: Mapping[str, Quota]) -> list[Quota]:
    """Those that are too small; one that nobody tells does not count."""
    known = {name: quota for table in tables for name, quota in table.items()}
    return [
        replace(known[name], needed=amount)
        for name, amount in needed.items()
        if name in known and known[name].left < amount
    ]
