"""`tlvm gpus` and `tlvm quota`: which accelerators there are, where, for how much, and how many you may have."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from orchestrator.config import GceSettings
from orchestrator.errors import ConfigError
from orchestrator.providers.base import MachineSpec, Offer
from orchestrator.providers.rented import AcceleratorKind, Quota

from . import places, quota_requests, quotas
from .machine import region
from .prices import LIST, PriceTable
from .rest import Rest

_WHOLE_PROJECT = (quotas.ALL_GPUS, quotas.ALL_CPUS)
_FIELDS = (
    "items/*/acceleratorTypes(name,description,zone,deprecated),items/*/warning,nextPageToken,unreachables"
)


def accelerators(
    rest: Rest, settings: GceSettings, spec: MachineSpec, prices: PriceTable
) -> list[AcceleratorKind]:
    """Each kind of GPU with its zones, those of the user's regions first; the cheapest first."""
    with ThreadPoolExecutor(2) as pool:
        project, tables = pool.submit(rest.get, ""), pool.submit(quotas.regions, rest)
        found, _ = rest.seen("acceleratorTypes", fields=_FIELDS)
        zones: dict[str, list[str]] = defaultdict(list)
        titles: dict[str, str] = {}
        for one in found:
            name = str(one["name"])
            if name.startswith("nvidia-") and not name.endswith("-vws") and not one.get("deprecated"):
                zones[name].append(str(one["zone"]).rpartition("/")[2])
                titles[name] = str(one.get("description", name))
        chosen = {name: _nearest(some, settings) for name, some in zones.items()}
        there = places.look(rest, [(zone, region(zone)) for zone in sorted(set(chosen.values()))])
        by_name = {zone.name: zone for zone in there}
        of_project = quotas.told(project.result()).get(quotas.ALL_GPUS)
        in_all = of_project.left if of_project else math.inf
        kinds = [
            _kind(
                name,
                titles[name],
                some,
                by_name[chosen[name]],
                tables.result(),
                in_all,
                settings,
                spec,
                prices,
            )
            for name, some in zones.items()
        ]
    return sorted(kinds, key=lambda kind: (kind.per_hour == 0, kind.per_hour, kind.name))


def quotas_of(rest: Rest, settings: GceSettings, spec: MachineSpec) -> list[Quota]:
    """Those that a machine of this kind would take from, of the project first, then of each region in its order."""
    with ThreadPoolExecutor(2) as pool:
        project = pool.submit(rest.get, "")
        regional = pool.submit(quotas.regions, rest)
        there = places.look(rest, places.zones(rest, settings))
        everywhere, tables = quotas.told(project.result()), regional.result()
    needed = _needed(there, settings, spec)
    found = [
        replace(everywhere[name], needed=max((some.get(name, 0) for some in needed.values()), default=0))
        for name in _WHOLE_PROJECT
        if name in everywhere
    ]
    for name in dict.fromkeys(zone.region for zone in there):
        wants = needed[name]
        found += [
            replace(tables[name][metric], needed=amount)
            for metric, amount in wants.items()
            if metric in tables.get(name, {})
        ]
    return quota_requests.with_requests(rest, found)


def _needed(
    there: Sequence[places.Zone], settings: GceSettings, spec: MachineSpec
) -> dict[str, dict[str, float]]:
    """By region and metric: the most that one machine of any accelerator that the user named takes there."""
    needed: dict[str, dict[str, float]] = {zone.region: {} for zone in there}
    cpus = {kind.name: kind.cpus for zone in there for kind in zone.types}
    try:
        offers = places.offers(spec, settings, there, LIST)
    except ConfigError:  # nowhere here; what the accelerators alone would take is told all the same
        offers = [
            Offer(zone.name, name, 0.0, "", zone.region)
            for zone in there
            for name in places.accelerators(spec)
        ]
    for offer in offers:
        wants = quotas.needs(offer, spec, settings, cpus.get(offer.machine_type, 0.0))
        for metric, amount in wants.items():
            here = needed[offer.region]
            here[metric] = max(here.get(metric, 0.0), amount)
    return needed


def _nearest(zones: Sequence[str], settings: GceSettings) -> str:
    """One of the user's own, if it has any."""
    mine = [zone for zone in sorted(zones) if zone in settings.zones or region(zone) in settings.zones]
    return (mine or sorted(zones))[0]


def _kind(
    name: str,
    title: str,
    zones: Sequence[str],
    zone: places.Zone,
    tables: Mapping[str, Mapping[str, Quota]],
    in_all: float,
    settings: GceSettings,
    spec: MachineSpec,
    prices: PriceTable,
) -> AcceleratorKind:
    """in_all    GPUs of any kind that the project may have beside what it has: a new account may have none"""
    counts = [one.count for one in zone.types if one.accelerator == name]
    count = min(counts, default=1)
    wish = replace(spec, accelerator=name, accelerator_count=count, machine_type="", spot=False)
    chosen = places.machine_type(zone, name, wish)
    found: dict[str, Any] = {"machine_type": "", "per_hour": 0.0, "per_hour_spot": 0.0}
    if chosen is not None:
        here = prices.of(zone.region)
        found = {
            "machine_type": chosen.name,
            "per_hour": places.price_per_hour(chosen, name, wish, settings, here),
            "per_hour_spot": places.price_per_hour(chosen, name, replace(wish, spot=True), settings, here),
        }
    metric = quotas.metric(name)
    short = next((ours for ours, theirs in places.SHORT_NAMES.items() if theirs == name), "")
    regions = dict.fromkeys(sorted(map(region, zones), key=lambda one: one not in _regions(settings)))
    return AcceleratorKind(
        name=name,
        title=title,
        short=short,
        zones=sorted(zones, key=lambda one: (region(one) not in _regions(settings), one)),
        region=zone.region,
        quota={
            one: min(tables[one][metric].left, in_all) if metric in tables.get(one, {}) else None
            for one in regions
        },
        count=count,
        **found,
    )


def _regions(settings: GceSettings) -> set[str]:
    return {name if name.count("-") < 2 else region(name) for name in settings.zones}
