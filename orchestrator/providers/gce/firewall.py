"""Who may reach the SSH server of our machines: nobody, but the addresses that their owner comes from.

    priority 800   allow tcp:22 to the tag tlvm-<owner>, from the owner's addresses (or Google's proxy, with --iap)
    priority 900   deny  tcp:22 to the tag tlvm, from everywhere

The default network has a rule of priority 65534 that lets everybody in: the second rule is why it does not count here.
Nothing of a project's own is changed. Existing rules of ours are refreshed when the owner's address has changed.

An owner with two computers has one rule for both. Each puts in where it comes from, in place of where it came from
before, and leaves what another has put in within a day: the rule's description says which computer, and when. It also
says until when the rule is needed at least, so that `tlvm gc` can tell one that nobody needs any more.
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
from orchestrator.providers.rented import SshSources

from .operations import Waiting, finish
from .request import TAG
from .rest import Rest

IAP_RANGE = "35.235.240.0/20"  # Google's own proxy comes from here
_EVERYBODY = "0.0.0.0/0"  # only ever denied
_LOOK_UP_S = 5.0
_KEPT = timedelta(days=1)  # an address that was looked up, after it was last seen
_FRESH = timedelta(hours=6)  # so long a visit counts as the last one: the rule is not written at each
_MOST = 8  # computers of one owner
_NEEDED_LONGER = timedelta(days=7)  # than the machine lives: the rule is not written for each one
_VISIT = re.compile(r"([0-9.]+/[0-9]+) by ([0-9a-f]{6}) on ([0-9-]+T[0-9:]+)Z")
_NEEDED = re.compile(r"Needed until ([0-9-]+T[0-9:]+)Z")
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
    computer: str,
    until: datetime | None = None,
    waiting: Waiting | None = None,
) -> bool:
    """Both rules as they should be; whether one of them had to be made or changed.

    computer    the name of this one
    until       the end of the machine that is about to be made
    That which denies is made first: at no moment is a machine open to everybody.
    """
    sources = ssh_sources(settings)
    if sources.said_by == settings.address_lookup:
        come_from = ", ".join(sources.ranges)
        progress.say("firewall", f"SSH only from {come_from} (as {sources.said_by} says)")
    me = hashlib.sha256(computer.encode()).hexdigest()[:6]

    def denying(found: Mapping[str, Any]) -> dict[str, Any]:
        return _needed(deny(rest.project, settings), found, until)

    def with_others(found: Mapping[str, Any]) -> dict[str, Any]:
        visits = _visits(found, sources.ranges, me, now)
        told = ", ".join(
            f"{address} by {whose} on {seen:%Y-%m-%dT%H:%M}Z" for (address, whose), seen in visits.items()
        )
        addresses = list(dict.fromkeys(address for address, _ in visits))
        return _needed(allow(rest.project, settings, owner, addresses, told), found, until)

    denied = _put(rest, denying, waiting)
    return _put(rest, with_others, waiting) or denied


def needed_until(rule: Mapping[str, Any]) -> datetime | None:
    """None when the rule does not say."""
    found = _NEEDED.search(str(rule.get("description", "")))
    return _time(found[1]) if found else None


def ssh_sources(settings: GceSettings) -> SshSources:
    """Where the owner comes from. ConfigError when that is not told and may not be looked up, or can't be."""
    if settings.iap:
        return SshSources([IAP_RANGE], "gce.iap")
    if settings.ssh_source_ranges:
        named = [str(ipaddress.ip_network(text, strict=False)) for text in settings.ssh_source_ranges]
        return SshSources(named, "gce.ssh_source_ranges")
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
    return SshSources([f"{address}/32"], settings.address_lookup)


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


def _visits(
    found: Mapping[str, Any], mine: Sequence[str], me: str, now: datetime
) -> dict[tuple[str, str], datetime]:
    """Where this computer comes from, and where others of the same owner came from within a day."""
    there = set(found.get("sourceRanges", []))
    seen = {
        (address, whose): _time(when)
        for address, whose, when in _VISIT.findall(str(found.get("description", "")))
        if address in there
    }
    others = {visit: when for visit, when in seen.items() if visit[1] != me and now - when < _KEPT}
    newest = sorted(others, key=lambda visit: others[visit], reverse=True)[: _MOST - 1]
    known = {visit: others[visit] for visit in newest}
    for address in mine:
        when = seen.get((address, me))
        known[address, me] = when if when and timedelta(0) <= now - when < _FRESH else now
    return dict(sorted(known.items()))


def _needed(rule: dict[str, Any], found: Mapping[str, Any], until: datetime | None) -> dict[str, Any]:
    """The rule, which says until when it is needed at least."""
    known = needed_until(found)
    if until is not None and (known is None or known < until):
        known = until + _NEEDED_LONGER
    if known is None:
        return rule
    return rule | {"description": f"{rule['description']} Needed until {known:%Y-%m-%dT%H:%M}Z."}


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


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
