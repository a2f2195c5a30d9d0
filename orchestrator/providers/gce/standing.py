"""The start in a project: who asks, whether anything can be rented at all, and the bucket."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

from orchestrator.errors import AuthError, ConfigError, ConflictError, TlvmError
from orchestrator.providers.rented import Standing
from remote.contract.run_spec import StoreRef

from . import quotas
from .rest import Rest
from .services import Services, bucket_of, storage_url

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
_CHECKPOINTS_DAYS = 14
_BROKEN_UPLOADS_DAYS = 7


def standing(rest: Rest) -> Standing:
    """AuthError when nobody is logged in; what else can't be read is None."""
    who, project = rest.account(), rest.project
    with ThreadPoolExecutor(2) as pool:
        billing, gpus = pool.submit(_billing, rest), pool.submit(_gpus, rest)
        return Standing(who, project, billing.result(), gpus.result())


def make_bucket(rest: Rest, store: StoreRef, region: str) -> bool:
    """In one request, with everything that keeps it private and near. Soft delete stays as Google has it: on."""
    name = bucket_of(store)
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name[:80]!r} is no name of a bucket",
            next="3 to 63 of a-z, 0-9, '-', '_' and '.', for example gs://PROJECT-tlvm",
        )
    body = {
        "name": name,
        "location": region.upper(),
        "iamConfiguration": {
            "uniformBucketLevelAccess": {"enabled": True},
            "publicAccessPrevention": "enforced",
        },
        "lifecycle": {
            "rule": [
                {
                    "action": {"type": "Delete"},
                    "condition": {"age": _CHECKPOINTS_DAYS, "matchesPrefix": ["checkpoints/"]},
                },
                {
                    "action": {"type": "AbortIncompleteMultipartUpload"},
                    "condition": {"age": _BROKEN_UPLOADS_DAYS},
                },
            ]
        },
        "labels": {"made-by": "tlvm"},
    }
    url = storage_url(store, "b", [("project", rest.project)])
    try:
        rest.outside("POST", url, body=body, doing=f"create the bucket {name}")
    except ConflictError as error:
        try:
            rest.outside("GET", storage_url(store, f"b/{name}"), doing=f"show the bucket {name}")
        except AuthError:
            raise ConflictError(
                f"The name gs://{name} is taken by somebody else",
                detail=error.detail,
                next="Choose another: --store gs://NAME",
            ) from None
        return False
    return True


def _billing(rest: Rest) -> bool | None:
    path = f"v1/projects/{rest.project}/billingInfo"
    try:
        found = Services(rest).get("cloudbilling", path, doing="say whether billing is on")
    except TlvmError:
        return None
    return bool(found.get("billingEnabled"))


def _gpus(rest: Rest) -> float | None:
    try:
        found = quotas.told(rest.get("")).get(quotas.ALL_GPUS)
    except TlvmError:
        return None
    return found.limit if found else None
