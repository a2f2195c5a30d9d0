"""Instances of Compute Engine by name: which are ours and whose, in which zone, and what is done to one of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.config import GceSettings
from orchestrator.errors import ConflictError, NotFoundError
from orchestrator.providers.base import Machine, Unseen

from .machine import is_ours, machine, metadata, region, zone
from .operations import Waiting, finish
from .request import LABEL, OWNER
from .rest import Rest


class Instances:
    """owner    whose are deleted, and found first where two owners have one of a name; "": anybody's"""

    def __init__(self, rest: Rest, settings: GceSettings, waiting: Waiting, owner: str) -> None:
        self._rest = rest
        self._settings = settings
        self._waiting = waiting
        self._owner = owner
        self.seen: dict[
            str, tuple[str, str]
        ] = {}  # name -> (zone, id): where to look first, and what to ask of

    def machine(self, found: Mapping[str, Any]) -> Machine:
        self.seen[found["name"]] = (zone(found), str(found["id"]))
        return machine(found, self._settings)

    def ours(self, name: str) -> dict[str, Any] | None:
        """First where it was last; only when it is not there, everywhere."""
        if name in self.seen:
            found = self._rest.find(f"zones/{self.seen[name][0]}/instances/{name}")
            if found is not None and is_ours(found):
                return found
        return next(iter(self._mine_first(self.all(name))), None)

    def existing(self, name: str) -> dict[str, Any]:
        found = self.ours(name)
        if found is None:
            raise NotFoundError(f"There is no machine {name} on Google Cloud", next="tlvm up makes one.")
        return found

    def named(self, name: str) -> dict[str, Any] | None:
        """The instance of that name; ConflictError when it is one that is not ours."""
        there = self.all(name)
        ours = self._mine_first(there)
        if there and not ours:
            self.taken(name, ConflictError(""))
        return ours[0] if ours else None

    def all(self, name: str) -> list[dict[str, Any]]:
        """Everything of that name, in every zone, whoever made it."""
        if not re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name):
            return []
        found, silent = self._rest.seen("instances", filter=f"name={name}")
        if not found and self._may_be_in(silent):
            raise Unseen(
                f"Google Cloud can't say whether there is a machine {name} in {', '.join(silent)}",
                places=silent,
            )
        return found

    def everything(self) -> list[Machine]:
        """Ours, whoever's, in every zone."""
        there, silent = self._rest.seen("instances", filter=f"labels.{LABEL}:*")
        found = [self.machine(instance) for instance in there if is_ours(instance)]
        if silent:
            where = ", ".join(silent)
            raise Unseen(
                f"Google Cloud can't say which machines are in {where}", places=silent, machines=found
            )
        return found

    def taken(self, name: str, error: ConflictError) -> Machine:
        """Another terminal was faster, or the name is somebody else's."""
        found = self.ours(name)
        if found is not None and not self.is_mine(found):
            raise belongs(found) from error
        if found is not None:
            return self.machine(found)
        if left := self._disk_in_the_way(error.detail):
            raise ConflictError(
                f"A disk {left} of an earlier machine is in the way; it was not touched",
                detail=error.detail,
                next=f"tlvm gc {left} deletes it; or choose another name with --machine.",
            ) from error
        raise ConflictError(
            f"The name {name} is taken by an instance that tlvm did not make; it was not touched",
            detail=error.detail,
            next="Choose another name with --machine.",
        ) from error

    def is_mine(self, found: Mapping[str, Any]) -> bool:
        return self._owner in ("", found["labels"][OWNER])

    def delete(self, found: Mapping[str, Any]) -> None:
        try:
            self._rest.send("DELETE", path(found), doing=f"delete the machine {found['name']}")
        except NotFoundError:
            return

    def act(
        self,
        found: Mapping[str, Any],
        verb: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> None:
        doing = f"{verb} the machine {found['name']}"
        operation = self._rest.send("POST", f"{path(found)}/{verb}", body=body, query=query, doing=doing)
        finish(self._rest, operation, doing, region=region(zone(found)), waiting=self._waiting)

    def set_metadata(self, found: Mapping[str, Any], changes: Mapping[str, str]) -> None:
        """All of it is sent, with the fingerprint of what was read: somebody else's change meanwhile is not lost."""
        items = {**metadata(found), **changes}
        body = {
            "fingerprint": found.get("metadata", {}).get("fingerprint", ""),
            "items": [{"key": key, "value": value} for key, value in items.items()],
        }
        self.act(found, "setMetadata", body=body)

    def _mine_first(self, found: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those that tlvm made."""
        return sorted(filter(is_ours, found), key=lambda one: not self.is_mine(one))

    def _may_be_in(self, places: Iterable[str]) -> bool:
        """An outage at the other end of the world is in nobody's way: machines are made in these zones only."""
        zones = self._settings.zones
        return any(place in zones or region(place) in zones for place in places)

    def _disk_in_the_way(self, said: str) -> str:
        """The name of a disk of ours that the cloud says is there already; "" when it is about something else."""
        found = re.search(r"zones/[\w-]+/disks/([\w-]+)", said)
        disk = self._rest.find(found[0]) if found else None
        return str(disk["name"]) if disk and LABEL in disk.get("labels", {}) else ""


def belongs(found: Mapping[str, Any]) -> ConflictError:
    owner = found["labels"][OWNER]
    return ConflictError(
        f"The machine {found['name']} belongs to {owner}; it was not touched",
        next="Choose another name with --machine.",
    )


def path(found: Mapping[str, Any]) -> str:
    return f"zones/{zone(found)}/instances/{found['name']}"
