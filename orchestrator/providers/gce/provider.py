"""The verbs of a provider, on Compute Engine.

Everything that is known of a machine stands in its own labels and metadata: delete `.tlvm/`, and nothing is lost.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
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
from orchestrator.providers.base import Machine, MachineSpec, MachineState, Offer

from . import firewall, guest, images, insertion, oslogin, places
from .account import GceAccount
from .catalogue import Prices
from .errors import of_operation, translated
from .instances import Instances, belongs, path
from .machine import has_os_login, is_ours, metadata, region, zone
from .operations import Waiting, wait
from .request import (
    ATTEMPT,
    KEEP_UNTIL,
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
        self._computer = computer or platform.node()
        self.rest = Rest(settings)
        self._prices = Prices(self.rest, prices_file, now)
        self._progress = progress or Silent()
        self._now = now
        self._waiting = waiting or Waiting()
        self._images: dict[str, Image] = {}
        self._admitted: set[str] = set()
        self._instances = Instances(self.rest, settings, self._waiting, owner)

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
        user = oslogin.name(self.rest, self.rest.account()) if self.settings.os_login else USER
        return self._request(spec, offer, user)

    def create(self, spec: MachineSpec, offer: Offer) -> Machine:
        """Returns when the cloud has really given the machine, which is when it would say that it has none."""
        require_possible(spec, self.settings)
        loading = insertion.load()
        found = self._instances.named(spec.name)
        if found is not None and found["labels"][OWNER] != spec.owner:
            raise belongs(found)
        if found is not None and not (spec.request_id and _attempt(found) == spec.request_id):
            return self._instances.machine(found)
        request = self.request(spec, offer)
        ends = self._now() + timedelta(hours=spec.hours(offer.price_per_hour))
        self.admit(spec.owner, until=ends)
        if self.settings.os_login:
            user = oslogin.let_in(self.rest, self.rest.account(), spec.public_key, ends)
            request = self._request(spec, offer, user)  # whose name may have been made just now
        doing = f"create the machine {spec.name} in {offer.place}"
        try:
            operation = insertion.send(self.rest, request, loading, doing, region=offer.region)
        except ConflictError as error:
            return self._instances.taken(spec.name, error)
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
        found = self._instances.ours(name)
        return self._instances.machine(found) if found else None

    def machines(self) -> list[Machine]:
        return self._instances.everything()

    def host_keys(self, name: str) -> list[str]:
        return guest.host_keys(self.rest, path(self._instances.existing(name)))

    def said(self, name: str) -> str:
        """Why it ended, as far as the cloud says, and the end of its serial console."""
        found = self._instances.ours(name)
        where = (zone(found), str(found["id"])) if found else self._instances.seen.get(name)
        if where is None:
            return ""
        why, told = ("", "")
        if not (found and found.get("status") == "RUNNING"):
            why, told = guest.why_it_ended(self.rest, *where)
        lines = [f"{why} ({told})"] if why else []
        if found:
            lines += guest.console(self.rest, path(found))
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
        found = self._instances.existing(name)
        if has_os_login(found):
            oslogin.let_in(self.rest, self.rest.account(), public_key, expires)
            self.admit(found["labels"].get(OWNER, ""))
            return
        key = public_key.split()[1]
        others = [
            other for other in metadata(found).get("ssh-keys", "").splitlines() if key not in other.split()
        ]
        self._instances.set_metadata(found, {"ssh-keys": "\n".join([*others, line])})
        self.admit(found["labels"].get(OWNER, ""))

    def stop(self, name: str) -> None:
        found = self._instances.existing(name)
        if self._instances.machine(found).state is MachineState.STOPPED:
            return
        scratch = any(disk.get("type") == "SCRATCH" for disk in found.get("disks", []))
        self._instances.act(found, "stop", query={"discardLocalSsd": "true"} if scratch else {})

    def start(self, name: str) -> None:
        found = self._instances.existing(name)
        there = self._instances.machine(found)
        if there.state in (MachineState.RUNNING, MachineState.STARTING):
            return
        left_s = (there.ends - self._now()).total_seconds()
        if left_s <= 0:
            raise ConflictError(
                f"The time of the machine {name} is over", next="tlvm down deletes it; tlvm up makes another."
            )
        spot = found.get("scheduling", {}).get("provisioningModel") == "SPOT"
        # The cloud counts anew from each start: without this the machine would live its whole time again.
        self._instances.act(found, "setScheduling", body=scheduling(int(left_s), spot=spot))
        try:
            self._instances.act(found, "start")
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
        for found in self._instances.all(name):
            if is_ours(found) and self._instances.is_mine(found):
                self._instances.delete(found)

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
        self._instances.set_metadata(self._instances.existing(name), {KEEP_UNTIL: str(int(when.timestamp()))})

    def soft_end(self, name: str) -> datetime | None:
        """When the guard would end the machine; None while a run is active, somebody types, or it has not said."""
        return guest.soft_end(self.rest, path(self._instances.existing(name)))

    def _request(self, spec: MachineSpec, offer: Offer, user: str) -> Insert:
        image = self._image(spec.image)
        if spec.disk_gb and spec.disk_gb < image.disk_gb:
            raise ConfigError(
                f"machine.disk_gb is {spec.disk_gb}, and the image {image.link.rpartition('/')[2]} alone "
                f"has {image.disk_gb} GB",
                next="Ask for more.",
            )
        return insert(spec, offer, image, self.settings, self.rest.project, self._now(), user=user)

    def _image(self, name: str) -> Image:
        if name not in self._images:
            self._images[name] = images.find(self.rest, self.settings, name)
        return self._images[name]

    def _refused(self, spec: MachineSpec, offer: Offer, error: TlvmError) -> Machine:
        """The operation is done, with an error. The same request again would be answered with the same error."""
        if isinstance(error, ConflictError):
            return self._instances.taken(spec.name, error)
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
            if self._instances.machine(found).state is not MachineState.STOPPING:
                self._instances.delete(found)
            self._waiting.sleep(1)

    def _only_one(self, spec: MachineSpec, made: Mapping[str, Any]) -> Machine:
        """Two terminals may have got one each, in two zones: the older one stays, and both of them use it."""
        all_of_it = [
            found
            for found in self._instances.all(spec.name)
            if is_ours(found) and found["labels"][OWNER] == spec.owner
        ]
        living = [
            found for found in all_of_it if self._instances.machine(found).state is not MachineState.STOPPING
        ]
        oldest = min(
            [*living, made], key=lambda found: (found.get("creationTimestamp", ""), int(found["id"]))
        )
        if oldest["id"] != made["id"]:
            self._instances.delete(made)
        return self._instances.machine(oldest)


def _attempt(found: Mapping[str, Any]) -> str:
    return str(found.get("labels", {}).get(ATTEMPT, ""))
