"""Who may reach the SSH server of our machines: nobody, but the addresses that their owner comes from.

    priority 800   allow tcp:22 to the tag tlvm-<owner>, from the owner's addresses (or Google's proxy, with --iap)
    priority 900   deny  tcp:22 to the tag tlvm, from everywhere

The default network has a rule of priority 65534 that lets everybody in: the second rule is why it does not count here.
Nothing of a project's own is changed. Existing rules of ours are refreshed when the owner's address has changed.

An owner with two computers has two addresses and one rule. Where addresses are looked up, each computer adds its own
and drops only what no computer has come from for a day; the rule's description says when each was seen. Where
`ssh_source_ranges` names the networks, the rule holds those and nothing else.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import requests

from orchestrator.config import GceSettings
from orchestrator.errors import ConfigError, ConflictError
from orchestrator.progress import Progress

from .operations import Waiting, finish
from .request import TAG
from .rest import Rest

IAP_RANGE = "35.235.240.0/20"  # Google's own proxy comes from here
_EVERYBODY = "0.0.0.0/0"  # only ever denied
_LOOK_UP_S = 5.0
_KEPT = timedelta(days=1)  # an address that was looked up, after it was last seen
_FRESH = timedelta(hours=6)  # so long a visit counts as the last one: the rule is not written at each
_MOST = 8  # computers of one owner
_VISIT = re.compile(r"([0-9.]+/32) on ([0-9-]+T[0-9:]+)Z")
_COMPARED = (
    "priority", "direction", "sourceRanges", "targetTags", "allowed", "denied", "disabled", "description",
)  # fmt: skip


def ensure(
    rest: Rest,
    settings: GceSettings,
    owner: str,
    progress: Progress,
    *,
    now: datetime,
    waiting: Waiting | None = None,
) -> bool:
    """Both rules as they should be; whether one of them had to be made or changed.

    That which denies is made first: at no moment is a machine open to everybody.
    """
    ranges = source_ranges(settings, progress)
    denied = _put(rest, lambda _: deny(rest.project, settings), waiting)
    if _is_named(settings):
        rule = allow(rest.project, settings, owner, ranges)
        return _put(rest, lambda _: rule, waiting) or denied

    def with_others(found: Mapping[str, Any]) -> dict[str, Any]:
        visits = _visits(found, ranges, now)
        told = ", ".join(f"{address} on {seen:%Y-%m-%dT%H:%M}Z" for address, seen in visits.items())
        return allow(rest.project, settings, owner, list(visits), told)

    return _put(rest, with_others, waiting) or denied


def source_ranges(settings: GceSettings, progress: Progress) -> list[str]:
    """Where the owner comes from. ConfigError when that is not told and may not be looked up, or can't be."""
    if settings.iap:
        return [IAP_RANGE]
    if settings.ssh_source_ranges:
        return [str(ipaddress.ip_network(text, strict=False)) for text in settings.ssh_source_ranges]
    name = "Name the networks that you come from: gce.ssh_source_ranges, or --iap."
    if not settings.address_lookup:
        raise ConfigError(
            "Nothing says from which address you reach the machine",
            detail="gce.address_lookup is empty.",
            next=name,
        )
    try:
        answer = requests.get(settings.address_lookup, timeout=_LOOK_UP_S)
        answer.raise_for_status()
        address = ipaddress.ip_address(answer.text.strip()[:64])
    except (requests.RequestException, ValueError) as error:
        raise ConfigError(
            f"{settings.address_lookup} did not say which address you come from",
            detail=(str(error).splitlines() or [""])[0][:200],
            next=name,
        ) from None
    if address.version != 4:
        raise ConfigError(f"You come from {address}, and the machine has an IPv4 address only", next=name)
    progress.say("firewall", f"SSH only from {address} (as {settings.address_lookup} says)")
    return [f"{address}/32"]


def deny(project: str, settings: GceSettings) -> dict[str, Any]:
    return {
        "name": _name(settings, "deny-ssh"),
        "description": "Made by tlvm: its machines are reached only from where another rule says.",
        "network": f"projects/{project}/global/networks/{settings.network}",
        "direction": "INGRESS",
        "priority": 900,
        "denied": [{"IPProtocol": "tcp", "ports": ["22"]}],
        "sourceRanges": [_EVERYBODY],
        "targetTags": [TAG],
    }


def allow(
    project: str, settings: GceSettings, owner: str, ranges: Sequence[str], visits: str = ""
) -> dict[str, Any]:
    """visits    when a computer last came from each of them, for the next one that comes"""
    return {
        "name": _name(settings, f"ssh-{owner}"),
        "description": f"Made by tlvm: where {owner} comes from." + (f" {visits}" if visits else ""),
        "network": f"projects/{project}/global/networks/{settings.network}",
        "direction": "INGRESS",
        "priority": 800,
        "allowed": [{"IPProtocol": "tcp", "ports": ["22"]}],
        "sourceRanges": list(ranges),
        "targetTags": [f"{TAG}-{owner}"],
    }


def check_private_access(rest: Rest, settings: GceSettings, region: str) -> None:
    """A machine without an address reaches the bucket through the subnetwork, if that is allowed to; else ConfigError."""
    if not settings.iap:
        return
    name = settings.subnetwork or settings.network
    found = rest.find(f"regions/{region}/subnetworks/{name}")
    if found is None:
        raise ConfigError(
            f"There is no subnetwork {name} in {region}",
            next="Name it in gce.subnetwork; gcloud compute networks subnets list shows them.",
        )
    if not found.get("privateIpGoogleAccess"):
        raise ConfigError(
            f"A machine without an address could not reach the bucket from the subnetwork {name} in {region}",
            detail="Private Google Access is off there.",
            next=f"Switch it on: gcloud compute networks subnets update {name} --region={region} "
            "--enable-private-ip-google-access",
        )


def _is_named(settings: GceSettings) -> bool:
    """Whether the settings say where the owner comes from, rather than a look-up."""
    return settings.iap or bool(settings.ssh_source_ranges)


def _visits(found: Mapping[str, Any], mine: Sequence[str], now: datetime) -> dict[str, datetime]:
    """This computer's address, and those from which others of the same owner came within a day."""
    there = set(found.get("sourceRanges", []))
    seen = {
        address: datetime.fromisoformat(when).replace(tzinfo=UTC)
        for address, when in _VISIT.findall(str(found.get("description", "")))
        if address in there
    }
    known = {address: when for address, when in seen.items() if now - when < _KEPT}
    known |= {address: now for address in mine if now - known.get(address, now - _KEPT) >= _FRESH}
    newest = sorted(known, key=lambda address: (address in mine, known[address]), reverse=True)
    return {address: known[address] for address in sorted(newest[:_MOST])}


def _put(
    rest: Rest, wanted: Callable[[Mapping[str, Any]], Mapping[str, Any]], waiting: Waiting | None
) -> bool:
    """wanted    the rule as it should be, given what is there"""
    name = wanted({})["name"]
    path, doing = f"global/firewalls/{name}", f"set the firewall rule {name}"
    found = rest.find(path)
    rule = wanted(found or {})
    if found is None:
        try:
            operation = rest.send("POST", "global/firewalls", body=rule, doing=doing)
        except ConflictError:  # another terminal was faster, with the same rule
            return True
    elif _same(found, rule):
        return False
    else:
        operation = rest.send("PATCH", path, body={**rule, "disabled": False}, doing=doing)
    finish(rest, operation, doing, waiting=waiting)
    return True


def _same(found: Mapping[str, Any], rule: Mapping[str, Any]) -> bool:
    return all(_comparable(found.get(key)) == _comparable(rule.get(key)) for key in _COMPARED)


def _comparable(value: object) -> object:
    if isinstance(value, list):
        return sorted(map(repr, map(_comparable, value)))
    if isinstance(value, dict):
        return sorted((key, repr(_comparable(inner))) for key, inner in value.items())
    return value or None


def _name(settings: GceSettings, what: str) -> str:
    """One set of rules for each network; the default network needs no mark."""
    if settings.network == "default":
        return f"tlvm-{what}"
    return f"tlvm-{what}-{hashlib.sha256(settings.network.encode()).hexdigest()[:8]}"
