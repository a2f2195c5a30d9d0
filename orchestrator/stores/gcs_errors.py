"""What Google's libraries raise, said in our words: which bucket, which role is needed, which command helps."""

from __future__ import annotations

import re

import requests
import urllib3
from google.api_core import exceptions as api
from google.auth.exceptions import GoogleAuthError, TransportError
from google.cloud.storage.exceptions import DataCorruption

from orchestrator.errors import AuthError, CloudError, NotFoundError, TlvmError, TransientError

# Not all of them are Google's: what breaks below its library comes through as it is.
NETWORK_ERRORS = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    ConnectionError,
    TimeoutError,
    DataCorruption,
)

_ROLE = "roles/storage.objectUser"
_LOGIN = "gcloud auth application-default login"
_AROUND = re.compile(r"^[A-Z]+ https?://\S+: |: \('Request failed with status code.*", re.DOTALL)
_TRANSIENT = {408, 429, 500, 502, 503, 504}
_TOO_FAST = {"rateLimitExceeded", "userRateLimitExceeded"}
_NOT_ENABLED = {"accessNotConfigured", "SERVICE_DISABLED"}


def from_api(error: api.GoogleAPICallError, key: str, url: str, bucket: str) -> TlvmError:
    """An answer of the service other than success."""
    code, detail = int(error.code or 0), _detail(error)
    reasons = {str(entry.get("reason")) for entry in error.errors if isinstance(entry, dict)} | {
        str(error.reason)
    }
    if code in _TRANSIENT or reasons & _TOO_FAST:
        return TransientError(f"{url} did not take the request for {key} ({code})", detail=detail)
    if code == 400 and "crc32c" in detail.lower():
        return TransientError(f"{key} arrived in {url} with another checksum", detail=detail)
    if code == 401:
        return AuthError(f"{url} does not know who you are", detail=detail, next=f"Log in: {_LOGIN}")
    if code == 403 and reasons & _NOT_ENABLED:
        return AuthError(
            "The Cloud Storage API is not enabled in your project",
            detail=detail,
            next="Enable it, then wait some minutes: gcloud services enable storage.googleapis.com",
        )
    if code == 403:
        return AuthError(
            f"You may not do this with {key} in {url}",
            detail=detail,
            next=f"The role {_ROLE} on the bucket is needed; its owner grants it: gcloud storage buckets "
            f"add-iam-policy-binding gs://{bucket} --member=user:YOU --role={_ROLE}",
        )
    if code == 404 and "bucket does not exist" in detail:
        return NotFoundError(
            f"There is no bucket gs://{bucket}",
            detail=detail,
            next=f"Make it: gcloud storage buckets create gs://{bucket} --uniform-bucket-level-access",
        )
    if code == 404:
        return NotFoundError(f"There is no {key} in {url}")
    return CloudError(f"{url} refused the request for {key} ({code})", detail=detail)


def from_auth(error: Exception, credentials_file: str | None) -> TlvmError:
    """No credentials, or none that work."""
    if isinstance(error, TransportError) or (isinstance(error, GoogleAuthError) and error.retryable):
        return TransientError("Google's login service can't be reached", detail=_first_line(error))
    if credentials_file is not None:
        return AuthError(
            f"The credentials file {credentials_file} can't be used",
            detail=_first_line(error),
            next="Name another file, or none: then the login of gcloud is taken.",
        )
    return AuthError(
        "Google Cloud does not know who you are", detail=_first_line(error), next=f"Log in: {_LOGIN}"
    )


def from_network(error: Exception, key: str, url: str) -> TlvmError:
    """No answer, half an answer, or content whose checksum is wrong."""
    if isinstance(error, DataCorruption):
        return TransientError(f"{key} came from {url} with another checksum", detail=_first_line(error))
    return TransientError(
        f"The connection to {url} broke at {key}",
        detail=_first_line(error),
        next="Look at the network, and at store.endpoint where it is set; then run it again.",
    )


def _detail(error: api.GoogleAPICallError) -> str:
    """What the service said, without the request and the status that the library puts around it."""
    return _AROUND.sub("", str(error.message))[:1000]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:1000]
