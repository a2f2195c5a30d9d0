"""The state of the fake Compute Engine: resources, operations, and a clock under the test's control.

What happens by itself (an operation ends, a machine's time is over) is an event with a time. Events happen, in order,
when the clock is moved and before each request is answered: between two requests nobody can tell the difference.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from tests.fakes import compute_catalogue
from tests.fakes.compute_catalogue import Resource, link
from tests.fakes.compute_faults import Failed, Refused, operation_error

USER = "tester@example.org"
NUMBER = "471147114711"


class Clock:
    """Real time, `rate` times as fast (0: it stands still), plus what it was advanced by."""

    def __init__(self, rate: float = 1.0) -> None:
        self._began = datetime.now(UTC)
        self._from = time.monotonic()
        self._rate = rate
        self._ahead_s = 0.0
        self.moved: Callable[[], None] = lambda: None

    def now(self) -> datetime:
        passed_s = (time.monotonic() - self._from) * self._rate + self._ahead_s
        return self._began + timedelta(seconds=passed_s)

    def advance(self, seconds: float) -> None:
        """Let so much time pass; what falls due in it has happened when this returns."""
        self._ahead_s += seconds
        self.moved()


@dataclass
class Guest:
    """What is known of a machine beside its resource, by its id."""

    attributes: dict[str, str] = field(default_factory=dict)  # "hostkeys/ssh-ed25519" -> value
    boots: int = 0
    preempted: bool = False
    console: str = ""  # what this side writes; the hardware has more


class Cloud:
    """One project.

    operation_s     how long operations of a type take ("insert", "delete", "stop", ...), 0 unless set: done when
                    somebody looks again
    lingers_s       so long an instance that was refused in the end is still there
    unreachable     zones that aggregated lists can't reach
    frozen_zones    zones where nothing can be made: insert ends with a stock-out
    """

    def __init__(self, project: str, clock: Clock) -> None:
        self.project = project
        self.clock = clock
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.resources: dict[str, dict[tuple[str, str], Resource]] = defaultdict(dict)
        self.resources |= compute_catalogue.offered(project)
        self.images = compute_catalogue.images()
        self.images[project] = {}
        self.guests: dict[str, Guest] = defaultdict(Guest)
        self.region_quotas = {
            region: dict(compute_catalogue.REGION_QUOTAS) for region in compute_catalogue.ZONES
        }
        self.project_quotas: dict[str, float] = dict(compute_catalogue.PROJECT_QUOTAS)
        self.metadata: dict[str, str] = {}  # of the project: "enable-oslogin", ...
        self.service_accounts = {
            f"tlvm-machine@{project}.iam.gserviceaccount.com",
            f"{NUMBER}-compute@developer.gserviceaccount.com",
        }
        self.operation_s: dict[str, float] = defaultdict(float)
        self.operations_kept_s = 14 * 24 * 3600.0
        self.unreachable: set[str] = set()
        self.frozen_zones: set[str] = set()
        self.lingers_s = 0.0
        self.fault = ""  # of the request that is being answered
        self._events: list[tuple[datetime, int, Callable[[], None]]] = []
        self._numbers = itertools.count(time.time_ns())  # of no other server: processes are found by them
        self._requests: dict[tuple[str, str], Resource] = {}
        self._time = clock.now()
        clock.moved = self.settle

    # Time

    def now(self) -> datetime:
        """While an event happens, its own time; else the clock's."""
        return self._time

    def at(self, when: datetime, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), event))

    def settle(self) -> None:
        """Let happen what is due."""
        with self.lock:
            now = self.clock.now()
            while self._events and self._events[0][0] <= now:
                when, _, event = heapq.heappop(self._events)
                self._time = max(self._time, when)
                event()
                self.changed.notify_all()
            self._time = max(self._time, now)

    # Resources

    def find(self, collection: str, scope: str, name: str) -> Resource:
        """The resource; Refused with 404 when there is none."""
        found = self.resources[collection].get((scope, name))
        if found is None:
            raise not_found(self.path(scope, collection, name))
        return found

    def add(self, collection: str, scope: str, resource: Resource) -> Resource:
        """Keep a new resource, with what every one has. Refused with 409 when its name is taken."""
        name = resource["name"]
        if (scope, name) in self.resources[collection]:
            raise Refused(
                409, "alreadyExists", f"The resource '{self.path(scope, collection, name)}' already exists"
            )
        place, _, where = scope.partition("/")
        kind = {"addresses": "address"}.get(collection, collection.removesuffix("s"))
        resource |= {
            "kind": f"compute#{kind}",
            "id": self.number(),
            "creationTimestamp": stamp(self.now()),
            "selfLink": link(self.project, scope, collection, name),
        }
        if where:
            resource[place.removesuffix("s")] = link(self.project, "", place, where)
        self.resources[collection][scope, name] = resource
        return resource

    def remove(self, collection: str, resource: Resource) -> None:
        """Gone already is fine."""
        for key, found in list(self.resources[collection].items()):
            if found is resource:
                del self.resources[collection][key]

    def path(self, scope: str, collection: str, name: str) -> str:
        return "/".join(part for part in ("projects", self.project, scope, collection, name) if part)

    def number(self) -> str:
        return str(next(self._numbers))

    # Operations

    def once(self, request: str, request_id: str, act: Callable[[], Resource]) -> Resource:
        """What `act` returns; the same again for the same request id, without acting again."""
        if request_id:
            try:
                number = uuid.UUID(request_id).int
            except ValueError:
                number = 0
            if number == 0:
                raise Refused(400, "invalid", f"Invalid value for field 'requestId': '{request_id}'.")
        known = self._requests.get((request, request_id))
        if known is not None:
            return known
        made = act()
        if request_id:
            self._requests[request, request_id] = made
            if made.get("kind") == "compute#operation":
                made["clientOperationId"] = request_id
        return made

    def operate(
        self,
        kind: str,
        scope: str,
        target: Resource,
        effect: Callable[[], None],
        undo: Callable[[], None] = lambda: None,
    ) -> Resource:
        """Start an operation: `effect` happens at its end, or `undo` when it ends with an error.

        An effect fails by raising Failed. The fault of the request decides before it.
        """
        fault = self.fault
        operation = self._operation(kind, scope, target, f"operation-{uuid.uuid4()}")

        def end() -> None:
            try:
                if fault == "vanish":
                    undo()
                elif fault in _ERRORS:
                    raise failure(fault, scope, target)
                else:
                    effect()
            except Failed as failed:
                undo()
                operation["error"] = {"errors": [failed.error]}
                operation["httpErrorStatusCode"], operation["httpErrorMessage"] = failed.http
            self._close(operation)

        self.at(self.now() + timedelta(seconds=self.operation_s[kind]), end)
        return operation

    def happened(self, kind: str, scope: str, target: Resource) -> Resource:
        """An operation that the cloud itself began, and that is done: "compute.instances.preempted"."""
        operation = self._operation(kind, scope, target, f"systemevent-{uuid.uuid4()}")
        operation["user"] = "system"
        self._close(operation)
        return operation

    def wait(self, operation: Resource, within_s: float) -> None:
        """Until it is done, or some time has passed: the real one waits for two minutes."""
        deadline = time.monotonic() + within_s
        while operation["status"] != "DONE" and time.monotonic() < deadline:
            self.changed.wait(0.01)
            self.settle()

    def collect(self, operation: Resource) -> None:
        """Forget an operation."""
        self.remove("operations", operation)

    def _operation(self, kind: str, scope: str, target: Resource, name: str) -> Resource:
        now = stamp(self.now())
        operation = {
            "name": name,
            "operationType": kind,
            "targetLink": target["selfLink"],
            "targetId": target["id"],
            "status": "RUNNING",
            "user": USER,
            "progress": 0,
            "insertTime": now,
            "startTime": now,
        }
        made = self.add("operations", scope, operation)
        made.pop("creationTimestamp")
        return made

    def _close(self, operation: Resource) -> None:
        operation |= {"status": "DONE", "progress": 100, "endTime": stamp(self.now())}
        self.at(self.now() + timedelta(seconds=self.operations_kept_s), lambda: self.collect(operation))


_ERRORS = (
    "stock-out", "plain stock-out", "quota", "global quota", "preempted creation", "operation rate", "not ready",
    "internal error",
)  # fmt: skip


def failure(fault: str, scope: str, target: Resource) -> Failed:
    """The error of an operation, with the names of what it was about."""
    machine_type = str(target.get("machineType", "")).rpartition("/")[2]
    accelerators = "".join(
        f"{entry['acceleratorCount']} {entry['acceleratorType'].rpartition('/')[2]}"
        for entry in target.get("guestAccelerators", [])
    )
    return operation_error(fault, scope.rpartition("/")[2], machine_type, accelerators)


def not_found(path: str) -> Refused:
    return Refused(404, "notFound", f"The resource '{path}' was not found")


def stamp(when: datetime) -> str:
    """As the service writes times: in the time of California, without saying whether it is summer there."""
    return (when - timedelta(hours=8)).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "-08:00"


def items(metadata: Mapping[str, object] | None) -> dict[str, str]:
    """The entries of a Metadata message."""
    found = (metadata or {}).get("items", [])
    assert isinstance(found, list)
    return {entry["key"]: str(entry.get("value", "")) for entry in found}
