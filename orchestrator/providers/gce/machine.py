"""A machine as Compute Engine describes it: what an instance's labels, metadata and status say."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from orchestrator.config import GceSettings
from orchestrator.providers.base import Machine, MachineState, SshAddress
from remote.contract.run_spec import StoreRef

from .request import ABOUT, EXPIRES, LABEL, LOGIN_USER, OWNER, PROJECT, USER

PROXY = (
    "gcloud compute start-iap-tunnel {instance} %p --listen-on-stdin "
    "--project={project} --zone={zone} --verbosity=warning"
)
_STATES = {
    "PENDING": MachineState.STARTING,
    "PROVISIONING": MachineState.STARTING,
    "STAGING": MachineState.STARTING,
    "RUNNING": MachineState.RUNNING,
    "REPAIRING": MachineState.STARTING,
    "PENDING_STOP": MachineState.STOPPING,
    "STOPPING": MachineState.STOPPING,
    "SUSPENDING": MachineState.STOPPING,
    "DEPROVISIONING": MachineState.STOPPING,
    "STOPPED": MachineState.STOPPED,
    "TERMINATED": MachineState.STOPPED,
    "SUSPENDED": MachineState.STOPPED,
}


def is_ours(instance: Mapping[str, Any]) -> bool:
    """Made by tlvm under this very name; one that was copied from ours, or labelled by hand, is not."""
    marks = instance.get("labels", {})
    return marks.get(LABEL) == instance["name"] and OWNER in marks


def machine(instance: Mapping[str, Any], settings: GceSettings) -> Machine:
    """Whatever of it is damaged: a machine that carries our label is shown, because it costs money."""
    marks = instance["labels"]
    about = _about(instance)
    created = _created(instance, about)
    store = _dict(about.get("store"))
    return Machine(
        name=instance["name"],
        provider="gce",
        id=str(instance["id"]),
        place=zone(instance),
        state=_STATES.get(instance.get("status", ""), MachineState.STARTING),
        owner=marks[OWNER],
        project=marks.get(PROJECT, ""),
        created=created,
        ends=_ends(marks, created),
        accelerator=str(about.get("accelerator", "")) or _accelerator(instance),
        accelerator_count=_number(about.get("accelerator_count"), int(bool(_accelerator(instance)))),
        price_per_hour=_price(about.get("price_per_hour")),
        store=StoreRef(str(store.get("url", "")), store.get("endpoint") or None),
        ssh=_address(instance, settings),
        settings={str(key): str(value) for key, value in _dict(about.get("settings")).items()},
        stopped=_time(instance["lastStopTimestamp"]) if _is_off(instance) else None,
        off_s=_off_s(instance),
    )


def zone(instance: Mapping[str, Any]) -> str:
    return str(instance["zone"]).rpartition("/")[2]


def region(zone: str) -> str:
    return zone.rpartition("-")[0]


def metadata(instance: Mapping[str, Any]) -> dict[str, str]:
    items = instance.get("metadata", {}).get("items", [])
    return {item["key"]: item.get("value", "") for item in items}


def external_address(instance: Mapping[str, Any]) -> str:
    for interface in instance.get("networkInterfaces", []):
        for access in interface.get("accessConfigs", []):
            if access.get("natIP"):
                return str(access["natIP"])
    return ""


def _address(instance: Mapping[str, Any], settings: GceSettings) -> SshAddress | None:
    """None while it does not run: an address is given anew at each start, and may be somebody else's meanwhile."""
    if instance.get("status") != "RUNNING":
        return None
    if settings.iap:
        project = (
            str(instance.get("selfLink", "")).partition("/projects/")[2].partition("/")[0] or settings.project
        )
        proxy = PROXY.format(instance=instance["name"], project=project, zone=zone(instance))
        return SshAddress(f"compute.{instance['id']}", 22, _user(instance), proxy)
    found = external_address(instance)
    return SshAddress(found, 22, _user(instance)) if found else None


def has_os_login(instance: Mapping[str, Any]) -> bool:
    return metadata(instance).get("enable-oslogin", "").upper() == "TRUE"


def _user(instance: Mapping[str, Any]) -> str:
    """Who logs in: with OS Login it is the account's name."""
    told = metadata(instance).get(LOGIN_USER, "")
    return told if re.fullmatch(r"[a-z_][a-z0-9_.-]{0,63}", told) else USER


def _is_off(instance: Mapping[str, Any]) -> bool:
    return _STATES.get(instance.get("status", "")) is MachineState.STOPPED and "lastStopTimestamp" in instance


def _off_s(instance: Mapping[str, Any]) -> float:
    """Between its last stop and its last start; the cloud remembers no earlier ones."""
    stopped, started = instance.get("lastStopTimestamp"), instance.get("lastStartTimestamp")
    if not stopped or not started:
        return 0.0
    return max(0.0, (_time(started) - _time(stopped)).total_seconds())


def _about(instance: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return _dict(json.loads(metadata(instance).get(ABOUT, "{}")))
    except ValueError:
        return {}


def _created(instance: Mapping[str, Any], about: Mapping[str, Any]) -> datetime:
    """By the clock of the cloud or of the computer that asked, whichever is earlier.

    A run counts as this machine's when it was made after it: by a clock that is behind, it must not seem to be older.
    """
    created = _time(instance.get("creationTimestamp"))
    try:
        return min(created, _time(str(about["asked"])))
    except (KeyError, ValueError):
        return created


def _ends(marks: Mapping[str, str], created: datetime) -> datetime:
    """A label that was damaged by hand counts as past: then it is shown as what should be gone."""
    try:
        return datetime.fromtimestamp(int(marks[EXPIRES]), UTC)
    except (KeyError, ValueError, OverflowError, OSError):
        return created


def _accelerator(instance: Mapping[str, Any]) -> str:
    for found in instance.get("guestAccelerators", []):
        return str(found.get("acceleratorType", "")).rpartition("/")[2]
    return ""


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: object, otherwise: int) -> int:
    return value if isinstance(value, int) else otherwise


def _price(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _time(text: str | None) -> datetime:
    """RFC 3339 as UTC."""
    if not text:
        return datetime.fromtimestamp(0, UTC)
    return datetime.fromisoformat(text).astimezone(UTC)
