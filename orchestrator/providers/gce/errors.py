"""What Compute Engine says when it refuses, in our words: one normaliser for answers, operations and the network.

    an answer             {"error": {"code": 403, "message": ..., "errors": [{"reason": "quotaExceeded"}], "details": [...]}}
    an operation's error  {"httpErrorStatusCode": 503, "error": {"errors": [{"code": "ZONE_RESOURCE_POOL_EXHAUSTED"}]}}
    no answer             requests' own errors, google-auth's own errors

It is told by reason or code, never by class: a quota and a missing permission are both a 403.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import requests
from google.auth.exceptions import GoogleAuthError, TransportError

from orchestrator.errors import (
    AuthError,
    CapacityError,
    CloudError,
    ConfigError,
    ConflictError,
    NotFoundError,
    QuotaError,
    TlvmError,
    TransientError,
)
from orchestrator.resources import folder

LOGIN = "gcloud auth application-default login"
AGAIN = "Try again in a minute; status.cloud.google.com tells of outages."

_EXHAUSTED = "ZONE_RESOURCE_POOL_EXHAUSTED"  # plain, or _WITH_DETAILS; matched by its start
_NOT_HERE = {
    "UNSUPPORTED_OPERATION",  # undocumented: the machine was preempted while it was made
    "resourcePoolExhausted",
    "STOCKOUT",
}
_LATER = {
    "rateLimitExceeded",
    "userRateLimitExceeded",
    "RATE_LIMIT_EXCEEDED",
    "RESOURCE_OPERATION_RATE_EXCEEDED",
}
_BUSY = {"RESOURCE_NOT_READY", "resourceNotReady", "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE_BEING_DELETED"}
_QUOTA = {"quotaExceeded", "QUOTA_EXCEEDED"}
_NOT_ENABLED = {"accessNotConfigured", "SERVICE_DISABLED"}
_TRANSIENT = {408, 429, 500, 502, 503, 504}
_PERMISSION = re.compile(r"Required '([\w.]+)' permission for '([^']+)'")
_DETAIL_MAX = 1000
_SETUP = folder("infra") / "gce" / "setup.sh"


@dataclass(frozen=True)
class Refusal:
    """One refusal of the cloud, whichever way it came."""

    code: int  # HTTP
    message: str
    reasons: frozenset[str] = frozenset()
    facts: Mapping[str, str] = field(default_factory=dict)  # zone, vmType, activationUrl, metricName ...


def of_answer(response: requests.Response) -> Refusal:
    """An answer other than success; a proxy's page of HTML is one, too."""
    try:
        error = response.json()["error"]
        listed = [entry for entry in error.get("errors", []) if isinstance(entry, dict)]
        details = [entry for entry in error.get("details", []) if isinstance(entry, dict)]
    except (ValueError, KeyError, TypeError, AttributeError):
        return Refusal(response.status_code, response.text[:_DETAIL_MAX])
    reasons = [entry.get("reason") for entry in (*listed, *details)] + [error.get("status")]
    facts: dict[str, str] = {}
    for entry in details:
        facts |= _texts(entry.get("metadata")) | _texts(entry)
    return Refusal(
        int(error.get("code") or response.status_code),
        str(error.get("message", "")),
        frozenset(str(reason) for reason in reasons if reason),
        facts,
    )


def of_operation(operation: Mapping[str, Any]) -> Refusal | None:
    """What went wrong in an operation that is done; None when nothing did."""
    errors = (operation.get("error") or {}).get("errors") or []
    code = int(operation.get("httpErrorStatusCode") or 0)
    if not errors and code < 400:
        return None
    facts: dict[str, str] = {}
    for error in errors:
        for entry in error.get("errorDetails") or []:
            facts |= _texts((entry.get("errorInfo") or {}).get("metadatas"))
            facts |= _texts(entry.get("quotaInfo"))
    said = "; ".join(str(error.get("message", "")) for error in errors)
    return Refusal(
        code,
        said or str(operation.get("httpErrorMessage", "")),
        frozenset(str(error.get("code", "")) for error in errors),
        facts,
    )


def translated(refusal: Refusal, doing: str, *, region: str = "") -> TlvmError:
    """The refusal as an error of ours.

    doing    "create the machine tlvm-ana-trees in us-central1-b"
    region   where it was; a quota that is not of the whole project is this region's
    """
    what, detail = f"Google Cloud did not {doing}", refusal.message[:_DETAIL_MAX]
    if reason := is_exhausted(refusal):
        return CapacityError(f"no capacity ({reason})", detail=detail, next=_other_places(refusal))
    if refusal.reasons & _QUOTA:
        return _quota(refusal, region)
    if refusal.reasons & _NOT_ENABLED:
        url = refusal.facts.get("activationUrl", "")
        service = refusal.facts.get("service", "compute.googleapis.com")
        title = "Compute Engine API" if service.startswith("compute.") else f"API {service}"
        return AuthError(
            f"{what}: the {title} is not enabled in the project",
            detail="\n".join(
                part for part in (detail, url) if part and (part == detail or url not in detail)
            ),
            next=f"Enable it, then wait some minutes: gcloud services enable {service} --project={_project(refusal)}",
        )
    if _is_about_the_account(refusal):
        return ConfigError(
            f"{what}: the service account that it should run as does not exist, or you may not use it",
            detail=detail,
            next=f"Make it, and let yourself use it: {setup(_project(refusal))}",
        )
    if refusal.code in _TRANSIENT or refusal.reasons & (_LATER | _BUSY):
        return TransientError(f"{what} just now ({refusal.code or 'operation'})", detail=detail, next=AGAIN)
    if refusal.code == 401:
        return AuthError(f"{what}: it does not know who you are", detail=detail, next=f"Log in: {LOGIN}")
    if refusal.code == 412 or "CONDITION_NOT_MET" in refusal.reasons:
        return TransientError(f"{what}: it was changed meanwhile", detail=detail, next="Try again.")
    if refusal.code == 403:
        return _forbidden(what, refusal, detail)
    if refusal.code == 404 or "RESOURCE_NOT_FOUND" in refusal.reasons:
        return NotFoundError(f"{what}: something that it needs does not exist", detail=detail)
    if refusal.code == 409 or "RESOURCE_ALREADY_EXISTS" in refusal.reasons:
        return ConflictError(
            f"{what}: the name is taken", detail=detail, next="tlvm status shows what exists."
        )
    if refusal.code in (400, 422):
        return ConfigError(
            f"{what}: it does not take this request", detail=detail, next="Change what the message names."
        )
    return CloudError(
        f"{what} ({refusal.code or ', '.join(sorted(refusal.reasons))})", detail=detail, next=AGAIN
    )


def setup(project: str, bucket: str = "BUCKET") -> str:
    """The command that makes what machines run as."""
    return f"bash {_SETUP} {project} {bucket}"


def setup_script() -> str:
    """What that command runs, for whoever may have to read it, or run it elsewhere."""
    return _SETUP.read_text(encoding="utf-8")


def is_exhausted(refusal: Refusal) -> str:
    """The code that says that there is no capacity in this zone; "" when it is something else."""
    codes = sorted(code for code in refusal.reasons if code.startswith(_EXHAUSTED) or code in _NOT_HERE)
    return codes[0] if codes else ""


def no_answer(error: Exception, doing: str) -> TlvmError:
    """No answer, or no way to ask: requests' and google-auth's errors."""
    line = (str(error).splitlines() or [type(error).__name__])[0][:_DETAIL_MAX]
    if isinstance(error, requests.RequestException | ConnectionError | TimeoutError):
        return TransientError(f"Google Cloud did not answer when asked to {doing}", detail=line, next=AGAIN)
    if isinstance(error, TransportError) or (isinstance(error, GoogleAuthError) and error.retryable):
        return TransientError("Google's login service can't be reached", detail=line, next=AGAIN)
    return AuthError("Google Cloud does not know who you are", detail=line, next=f"Log in: {LOGIN}")


def _is_about_the_account(refusal: Refusal) -> bool:
    """Said in several ways: as a missing resource, a wrong value, or a permission that Google does not name."""
    named = "serviceaccount" in refusal.message.lower().replace(" ", "") or any(
        "SERVICE_ACCOUNT" in reason for reason in refusal.reasons
    )
    return named and refusal.code in (400, 403, 404) and not _PERMISSION.search(refusal.message)


def _quota(refusal: Refusal, region: str) -> QuotaError:
    metric = _named(refusal.message) or _metric(refusal.facts.get("limitName", ""))
    everywhere = not region or "ALL_REGIONS" in metric.upper() or "globally" in refusal.message
    where = "of the project" if everywhere else f"in {region}"
    gpu = "GPU" in metric.upper()
    less = "--accelerator none, or --provider local, needs none" if gpu else "a smaller machine needs less"
    return QuotaError(
        f"the quota {metric or 'for this machine'} {where} is used up, or zero",
        detail=refusal.message[:_DETAIL_MAX],
        next=f"tlvm quota shows yours, tlvm quota request asks for more; meanwhile {less}.",
        region="" if everywhere else region,
    )


def _forbidden(what: str, refusal: Refusal, detail: str) -> TlvmError:
    if "is not found or access is unauthorized" in refusal.message:
        return ConfigError(
            f"{what}: the project may not use that place", detail=detail, next="Take it out of gce.zones."
        )
    if refusal.facts.get("reason") == "CONSUMER_INVALID" or "has been deleted" in refusal.message:
        return ConfigError(f"{what}: there is no such project", detail=detail, next="Change gce.project.")
    missing = _PERMISSION.search(refusal.message)
    role = (
        "roles/iam.serviceAccountUser" if missing and missing[1].startswith("iam.") else "roles/compute.admin"
    )
    needed = f"the permission {missing[1]} on {missing[2]}" if missing else f"a role such as {role}"
    return AuthError(
        f"{what}: you may not",
        detail=detail,
        next=f"Ask the project's owner for {needed}: gcloud projects add-iam-policy-binding {_project(refusal)} "
        f"--member=user:YOU --role={role}",
    )


def _other_places(refusal: Refusal) -> str:
    """Google names zones that have some, now and then."""
    zones = refusal.facts.get("zonesAvailable", "")
    return f"Google says that these have some: {zones}" if zones else ""


def _named(message: str) -> str:
    found = re.search(r"Quota '([\w-]+)' exceeded", message)
    return found[1] if found else ""


def _metric(limit: str) -> str:
    """As `tlvm quota` calls it: "NVIDIA-L4-GPUS-per-project-region" is NVIDIA_L4_GPUS."""
    return limit.removesuffix("-region").removesuffix("-per-project").replace("-", "_")


def _project(refusal: Refusal) -> str:
    """As the answer names it, by id."""
    for text in (refusal.facts.get("consumer", ""), refusal.message):
        if found := re.search(r"projects?[/ ]([a-z][a-z0-9-]{4,28}[a-z0-9])", text):
            return found[1]
    return "PROJECT"


def _texts(values: object) -> dict[str, str]:
    if not isinstance(values, Mapping):
        return {}
    return {str(key): str(value) for key, value in values.items() if isinstance(value, str | int | float)}
