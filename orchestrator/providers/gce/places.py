"""Where a machine may be had: the user's zones in order, the machine type that carries the accelerator, its price."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from orchestrator.config import GceSettings
from orchestrator.errors import ConfigError
from orchestrator.providers.base import MachineSpec, Offer

from .prices import PriceTable
from .request import ATTACHED, disk_type
from .rest import Rest

SHORT_NAMES = {
    "t4": "nvidia-tesla-t4",
    "p4": "nvidia-tesla-p4",
    "p100": "nvidia-tesla-p100",
    "v100": "nvidia-tesla-v100",
    "l4": "nvidia-l4",
    "a100": "nvidia-tesla-a100",
    "a100-80gb": "nvidia-a100-80gb",
    "h100": "nvidia-h100-80gb",
    "h200": "nvidia-h200-141gb",
    "b200": "nvidia-b200",
}
_CPUS = 8.0  # where the user says nothing: enough to decode images for one GPU
_DISK_GB = 200
_WITHOUT = "e2-standard-"  # of a machine that needs no GPU
_TYPE = "items(name,guestCpus,memoryMb,accelerators,deprecated),nextPageToken"
_KIND = "items(name,maximumCardsPerInstance,deprecated),nextPageToken"


@dataclass(frozen=True)
class MachineType:
    name: str
    cpus: float
    memory_gb: float
    accelerator: str  # what it brings; "none" for the others
    count: int


@dataclass(frozen=True)
class Zone:
    """What one zone has."""

    name: str
    region: str
    types: Sequence[MachineType]
    cards: Mapping[str, int]  # by accelerator: how many one machine takes


def accelerators(spec: MachineSpec) -> list[str]:
    """Google's names of what the user named, in that order; ["none"] for a machine without."""
    wanted = [name for name in spec.accelerator.split(",") if name] or ["none"]
    return ["none" if name == "none" else full_name(name) for name in wanted]


def full_name(name: str) -> str:
    """ "l4" or "nvidia-l4" as Google calls it; ConfigError with the nearest name for what is neither."""
    plain = name.strip().lower()
    if plain in SHORT_NAMES:
        return SHORT_NAMES[plain]
    if plain.startswith(("nvidia-", "ct", "amd-")):
        return plain
    near = difflib.get_close_matches(plain, SHORT_NAMES, n=1, cutoff=0.4)
    raise ConfigError(
        f"There is no accelerator {name[:40]!r} on Google Cloud",
        detail=f"Did you mean {near[0]!r}?" if near else "",
        next=f"They are {', '.join(SHORT_NAMES)}, or Google's own names (tlvm gpus lists those of your zones).",
    )


def zones(rest: Rest, settings: GceSettings) -> list[tuple[str, str]]:
    """(zone, region) of everything that the user named, in order; a region stands for its zones that are up."""
    up = {
        found["name"]: str(found["region"]).rpartition("/")[2]
        for found in rest.items("zones", fields="items(name,region,status),nextPageToken")
        if found.get("status") == "UP"
    }
    chosen: dict[str, str] = {}
    for name in settings.zones:
        inside = [name] if name in up else sorted(zone for zone, region in up.items() if region == name)
        if not inside:
            raise _no_such_place(name, up)
        chosen |= {zone: up[zone] for zone in inside if zone not in chosen}
    return list(chosen.items())


def look(rest: Rest, places: Sequence[tuple[str, str]]) -> list[Zone]:
    """What each zone has, all asked at the same time, in their order."""
    with ThreadPoolExecutor(8, thread_name_prefix="zone") as pool:
        looking = [(pool.submit(_types, rest, zone), pool.submit(_cards, rest, zone)) for zone, _ in places]
        return [
            Zone(zone, region, types.result(), cards.result())
            for (zone, region), (types, cards) in zip(places, looking, strict=True)
        ]


def offers(
    spec: MachineSpec, settings: GceSettings, there: Sequence[Zone], prices: PriceTable
) -> list[Offer]:
    """Every zone for the first accelerator, then every zone for the next. Pure.

    ConfigError    no zone has any of them, or none has the machine type that was named
    """
    found = []
    for accelerator in accelerators(spec):
        for zone in there:
            chosen = machine_type(zone, accelerator, spec)
            if chosen is not None:
                price = price_per_hour(chosen, accelerator, spec, settings, prices.of(zone.region))
                found.append(Offer(zone.name, accelerator, price, chosen.name, zone.region))
    if not found:
        raise _nowhere(spec, there)
    return found


def price_per_hour(
    chosen: MachineType, accelerator: str, spec: MachineSpec, settings: GceSettings, prices: PriceTable
) -> float:
    """Machine, disk and address, as an estimate of today's list price."""
    count = 0 if accelerator == "none" else chosen.count or spec.accelerator_count
    running = prices.per_hour(chosen.name, chosen.cpus, chosen.memory_gb, accelerator, count, spot=spec.spot)
    disk = prices.disk_per_hour(spec.disk_gb or _DISK_GB, disk_type(settings, chosen.name))
    return round(running + disk + (0 if settings.iap else prices.address_per_hour), 4)


def machine_type(zone: Zone, accelerator: str, spec: MachineSpec) -> MachineType | None:
    """The one that was named, else the smallest that carries the accelerators and has enough around them.

    Newer accelerators come with their machine type; older ones are attached to n1.
    """
    fitting = [one for one in zone.types if _carries(one, zone, accelerator, spec.accelerator_count)]
    if spec.machine_type:
        return next((one for one in fitting if one.name == spec.machine_type), None)
    if accelerator == "none":
        fitting = [one for one in fitting if one.name.startswith(_WITHOUT)]
    elif not any(one.count for one in fitting):
        fitting = [one for one in fitting if one.name.startswith("n1-standard-")]
    fitting.sort(key=lambda one: (one.cpus, one.memory_gb, one.name))
    cpus = spec.cpus or _CPUS * max(1, spec.accelerator_count)
    enough = [one for one in fitting if one.cpus >= cpus and one.memory_gb >= spec.memory_gb]
    if enough:
        return enough[0]
    asked = spec.cpus or spec.memory_gb  # for more than there is: no; otherwise the largest will do
    return fitting[-1] if fitting and not asked else None


def _carries(one: MachineType, zone: Zone, accelerator: str, count: int) -> bool:
    if accelerator == "none":
        return one.count == 0
    if one.count:
        return (one.accelerator, one.count) == (accelerator, count)
    return (
        one.name.startswith(ATTACHED)
        and zone.cards.get(accelerator, 0) >= count
        and not _comes_with(zone, accelerator)
    )


def _comes_with(zone: Zone, accelerator: str) -> bool:
    return any(one.accelerator == accelerator for one in zone.types)


def _types(rest: Rest, zone: str) -> list[MachineType]:
    return [
        _type(found) for found in rest.items(f"zones/{zone}/machineTypes", fields=_TYPE) if _is_alive(found)
    ]


def _type(found: Mapping[str, Any]) -> MachineType:
    brings = (found.get("accelerators") or [{}])[0]
    return MachineType(
        name=found["name"],
        cpus=float(found.get("guestCpus", 0)),
        memory_gb=found.get("memoryMb", 0) / 1024,
        accelerator=brings.get("guestAcceleratorType", "none"),
        count=int(brings.get("guestAcceleratorCount", 0)),
    )


def _cards(rest: Rest, zone: str) -> dict[str, int]:
    return {
        found["name"]: int(found.get("maximumCardsPerInstance", 0))
        for found in rest.items(f"zones/{zone}/acceleratorTypes", fields=_KIND)
        if _is_alive(found)
    }


def _is_alive(found: Mapping[str, Any]) -> bool:
    return (found.get("deprecated") or {}).get("state", "ACTIVE") in ("ACTIVE", "DEPRECATED")


def _no_such_place(name: str, up: Mapping[str, str]) -> ConfigError:
    known = sorted({*up, *up.values()})
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return ConfigError(
        f"gce.zones names {name[:40]!r}, which is no zone or region of the project that is up",
        detail=f"Did you mean {near[0]!r}?" if near else "",
        next="Change it; gcloud compute zones list shows them.",
    )


def _nowhere(spec: MachineSpec, there: Sequence[Zone]) -> ConfigError:
    wanted = f"{spec.accelerator_count} × {spec.accelerator}" if spec.accelerator != "none" else "no GPU"
    what = (
        f"the machine type {spec.machine_type} with {wanted}"
        if spec.machine_type
        else f"a machine with {wanted}"
    )
    has = sorted({name for zone in there for name in zone.cards if not name.endswith("-vws")})
    return ConfigError(
        f"No zone of gce.zones has {what}",
        detail=f"Looked at {', '.join(zone.name for zone in there)}; they have {', '.join(has) or 'no accelerator'}.",
        next="Name other zones or regions in gce.zones, or another accelerator; tlvm gpus shows which zone has what.",
    )
