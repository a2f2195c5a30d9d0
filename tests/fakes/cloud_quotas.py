"""Quota requests of the Cloud Quotas API. It has no discovery document here: names are those that gcloud's own client knows.

`projects/P/locations/global/quotaPreferences`, list and patch; `granted` is what somebody at Google does later.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tests.fakes.compute_faults import Refused
from tests.fakes.discovery import Call, Unexpected

Resource = dict[str, Any]

_PATH = re.compile(r"v1/(projects/[a-z0-9-]+/locations/global/quotaPreferences)(?:/([a-z0-9-]{1,63}))?")
_QUERY = {
    "list": {"filter", "orderBy", "pageSize", "pageToken"},
    "patch": {"allowMissing", "ignoreSafetyChecks", "updateMask", "validateOnly"},
}
_FIELDS = {
    "service": str, "quotaId": str, "quotaConfig": dict, "dimensions": dict, "contactEmail": str, "justification": str,
    "etag": str, "name": str,
}  # fmt: skip
_ID = re.compile(r"[A-Z0-9]+(-[A-Z0-9]+)*-per-project(-region)?")


def recognised(verb: str, path: str, query: Mapping[str, list[str]], body: Any) -> Call | None:
    found = _PATH.fullmatch(path)
    if found is None:
        return None
    method = {("GET", False): "list", ("PATCH", True): "patch"}.get((verb, found[2] is not None))
    if method is None:
        raise Unexpected(404, f"no method {verb} {path}")
    for name in query:
        if name not in _QUERY[method]:
            raise Unexpected(400, f"quotaPreferences.{method}: unknown parameter {name!r}")
    for name, value in (body or {}).items():
        if not isinstance(value, _FIELDS.get(name, ())):
            raise Unexpected(400, f"quotaPreferences.{method}: {name!r} may not be {value!r}")
    return Call(
        f"cloudquotas.quotaPreferences.{method}",
        {"name": path.removeprefix("v1/")},
        {name: values[-1] for name, values in query.items()},
    )


def patched(
    there: dict[str, Resource], name: str, query: Mapping[str, list[str]], body: Resource, now: datetime
) -> Resource:
    if name not in there and query.get("allowMissing") != ["true"]:
        raise Refused(404, "notFound", f"Quota preference {name} was not found.")
    wanted = str(body["quotaConfig"].get("preferredValue", ""))
    is_regional = "region" in body.get("dimensions", {})
    if not wanted.isdecimal() or not _ID.fullmatch(body["quotaId"]):
        raise Refused(400, "badRequest", f"Invalid quota {body['quotaId']} or value {wanted!r}.")
    if is_regional != body["quotaId"].endswith("-region"):
        raise Refused(400, "badRequest", f"Dimensions do not match {body['quotaId']}.")
    if "@" not in body.get("contactEmail", ""):
        raise Refused(400, "badRequest", "contact_email is required for an increase.")
    if any(other["quotaId"] == body["quotaId"] and other.get("dimensions") == body.get("dimensions")
           for known, other in there.items() if known != name):  # fmt: skip
        raise Refused(409, "alreadyExists", "A quota preference with the same dimensions exists.")
    stamp = f"{now:%Y-%m-%dT%H:%M:%S.%f}000Z"
    made = there.get(name, {}).get("createTime", stamp)
    there[name] = {**body, "name": name, "reconciling": True, "etag": f"e{len(there)}"}
    there[name] |= {"createTime": made, "updateTime": stamp}
    there[name]["quotaConfig"] = {"preferredValue": wanted, "grantedValue": "0"}
    return there[name]


def answered(there: dict[str, Resource], quota_id: str, granted: int) -> None:
    """Google's answer to a request."""
    for one in there.values():
        if one["quotaId"] == quota_id:
            one["reconciling"] = False
            one["quotaConfig"] = {**one["quotaConfig"], "grantedValue": str(granted)}
