"""What a machine and the cloud say of its life: host keys, its serial console, its soft clock, why it ended."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from .rest import Rest

HOST_KEY_KINDS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa")
_SAID_LINES = 40
_STARTUP_LINES = 20
_STARTUP = re.compile(
    r"startup-script: |^tlvm: "
)  # as Google's agent writes what the script prints; and in a container
_ENDED = {
    "compute.instances.preempted": "Google took it away: a spot machine, preempted",
    "compute.instances.hostError": "its host failed",
    "compute.instances.guestTerminate": "it powered itself off",
    "compute.instances.terminateOnHostMaintenance": "its host went into maintenance",
    "delete": "it was deleted",
    "stop": "it was stopped",
}
_BY_PERSONS = ("delete", "stop")
_ONE_END = timedelta(minutes=10)


def host_keys(rest: Rest, path: str) -> list[str]:
    """As the machine published them; [] while it has not. path is that of the instance."""
    found = _attributes(rest, path, "hostkeys/")
    keys = {
        item.get("key"): str(item.get("value", "")) for item in found if item.get("namespace") == "hostkeys"
    }
    return [f"{kind} {key}" for kind in HOST_KEY_KINDS if (key := _host_key(keys.get(kind, ""))) is not None]


def soft_end(rest: Rest, path: str) -> datetime | None:
    """When the guard would end the machine; None while it is needed, or has not said."""
    found = _attributes(rest, path, "tlvm/soft-end")
    text = str(found[0].get("value", "")) if found else ""
    return datetime.fromtimestamp(int(text), UTC) if re.fullmatch(r"[0-9]{1,11}", text) else None


def console(rest: Rest, path: str) -> list[str]:
    """The last lines of its serial port, and before them the last of the startup script, which writes there as well."""
    found = rest.find(f"{path}/serialPort") or {}
    lines = str(found.get("contents", "")).splitlines()
    startup = [line for line in lines[:-_SAID_LINES] if _STARTUP.search(line)]
    return startup[-_STARTUP_LINES:] + lines[-_SAID_LINES:]


def why_it_ended(rest: Rest, zone: str, id: str) -> tuple[str, str]:
    """From the cloud's operations on this very instance, as the name may be another one's by now; and its own words.

    ("", "") when it does not remember.
    """
    last = _last_end(rest, zone, id)
    if last is None:
        return "", ""
    return _ENDED[last["operationType"]], f"{last['operationType']}, {last.get('insertTime', '')}"


def ended_at(rest: Rest, zone: str, id: str) -> datetime | None:
    """When it stopped or was deleted (UTC); None when the cloud does not remember."""
    last = _last_end(rest, zone, id) or {}
    text = str(last.get("endTime") or last.get("insertTime") or "")
    return datetime.fromisoformat(text).astimezone(UTC) if text else None


def taken_away(rest: Rest, zone: str, id: str) -> bool | None:
    """Whether the cloud ended it, not a person; None when it does not remember."""
    ends = _ends(rest, zone, id)
    if not ends:
        return None
    # The deletion that follows a preemption may be written down as an operation of its own.
    close = [found for found in ends if _when(ends[-1]) - _when(found) < _ONE_END]
    return any(found["operationType"] not in _BY_PERSONS for found in close)


def _last_end(rest: Rest, zone: str, id: str) -> dict[str, Any] | None:
    return next(reversed(_ends(rest, zone, id)), None)


def _ends(rest: Rest, zone: str, id: str) -> list[dict[str, Any]]:
    """Operations that ended it, the oldest first."""
    operations = rest.items(f"zones/{zone}/operations", filter=f"targetId={id}")
    ended = [found for found in operations if found.get("operationType") in _ENDED]
    return sorted(ended, key=lambda found: str(found.get("insertTime", "")))


def _when(operation: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(str(operation.get("insertTime")) or "1970-01-01T00:00:00+00:00")


def _attributes(rest: Rest, path: str, query: str) -> list[dict[str, Any]]:
    """Guest attributes; a 404 says that there is none yet."""
    answer = rest.find(f"{path}/getGuestAttributes", queryPath=query) or {}
    return list((answer.get("queryValue") or {}).get("items") or [])


def _host_key(text: str) -> str | None:
    """The key alone: what follows it, a comment or another line, is the machine's word and goes nowhere."""
    key = next(iter(text.split(maxsplit=1)), "")
    try:
        canonical = base64.b64encode(base64.b64decode(key, validate=True)).decode()
    except (binascii.Error, ValueError):
        return None
    return key if key and key == canonical else None
