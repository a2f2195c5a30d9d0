"""The bucket: where it is, who may do what in it, and what it deletes by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.errors import AuthError, NotFoundError, TlvmError
from orchestrator.providers.findings import Finding

from .checks_context import AUTH, CONFIG, Context
from .services import bucket_of, storage_url

_MINE = ("storage.objects.create", "storage.objects.delete", "storage.objects.get", "storage.objects.list")
_READ = ("objectViewer", "objectUser", "objectAdmin", "admin", "legacyObjectReader")
_WRITE = ("objectUser", "objectAdmin", "admin", "objectCreator")
_MULTI = {"US": "us-", "EU": "europe-", "ASIA": "asia-"}
_CHECKPOINTS = "checkpoints/"


def bucket(context: Context) -> list[Finding]:
    """It exists, it is near, it is private, and nothing but checkpoints expires in it."""
    name = bucket_of(context.store)
    if not name:
        text = f"a machine of Google Cloud can't reach the store {context.store.url}"
        return [
            Finding(
                "fail", "bucket", text, 'Name one: [store] url = "gs://BUCKET"; tlvm init makes it', CONFIG
            )
        ]
    url = storage_url(context.store, f"b/{name}")
    try:
        found = context.rest.outside("GET", url, doing=f"show the bucket {name}")
    except NotFoundError:
        region = context.regions[0]
        make = (
            f"gcloud storage buckets create gs://{name} --project={context.project} --location={region} "
            "--uniform-bucket-level-access --public-access-prevention"
        )
        return [Finding("fail", "bucket", f"there is no bucket {name}", make, CONFIG)]
    return [*_where(context, name, found), *_private(name, found), *_ages(name, found)]


def rights(context: Context) -> list[Finding]:
    """What the caller may do in the bucket, and what its policy says of the machines' account."""
    name = bucket_of(context.store)
    if not name:
        return []
    query = [("permissions", permission) for permission in _MINE]
    url = storage_url(context.store, f"b/{name}/iam/testPermissions", query)
    try:
        held = context.rest.outside("GET", url, doing=f"say what you may do in {name}").get("permissions", [])
    except NotFoundError:
        return []  # the other look tells it
    missing = [permission for permission in _MINE if permission not in held]
    command = (
        f"gcloud storage buckets add-iam-policy-binding gs://{name} --member={context.member} "
        "--role=roles/storage.objectUser"
    )
    mine = (
        Finding(
            "fail", "rights", f"you lack {', '.join(missing)} in {name}", f"Ask its owner: {command}", AUTH
        )
        if missing
        else Finding("ok", "rights", f"you may read and write gs://{name}")
    )
    return [mine, _machines(context, name)]


def _where(context: Context, name: str, found: Mapping[str, Any]) -> list[Finding]:
    location = str(found.get("location", "")).upper()
    near = [region for region in context.regions if _is_near(location, region)]
    far = [region for region in context.regions if region not in near]
    if not far:
        return [Finding("ok", "bucket", f"gs://{name} in {location.lower()}, where the machines are")]
    text = f"gs://{name} is in {location.lower()}: a machine in {', '.join(far)} pays to read your data, and waits for it"
    return [Finding("warn", "bucket", text, "fine for some 100 MB; else take these out of gce.zones")]


def _is_near(location: str, region: str) -> bool:
    return location == region.upper() or region.startswith(_MULTI.get(location, "-"))


def _private(name: str, found: Mapping[str, Any]) -> list[Finding]:
    access = found.get("iamConfiguration") or {}
    findings = []
    if not (access.get("uniformBucketLevelAccess") or {}).get("enabled"):
        command = f"gcloud storage buckets update gs://{name} --uniform-bucket-level-access"
        findings.append(Finding("warn", "bucket", "each object has rights of its own", command))
    if access.get("publicAccessPrevention") != "enforced":
        command = f"gcloud storage buckets update gs://{name} --public-access-prevention"
        findings.append(Finding("warn", "bucket", "it could be made public by mistake", command))
    return findings


def _ages(name: str, found: Mapping[str, Any]) -> list[Finding]:
    """A rule that deletes by age anything but checkpoints and broken uploads is a lost result."""
    findings = []
    for rule in (found.get("lifecycle") or {}).get("rule") or []:
        prefixes = (rule.get("condition") or {}).get("matchesPrefix") or []
        harmless = prefixes and all(str(prefix).startswith(_CHECKPOINTS) for prefix in prefixes)
        if (rule.get("action") or {}).get("type") == "Delete" and not harmless:
            what = ", ".join(map(str, prefixes)) or "everything"
            findings.append(
                Finding("fail", "bucket", f"a lifecycle rule of {name} deletes {what} by itself: results would be lost",
                        f"Look: gcloud storage buckets describe gs://{name} --format=json(lifecycle_config)", CONFIG)
            )  # fmt: skip
    kept = str((found.get("softDeletePolicy") or {}).get("retentionDurationSeconds", ""))
    if kept == "0":
        command = f"gcloud storage buckets update gs://{name} --soft-delete-duration=7d"
        findings.append(
            Finding("warn", "bucket", "soft delete is off: what is deleted is gone at once", command)
        )
    return findings


def _machines(context: Context, name: str) -> Finding:
    """What the bucket's own policy grants; one of the project may grant more, which only its owner sees."""
    account = context.account
    url = storage_url(context.store, f"b/{name}/iam", [("optionsRequestedPolicyVersion", "3")])
    try:
        policy = context.rest.outside("GET", url, doing=f"show the policy of {name}")
    except AuthError:
        text = f"the policy of {name} can't be read, so what {account} may do there is not known"
        return Finding("warn", "rights", text, f"If machines can't write: {context.setup}")
    except TlvmError as error:
        return Finding("warn", "rights", error.what, error.next)
    member = f"serviceAccount:{account}"
    granted = [binding for binding in policy.get("bindings", []) if member in binding.get("members", [])]
    roles = {str(binding.get("role", "")).removeprefix("roles/storage.") for binding in granted}
    lacks = [verb for verb, some in (("read", _READ), ("write", _WRITE)) if not roles.intersection(some)]
    if lacks:
        text = f"{account} may not {' or '.join(lacks)} gs://{name}, as far as its policy says"
        return Finding("fail", "rights", text, context.setup, AUTH)
    wide = [binding for binding in granted if not binding.get("condition")]
    if any(str(binding.get("role")).removeprefix("roles/storage.") in _WRITE for binding in wide):
        text = f"{account} may write everywhere in gs://{name}, also your datasets"
        return Finding("warn", "rights", text, f"Take that role away, and: {context.setup}")
    return Finding("ok", "rights", f"machines read gs://{name} and write their results")
