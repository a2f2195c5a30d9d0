"""What goes wrong with the fake Compute Engine, by script, and what the service says then."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

Resource = dict[str, Any]

Kind = Literal[
    # answered instead of doing it
    "401", "403 permission", "403 quota", "403 global quota", "403 rate", "403 disabled", "404", "409", "412", "429",
    "500", "503",
    # accepted, and then the operation ends with an error: nothing was made, nothing deleted
    "stock-out", "plain stock-out", "quota", "global quota", "preempted creation", "operation rate", "not ready",
    "internal error",
    "vanish",  # accepted, the operation succeeds, the thing is not there
    # on the way
    "503 after", "reset after", "stall after",  # done, and then: an error, a reset connection, no answer
    "reset", "stall",  # not done
    # of operations
    "collected",  # it is not known any more: 404, now and later
    "unfinished",  # `wait` and `get` answer RUNNING although it is done
]  # fmt: skip

OPERATION_KINDS = (
    "stock-out", "plain stock-out", "quota", "global quota", "preempted creation", "operation rate", "not ready",
    "internal error", "vanish",
)  # fmt: skip


class Refused(Exception):
    """An error answer, in the service's own words."""

    def __init__(self, code: int, reason: str, message: str, details: list[Resource] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details or []


class Failed(Exception):
    """The error with which an operation ends."""

    def __init__(
        self, code: str, message: str, http: tuple[int, str], details: list[Resource] | None = None
    ) -> None:
        super().__init__(message)
        self.http = http
        self.error: Resource = {"code": code, "message": message}
        if details:
            self.error["errorDetails"] = details


@dataclass
class Fault:
    """The requests number `skip + 1` ... `skip + times` whose call matches `on` and whose path matches `path`."""

    kind: str
    on: str
    path: str
    times: int
    skip: int = 0


@dataclass
class Faults:
    _faults: list[Fault] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(
        self,
        kind: Kind | str,
        on: str = "instances.insert",
        *,
        path: str = "*",
        times: int = 1,
        skip: int = 0,
    ) -> None:
        """on    calls, as "instances.insert" or "*Operations.get"
        path  decoded, relative to the API, as "*/zones/us-central1-a/*"
        skip  so many requests of that kind go well before
        """
        if kind not in get_args(Kind):
            raise ValueError(f"no such fault: {kind}")
        with self._lock:
            self._faults.append(Fault(kind, on, path, times, skip))

    def take(self, call: str, path: str) -> str:
        """The fault that this request meets, which is thereby used up; "" for none."""
        with self._lock:
            for fault in self._faults:
                if fault.times and fnmatchcase(call, fault.on) and fnmatchcase(path, fault.path):
                    if fault.skip:
                        fault.skip -= 1
                        continue
                    fault.times -= 1
                    return fault.kind
        return ""

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def unused(self) -> list[Fault]:
        with self._lock:
            return [fault for fault in self._faults if fault.times]


def refusal(kind: str, call: str, target: str, project: str) -> Refused:
    """The answer for "401" ... "503 after"."""
    if kind == "403 disabled":
        return disabled("compute.googleapis.com", "Compute Engine API", project)
    if kind == "403 permission":
        return forbidden(permission(call), target)
    if kind in {"403 quota", "403 global quota"}:
        failed = operation_error("quota" if kind == "403 quota" else "global quota", "us-central1-a", "", "")
        return Refused(403, "quotaExceeded", str(failed.error["message"]))
    code, reason, message = _ANSWERS[kind.removesuffix(" after")]
    return Refused(code, reason, message.format(target=target))


_ANSWERS: dict[str, tuple[int, str, str]] = {
    "401": (
        401,
        "authError",
        "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid "
        "authentication credential.",
    ),
    "403 rate": (
        403,
        "rateLimitExceeded",
        "Quota exceeded for quota metric 'Queries' and limit 'Queries per minute' of service "
        "'compute.googleapis.com' for consumer 'project_number:4711'.",
    ),
    "404": (404, "notFound", "The resource '{target}' was not found"),
    "409": (409, "alreadyExists", "The resource '{target}' already exists"),
    "412": (412, "conditionNotMet", "Supplied fingerprint does not match current metadata fingerprint."),
    "429": (429, "rateLimitExceeded", "Rate Limit Exceeded"),
    "500": (500, "internalError", "Internal Error"),
    "503": (503, "backendError", "Internal error. Please try again or contact Google Support. (Code: '-7')"),
}


def permission(call: str) -> str:
    """The permission that a call needs: "compute.instances.create"."""
    resource, method = call.split(".")
    resource = resource.replace("imageFamilyViews", "images")
    verb = {
        "insert": "create", "aggregatedList": "list", "getFromFamily": "getFromFamily", "patch": "update", "wait": "get",
    }.get(method, method)  # fmt: skip
    return f"compute.{resource}.{verb}"


def forbidden(needed: str, target: str) -> Refused:
    return Refused(403, "forbidden", f"Required '{needed}' permission for '{target}'")


def disabled(service: str, title: str, project: str) -> Refused:
    url = f"https://console.developers.google.com/apis/api/{service}/overview?project={project}"
    message = (
        f"{title} has not been used in project {project} before or it is disabled. Enable it by visiting {url} then "
        "retry. If you enabled this API recently, wait a few minutes for the action to propagate to our systems and retry."
    )
    info = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "SERVICE_DISABLED",
        "domain": "googleapis.com",
        "metadata": {"service": service, "consumer": f"projects/{project}", "activationUrl": url},
    }
    return Refused(403, "accessNotConfigured", message, [info])


def operation_error(kind: str, zone: str, machine_type: str, accelerator: str) -> Failed:
    """The error for "stock-out" ... "internal error"."""
    return _OPERATION_ERRORS[kind](zone, machine_type, accelerator)


def _stock_out(zone: str, machine_type: str, accelerator: str) -> Failed:
    message = (
        f"The zone '{zone}' does not have enough resources available to fulfill the request.  "
        "Try a different zone, or try again later."
    )
    said = f"A {machine_type} VM instance with {accelerator or 'no accelerator'} is currently unavailable in the {zone} zone."
    info: Resource = {
        "reason": "resource_availability",
        "domain": "compute.googleapis.com",
        "metadatas": {
            "zone": zone, "vmType": machine_type, "attachment": accelerator, "zonesAvailable": "",
        },
    }  # fmt: skip
    details: list[Resource] = [
        {"errorInfo": info},
        {"localizedMessage": {"locale": "en-US", "message": said}},
    ]
    return Failed("ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", message, (503, "SERVICE UNAVAILABLE"), details)


def _plain_stock_out(zone: str, machine_type: str, accelerator: str) -> Failed:
    message = (
        f"The zone '{zone}' does not have enough resources available to fulfill the request.  "
        "Try a different zone, or try again later."
    )
    return Failed("ZONE_RESOURCE_POOL_EXHAUSTED", message, (503, "SERVICE UNAVAILABLE"))


def quota_error(metric: str, limit: float, region: str) -> Failed:
    """region   "" for a quota of the whole project"""
    where = f"in region {region}" if region else "globally"
    scope = "per-project-region" if region else "per-project"
    info = {
        "metricName": f"compute.googleapis.com/{metric.lower()}",
        "limitName": f"{metric.replace('_', '-')}-{scope}",
        "limit": limit,
        "dimensions": {"region": region or "global"},
    }
    message = f"Quota '{metric}' exceeded.  Limit: {limit:.1f} {where}."
    return Failed("QUOTA_EXCEEDED", message, (403, "FORBIDDEN"), [{"quotaInfo": info}])


def _conflicting(code: str, message: str, http: tuple[int, str]) -> Callable[[str, str, str], Failed]:
    return lambda zone, machine_type, accelerator: Failed(code, message.format(zone=zone), http)


_OPERATION_ERRORS: dict[str, Callable[[str, str, str], Failed]] = {
    "stock-out": _stock_out,
    "plain stock-out": _plain_stock_out,
    "quota": lambda zone, *_: quota_error("NVIDIA_L4_GPUS", 0, zone[:-2]),
    "global quota": lambda *_: quota_error("GPUS_ALL_REGIONS", 0, ""),
    "preempted creation": _conflicting(
        "UNSUPPORTED_OPERATION", "Instance was preempted while it was being created.", (400, "BAD REQUEST")
    ),
    "operation rate": _conflicting(
        "RESOURCE_OPERATION_RATE_EXCEEDED",
        "Operation rate exceeded for resource in zone {zone}. Too frequent operations from the source resource.",
        (403, "FORBIDDEN"),
    ),
    "not ready": _conflicting(
        "RESOURCE_NOT_READY", "The resource in zone {zone} is not ready", (400, "BAD REQUEST")
    ),
    "internal error": _conflicting(
        "INTERNAL_ERROR",
        "Internal error. Please try again or contact Google Support. (Code: '-5')",
        (500, "INTERNAL SERVER ERROR"),
    ),
}
