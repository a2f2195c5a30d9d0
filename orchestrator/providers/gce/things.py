"""What carries our label and is no machine: disks, addresses, and the firewall rules that were made beside machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from orchestrator.errors import NotFoundError
from orchestrator.providers.rented import Thing

from .firewall import needed_until
from .machine import is_ours
from .operations import Waiting, finish
from .prices import PriceTable
from .request import EXPIRES, LABEL, OWNER, PROJECT, TAG
from .rest import Rest

_LABELLED = f"labels.{LABEL}:*"
_RULES = f'name eq "{TAG}-.*"'  # rules have no labels: name, tag and description say whose they are
_MADE_BY = "Made by tlvm"
_INSTANCE = "items/*/instances(name,labels),items/*/warning,nextPageToken,unreachables"


def things(rest: Rest, prices: PriceTable, *, free: bool = True) -> list[Thing]:
    """Everything, in every zone and region. A place that can't be asked is an error: what is not seen is not gone.

    free    also what costs nothing
    """
    with ThreadPoolExecutor(4) as pool:
        disks = pool.submit(rest.aggregated, "disks", filter=_LABELLED)
        addresses = pool.submit(rest.aggregated, "addresses", filter=_LABELLED)
        rules = pool.submit(lambda: list(rest.items("global/firewalls", filter=_RULES) if free else ()))
        owners = pool.submit(lambda: _owners(rest) if free else [])
        return [
            *(disk(found, prices) for found in disks.result() if OWNER in found["labels"]),
            *(_address(found, prices) for found in addresses.result() if OWNER in found["labels"]),
            *(_rule(found, owners.result()) for found in rules.result() if _is_our_rule(found)),
        ]


def remove(rest: Rest, thing: Thing, *, waiting: Waiting | None = None) -> bool:
    """Delete it, if it is still the one that was listed and nobody needs it; wait until it is gone."""
    path = _path(thing)
    found = rest.find(path)
    if found is None or str(found["id"]) != thing.id or found.get("users"):
        return False
    if thing.kind == "firewall rule":
        rule = _rule(found, _owners(rest))
        if rule.used_by or rule.expires != thing.expires:  # somebody is about to make a machine
            return False
    doing = f"delete the {thing.kind} {thing.name}"
    try:
        operation = rest.send("DELETE", path, doing=doing)
    except NotFoundError:
        return False
    finish(rest, operation, doing, waiting=waiting)
    return True


def disk(found: Mapping[str, Any], prices: PriceTable) -> Thing:
    kind, gb = _last(found.get("type")), int(found.get("sizeGb", 0))
    users = tuple(_last(user) for user in found.get("users", []))
    return _thing("disk", found, prices.disk_per_month(gb, kind), size_gb=gb, used_by=users)


def _address(found: Mapping[str, Any], prices: PriceTable) -> Thing:
    users = tuple(_last(user) for user in found.get("users", []))
    external = found.get("addressType", "EXTERNAL") == "EXTERNAL"
    return _thing("address", found, prices.unused_address_per_month() if external else 0.0, used_by=users)


def _rule(found: Mapping[str, Any], owners: Sequence[tuple[str, str]]) -> Thing:
    """Free. It is needed as long as a machine has its tag, and says until when one is to come to need it."""
    tag = str(next(iter(found.get("targetTags") or [TAG])))
    owner = tag.removeprefix(f"{TAG}-") if tag != TAG else ""
    used_by = tuple(name for name, whose in owners if owner in ("", whose))
    until = needed_until(found)
    return _thing("firewall rule", found, 0.0, owner=owner, used_by=used_by, expires=until)


def _is_our_rule(found: Mapping[str, Any]) -> bool:
    tags = found.get("targetTags") or []
    is_tagged = len(tags) == 1 and (tags[0] == TAG or str(tags[0]).startswith(f"{TAG}-"))
    return is_tagged and str(found.get("description", "")).startswith(_MADE_BY)


def _owners(rest: Rest) -> list[tuple[str, str]]:
    """(name, owner) of every machine of ours."""
    found = rest.aggregated("instances", filter=_LABELLED, fields=_INSTANCE)
    return [(instance["name"], instance["labels"][OWNER]) for instance in found if is_ours(instance)]


def _thing(kind: Any, found: Mapping[str, Any], per_month: float, **more: Any) -> Thing:
    marks = found.get("labels", {})
    given = {
        "owner": marks.get(OWNER, ""), "project": marks.get(PROJECT, ""), "expires": _expires(marks), **more
    }  # fmt: skip
    return Thing(
        kind=kind,
        name=str(found["name"]),
        place=_last(found.get("zone") or found.get("region")) or "global",
        id=str(found["id"]),
        made=datetime.fromisoformat(found["creationTimestamp"]).astimezone(UTC),
        per_month=per_month,
        **given,
    )


def _expires(marks: Mapping[str, str]) -> datetime | None:
    """None where the label is missing or damaged: then only its owner deletes it, by name."""
    try:
        return datetime.fromtimestamp(int(marks[EXPIRES]), UTC)
    except (KeyError, ValueError, OverflowError, OSError):
        return None


def _path(thing: Thing) -> str:
    if thing.kind == "firewall rule":
        return f"global/firewalls/{thing.name}"
    if thing.kind == "disk":
        return f"zones/{thing.place}/disks/{thing.name}"
    where = "global" if thing.place == "global" else f"regions/{thing.place}"
    return f"{where}/addresses/{thing.name}"


def _last(link: object) -> str:
    return str(link or "").rpartition("/")[2]


def disks_of(rest: Rest, name: str) -> list[dict[str, Any]]:
    """Where a place can't be asked, those of the others."""
    return rest.seen("disks", filter=f"labels.{LABEL}={name}")[0]
