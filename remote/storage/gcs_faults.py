"""What Google's libraries raise, told as faults."""

from __future__ import annotations

import re

import requests
import urllib3
from google.api_core import exceptions as api
from google.auth.exceptions import GoogleAuthError, TransportError
from google.cloud.storage.exceptions import DataCorruption

from .faults import Fault, Kind, changed, missing

# Not all of them are Google's: what breaks below its library comes through as it is.
NETWORK_ERRORS = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    ConnectionError,
    TimeoutError,
    DataCorruption,
)

_AROUND = re.compile(r"^[A-Z]+ https?://\S+: |: \('Request failed with status code.*", re.DOTALL)
_TRANSIENT = {408, 429, 500, 502, 503, 504}
_TOO_FAST = {"rateLimitExceeded", "userRateLimitExceeded"}
_NOT_ENABLED = {"accessNotConfigured", "SERVICE_DISABLED"}


def from_api(error: api.GoogleAPICallError, key: str, url: str, bucket: str) -> Fault:
    """An answer of the service other than success."""
    code, detail = int(error.code or 0), _detail(error)
    reasons = {str(entry.get("reason")) for entry in error.errors if isinstance(entry, dict)} | {
        str(error.reason)
    }
    if code in _TRANSIENT or reasons & _TOO_FAST:
        return Fault(Kind.UNREADY, f"{url} did not take the request for {key} ({code})", detail)
    if code == 400 and "crc32c" in detail.lower():
        return Fault(Kind.UNREADY, f"{key} arrived in {url} with another checksum", detail)
    if code == 401:
        return Fault(Kind.NO_LOGIN, f"{url} does not know who asks", detail)
    if code == 403 and reasons & _NOT_ENABLED:
        return Fault(Kind.NOT_ENABLED, "The Cloud Storage API is not enabled in the project", detail)
    if code == 403:
        return Fault(Kind.FORBIDDEN, f"No permission for {key} in {url}", detail, f"gs://{bucket}")
    if code == 404 and is_no_bucket(error):
        return Fault(Kind.NO_BUCKET, f"There is no bucket gs://{bucket}", detail, f"gs://{bucket}")
    if code == 404:
        return missing(key, url)
    if code == 412:
        return changed(key, url)
    return Fault(Kind.REFUSED, f"{url} refused the request for {key} ({code})", detail)


def is_no_bucket(error: api.GoogleAPICallError) -> bool:
    return "bucket does not exist" in str(error)


def from_auth(error: Exception, url: str, credentials_file: str | None) -> Fault:
    """No credentials, or none that work. `credentials_file` where it could not even be read."""
    detail = _first_line(error)
    if isinstance(error, TransportError) or (isinstance(error, GoogleAuthError) and error.retryable):
        return Fault(Kind.UNREADY, "Google's login service can't be reached", detail)
    if credentials_file is not None:
        what = f"The credentials file {credentials_file} can't be used"
        return Fault(Kind.CREDENTIALS_FILE, what, detail, credentials_file)
    return Fault(Kind.NO_LOGIN, f"There are no valid credentials for {url}", detail)


def from_network(error: Exception, key: str, url: str) -> Fault:
    """No answer, half an answer, or content whose checksum is wrong."""
    if isinstance(error, DataCorruption):
        return Fault(Kind.UNREADY, f"{key} came from {url} with another checksum", _first_line(error))
    return Fault(Kind.CUT, f"The connection to {url} broke at {key}", _first_line(error))


def _detail(error: api.GoogleAPICallError) -> str:
    """What the service said, without the request and the status that the library puts around it."""
    return _AROUND.sub("", str(error.message))[:1000]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:1000]
