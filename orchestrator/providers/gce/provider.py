"""The verbs of a provider, on Compute Engine.

Everything that is known of a machine stands in its own labels and metadata: delete `.tlvm/`, and nothing is lost.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from orchestrator.config import GceSettings
from orchestrator.errors import (
    CapacityError,
    CloudError,
    ConfigError,
    ConflictError,
    NotFoundError,
    TlvmError,
    TransientError,
)
from orchestrator.progress import Progress, Silent
from orchestrator.providers.base import Machine, MachineSpec, MachineState, Offer, Unseen

from . import firewall, guest, images, insertion, oslogin, places
from .account import GceAccount
from .catalogue import Prices
from .errors import of_operation, translated
from .machine import has_os_login, is_ours, machine, metadata, region, zone
from .operations import Waiting, finish, wait
from .request import (
    ATTEMPT,
    KEEP_UNTIL,
    LABEL,
    OWNER,
    USER,
    Image,
    Insert,
    insert,
    scheduling,
    ssh_key,
)
from .requirements import require_possible
from .rest import Rest

_DEAD_WITHIN_S = 180.0


class GceProvider:
    name = "gce"

    def __init__(
        self,
        settings: GceSettings,
        progress: Progress | None = None,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        waiting: Waiting | None = None,
        prices_file: Path | None = None,
        owner: str = "",
        computer: str | None = None,
    ) -> None:
        """owner      whose machines are deleted, and found first where two owners have one of a name; "": anybody's
        computer   the name of this one
        """
        self.settings = settings
        self._owner = owner
        self._computer = computer or platform.node()
        self.rest = Rest(settings)
        self._prices = Prices(self.rest, prices_file, now)
        self._progress = progress or Silent()
        self._now = now
        self._waiting = waiting or Waiting()
        self._images: dict[str, Image] = {}
        self._admitted: set[str] = set()
        self._seen: dict[
            str, tuple[str, str]
        ] = {}  # name -> (zone, id): where to look first, and what to ask of

    def offers(self, spec: MachineSpec) -> list[Offer]:
        require_possible(spec, self.settings)
        with ThreadPoolExecutor(2) as pool:
            finding, pricing = pool.submit(self._image, spec.image), pool.submit(self._prices.today)
            there = places.look(self.rest, places.zones(self.rest, self.settings))
            found = places.offers(spec, self.settings, there, pricing.result())
            image = finding.result()
        for accelerator in dict.fromkeys(offer.accelerator for offer in found):
            images.check_generation(image, accelerator)
        return found

    def request(self, spec: MachineSpec, offer: Offer) -> Insert:
        """The very request that `create` sends; asks only what it needs to know."""
        firewall.check_private_access(self.rest, self.settings, offer.region or region(offer.place))
        image = self._image(spec.image)
        if spec.disk_gb and spec.disk_gb < image.disk_gb:
            raise ConfigError(
                f"machine.disk_gb is {spec.disk_gb}, and the image {image.link.rpartition('/')[2]} alone "
                f"has {image.disk_gb} GB",
                next="Ask for more.",
            )
        user = oslogin.name(self.rest, self.rest.account()) if self.settings.os_login else USER
        return insert(spec, offer, image, self.settings, self.rest.project, self._now(), user=user)

    def create(self, spec: MachineSpec, offer: Offer) -> Machine:
        """Returns when the cloud has really given the machine, which is when it would say that it has none."""
        require_possible(spec, self.settings)
        loading = insertion.load()
        found = self._named(spec.name)
        if found is not None and found["labels"][OWNER] != spec.owner:
            raise _belongs(found)
        if found is not None and not (spec.request_id and _attempt(found) == spec.request_id):
            return self._machine(found)
        request = self.request(spec, offer)
        ends = self._now() + timedelta(hours=spec.hours(offer.price_per_hour))
        self.admit(spec.owner, until=ends)
        if self.settings.os_login:
            oslogin.let_in(self.rest, self.rest.account(), spec.public_key, ends)
        doing = f"create the machine {spec.name} in {offer.place}"
        try:
            operation = insertion.send(self.rest, request, loading, doing, region=offer.region)
        except ConflictError as error:
            return self._taken(spec.name, error)
        except NotFoundError as error:
            raise self._lacking(error) from error
        # What breaks on the way is asked again with the same request id, and goes on where this stopped.
        done = wait(self.rest, operation, doing, waiting=self._waiting)
        if done is not None and (refusal := of_operation(done)):
            return self._refused(spec, offer, translated(refusal, doing, region=offer.region))
        made = self.rest.find(f"zones/{offer.place}/instances/{spec.name}")
        if made is None:
            why = "made, and taken away at once" if done else "accepted, and dropped without a word"
            raise CapacityError(f"no capacity ({why})")
        return self._only_one(spec, made)

    def get(self, name: str) -> Machine | None:
        found = self._ours(name)
        return self._machine(found) if found else None

    def machines(self) -> list[Machine]:
        instances, silent = self.rest.seen("instances", filter=f"labels.{LABEL}:*")
        found = [self._machine(instance) for instance in instances if is_ours(instance)]
        if silent:
            raise Unseen(
                f"Google Cloud can't say which machines are in {', '.join(silent)}",
                places=silent,
                machines=found,
            )
        return found

    def host_keys(self, name: str) -> list[str]:
        return guest.host_keys(self.rest, _path(self._existing(name)))

    def said(self, name: str) -> str:
        """Why it ended, as far as the cloud says, and the end of its serial console."""
        found = self._ours(name)
        where = (zone(found), str(found["id"])) if found else self._seen.get(name)
        if where is None:
            return ""
        why, told = ("", "")
        if not (found and found.get("status") == "RUNNING"):
            why, told = guest.why_it_ended(self.rest, *where)
        lines = [f"{why} ({told})"] if why else []
        if found:
            lines += guest.console(self.rest, _path(found))
        return "\n".join(lines).strip()

    def why_it_ended(self, place: str, id: str) -> str:
        """Of that very machine, which is gone; "" when the cloud does not remember."""
        return guest.why_it_ended(self.rest, place, id)[0]

    def ended_at(self, place: str, id: str) -> datetime:
        """When that very machine, which is gone, ended (UTC): by now, when the cloud does not remember."""
        return guest.ended_at(self.rest, place, id) or self._now()

    def taken_away(self, place: str, id: str) -> bool | None:
        """Whether the cloud, and not a person, ended that very machine; None when it does not remember."""
        return guest.taken_away(self.rest, place, id)

    def authorize(self, name: str, public_key: str, expires: datetime) -> None:
        line = ssh_key(public_key, expires)
        found = self._existing(name)
        if has_os_login(found):
            oslogin.let_in(self.rest, self.rest.account(), public_key, expires)
            self.admit(found["labels"].get(OWNER, ""))
            return
        key = public_key.split()[1]
        others = [
            other for other in metadata(found).get("ssh-keys", "").splitlines() if key not in other.split()
        ]
        self._set_metadata(found, {"ssh-keys": "\n".join([*others, line])})
        self.admit(found["labels"].get(OWNER, ""))

    def stop(self, name: str) -> None:
        found = self._existing(name)
        if self._machine(found).state is MachineState.STOPPED:
            return
        scratch = any(disk.get("type") == "SCRATCH" for disk in found.get("disks", []))
        self._act(found, "stop", query={"discardLocalSsd": "true"} if scratch else {})

    def start(self, name: str) -> None:
        found = self._existing(name)
        there = self._machine(found)
        if there.state in (MachineState.RUNNING, MachineState.STARTING):
            return
        left_s = (there.ends - self._now()).total_seconds()
        if left_s <= 0:
            raise ConflictError(
                f"The time of the machine {name} is over", next="tlvm down deletes it; tlvm up makes another."
            )
        spot = found.get("scheduling", {}).get("provisioningModel") == "SPOT"
        # The cloud counts anew from each start: without this the machine would live its whole time again.
        self._act(found, "setScheduling", body=scheduling(int(left_s), spot=spot))
        try:
            self._act(found, "start")
        except CapacityError as error:
            raise CapacityError(
                f"{there.place}, where the disk of {name} is, has no capacity to start it now",
                detail=f"{error.what}\n{error.detail}",
                next="tlvm start tries it again; or tlvm down, then tlvm up, which asks other places, too.",
            ) from None

    def is_settled(self, place: str, request_id: str) -> bool:
        """Whether a request to make a machine has had its effect, or none, for good: `get` tells which.

        False: it has not arrived by now. One that is being carried out is waited for.
        """
        doing = "find out what became of a request"
        for operation in self.rest.items(
            f"zones/{place}/operations", filter=f"clientOperationId={request_id}"
        ):
            wait(self.rest, operation, doing, waiting=self._waiting)
            return True
        return False

    def delete(self, name: str) -> None:
        for found in self._all(name):
            if is_ours(found) and self._may_delete(found):
                self._delete(found)

    def account(self) -> GceAccount:
        """What the project holds and allows beside machines."""
        return GceAccount(self, self._prices, self._waiting)

    def admit(self, owner: str, *, until: datetime | None = None) -> bool:
        """Let this computer's address through the firewall, as it is now; whether that changed anything.

        until   the end of a machine that is about to be made
        """
        if owner in self._admitted:  # by this process: an address does not change so fast
            return False
        changed = firewall.ensure(
            self.rest,
            self.settings,
            owner,
            self._progress,
            now=self._now(),
            computer=self._computer,
            until=until,
            waiting=self._waiting,
        )
        self._admitted.add(owner)
        return changed

    def keep_until(self, name: str, when: datetime) -> None:
        """Move the soft clock: the guard ends nothing before that."""
        self._set_metadata(self._existing(name), {KEEP_UNTIL: str(int(when.timestamp()))})

    def soft_end(self, name: str) -> datetime | None:
        """When the guard would end the machine; None while a run is active, somebody types, or it has not said."""
        return guest.soft_end(self.rest, _path(self._existing(name)))

    def _image(self, name: str) -> Image:
        if name not in self._images:
            self._images[name] = images.find(self.rest, self.settings, name)
        return self._images[name]

    def _taken(self, name: str, error: ConflictError) -> Machine:
        """Another terminal was faster, or the name is somebody else's."""
        found = self._ours(name)
        if found is not None and not self._may_delete(found):
            raise _belongs(found) from error
        if found is not None:
            return self._machine(found)
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

    def _disk_in_the_way(self, said: str) -> str:
        """The name of a disk of ours that the cloud says is there already; "" when it is about something else."""
        found = re.search(r"zones/[\w-]+/disks/([\w-]+)", said)
        disk = self.rest.find(found[0]) if found else None
        return str(disk["name"]) if disk and LABEL in disk.get("labels", {}) else ""

    def _refused(self, spec: MachineSpec, offer: Offer, error: TlvmError) -> Machine:
        """The operation is done, with an error. The same request again would be answered with the same error."""
        if isinstance(error, ConflictError):
            return self._taken(spec.name, error)
        self._prove_dead(spec, offer.place)
        if isinstance(error, NotFoundError):
            raise self._lacking(error)
        if isinstance(error, TransientError):
            raise CapacityError(f"not made: {error.detail}"[:200], detail=error.what)
        raise error

    @staticmethod
    def _lacking(error: TlvmError) -> ConfigError:
        return ConfigError(error.what, detail=error.detail, next="Change the setting that the message names.")

    def _prove_dead(self, spec: MachineSpec, place: str) -> None:
        """After an error nothing is left: no machine of this attempt, not even one that is just going."""
        path = f"zones/{place}/instances/{spec.name}"
        deadline = self._waiting.now() + _DEAD_WITHIN_S
        while (found := self.rest.find(path)) is not None and _attempt(found) == spec.request_id:
            if self._waiting.now() > deadline:
                raise CloudError(
                    f"The machine {spec.name} in {place} was refused, and is still there",
                    next="tlvm down deletes it; nothing else was tried.",
                )
            if self._machine(found).state is not MachineState.STOPPING:
                self._delete(found)
            self._waiting.sleep(1)

    def _only_one(self, spec: MachineSpec, made: Mapping[str, Any]) -> Machine:
        """Two terminals may have got one each, in two zones: the older one stays, and both of them use it."""
        all_of_it = [
            found for found in self._all(spec.name) if is_ours(found) and found["labels"][OWNER] == spec.owner
        ]
        living = [found for found in all_of_it if self._machine(found).state is not MachineState.STOPPING]
        oldest = min(
            [*living, made], key=lambda found: (found.get("creationTimestamp", ""), int(found["id"]))
        )
        if oldest["id"] != made["id"]:
            self._delete(made)
        return self._machine(oldest)

    def _delete(self, found: Mapping[str, Any]) -> None:
        try:
            self.rest.send("DELETE", _path(found), doing=f"delete the machine {found['name']}")
        except NotFoundError:
            return

    def _named(self, name: str) -> dict[str, Any] | None:
        """The instance of that name; ConflictError when it is one that is not ours."""
        there = self._all(name)
        ours = self._mine_first(there)
        if there and not ours:
            self._taken(name, ConflictError(""))
        return ours[0] if ours else None

    def _ours(self, name: str) -> dict[str, Any] | None:
        """First where it was last; only when it is not there, everywhere."""
        if name in self._seen:
            found = self.rest.find(f"zones/{self._seen[name][0]}/instances/{name}")
            if found is not None and is_ours(found):
                return found
        return next(iter(self._mine_first(self._all(name))), None)

    def _mine_first(self, found: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those that tlvm made."""
        return sorted(filter(is_ours, found), key=lambda one: not self._may_delete(one))

    def _may_delete(self, found: Mapping[str, Any]) -> bool:
        return self._owner in ("", found["labels"][OWNER])

    def _all(self, name: str) -> list[dict[str, Any]]:
        if not re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name):
            return []
        found, silent = self.rest.seen("instances", filter=f"name={name}")
        if not found and self._may_be_in(silent):
            raise Unseen(
                f"Google Cloud can't say whether there is a machine {name} in {', '.join(silent)}",
                places=silent,
            )
        return found

    def _may_be_in(self, places: Iterable[str]) -> bool:
        """An outage at the other end of the world is in nobody's way: machines are made in these zones only."""
        return any(place in self.settings.zones or region(place) in self.settings.zones for place in places)

    def _existing(self, name: str) -> dict[str, Any]:
        found = self._ours(name)
        if found is None:
            raise NotFoundError(f"There is no machine {name} on Google Cloud", next="tlvm up makes one.")
        return found

    def _machine(self, found: Mapping[str, Any]) -> Machine:
        self._seen[found["name"]] = (zone(found), str(found["id"]))
        return machine(found, self.settings)

    def _act(
        self,
        found: Mapping[str, Any],
        verb: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> None:
        doing = f"{verb} the machine {found['name']}"
        operation = self.rest.send("POST", f"{_path(found)}/{verb}", body=body, query=query, doing=doing)
        finish(self.rest, operation, doing, region=region(zone(found)), waiting=self._waiting)

    def _set_metadata(self, found: Mapping[str, Any], changes: Mapping[str, str]) -> None:
        """All of it is sent, with the fingerprint of what was read: somebody else's change meanwhile is not lost."""
        items = {**metadata(found), **changes}
        body = {
            "fingerprint": found.get("metadata", {}).get("fingerprint", ""),
            "items": [{"key": key, "value": value} for key, value in items.items()],
        }
        self._act(found, "setMetadata", body=body)


def _belongs(found: Mapping[str, Any]) -> ConflictError:
    owner = found["labels"][OWNER]
    return ConflictError(
        f"The machine {found['name']} belongs to {owner}; it was not touched",
        next="Choose another name with --machine.",
    )


def _path(found: Mapping[str, Any]) -> str:
    return f"zones/{zone(found)}/instances/{found['name']}"


def _attempt(found: Mapping[str, Any]) -> str:
    return str(found.get("labels", {}).get(ATTEMPT, ""))
