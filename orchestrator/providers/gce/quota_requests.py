"""Asking Google for more of a quota, through its Cloud Quotas API, which answers by mail after minutes to days.

Where that API may not be used, there are gcloud and the console: the same request by hand. The ids are other ones there:
GPUS_ALL_REGIONS is GPUS-ALL-REGIONS-per-project.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.errors import TlvmError
from orchestrator.providers.rented import Quota, QuotaRequest

from .rest import Rest
from .services import Services

_SERVICE = "compute.googleapis.com"
_CONSOLE = "https://console.cloud.google.com/iam-admin/quotas"
_WHY = "Training image classifiers on one machine at a time, for some hours (tlvm)."


@dataclass(frozen=True)
class Asked:
    """A request that Google has."""

    value: float
    granted: float
    is_pending: bool
    day: str  # ISO 8601


def by_hand(project: str, metric: str, region: str, value: float, email: str = "") -> QuotaRequest:
    command = [
        "gcloud", "beta", "quotas", "preferences", "create", f"--project={project}",
        f"--service={_SERVICE}", f"--quota-id={_id(metric, region)}", f"--preferred-value={value:g}",
    ]  # fmt: skip
    command += [f"--dimensions=region={region}"] if region else []
    command += [f"--email={email}"] if email else []
    return QuotaRequest(metric, region, value, command, f"{_CONSOLE}?project={project}")


def send(rest: Rest, request: QuotaRequest, email: str) -> QuotaRequest:
    """Under a name of its own: the same again changes that request, and makes no second one."""
    name = "-".join(part for part in ("tlvm", _id(request.metric, ""), request.region) if part).lower()
    path = f"v1/{_requests(rest.project)}/{name}"
    doing = f"take the request for {request.metric}"
    try:
        Services(rest).patch(
            "cloudquotas",
            path,
            {"allowMissing": "true"},
            body(request, email) | {"justification": _WHY},
            doing=doing,
        )
    except TlvmError as error:
        said = error.detail.splitlines()[0] if error.detail else ""
        return replace(request, refused=error.what + (f" ({said[:200]})" if said else ""))
    return replace(request, is_sent=True)


def body(request: QuotaRequest, email: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "service": _SERVICE,
        "quotaId": _id(request.metric, request.region),
        "quotaConfig": {"preferredValue": f"{request.value:g}"},
    }
    found |= {"dimensions": {"region": request.region}} if request.region else {}
    return found | ({"contactEmail": email} if email else {})


def with_requests(rest: Rest, known: Iterable[Quota]) -> list[Quota]:
    """The quotas, with what Google was asked for and has not granted; as they are where that can't be read."""
    known = list(known)
    try:
        asked = _asked(rest)
    except TlvmError:
        return known
    return [_with(quota, asked.get((_id(quota.metric, quota.region), quota.region))) for quota in known]


def _with(quota: Quota, asked: Asked | None) -> Quota:
    if asked is None or asked.value <= max(quota.limit, asked.granted):
        return quota
    return replace(quota, asked=asked.value, is_pending=asked.is_pending, asked_on=asked.day)


def _asked(rest: Rest) -> dict[tuple[str, str], Asked]:
    """By quota id and region; whoever asked, and however."""
    services, token = Services(rest), ""
    found: dict[tuple[str, str], Asked] = {}
    while True:
        query = {"pageSize": "100"} | ({"pageToken": token} if token else {})
        page = services.get(
            "cloudquotas", f"v1/{_requests(rest.project)}", query, doing="list quota requests"
        )
        for one in page.get("quotaPreferences", []):
            if one.get("service") == _SERVICE:
                region = str((one.get("dimensions") or {}).get("region", ""))
                found[str(one.get("quotaId")), region] = _read(one)
        token = page.get("nextPageToken", "")
        if not token:
            return found


def _read(one: Mapping[str, Any]) -> Asked:
    config = one.get("quotaConfig") or {}
    return Asked(
        float(config.get("preferredValue") or 0),
        float(config.get("grantedValue") or 0),
        bool(one.get("reconciling")),
        str(one.get("updateTime") or one.get("createTime") or "")[:10],
    )


def _requests(project: str) -> str:
    return f"projects/{project}/locations/global/quotaPreferences"


def _id(metric: str, region: str) -> str:
    return metric.replace("_", "-") + ("-per-project-region" if region else "-per-project")
