"""What goes wrong with a store, as an error of this half: its kind, and the command that helps."""

from __future__ import annotations

from orchestrator.errors import (
    AuthError,
    CloudError,
    ConfigError,
    ConflictError,
    NotFoundError,
    TlvmError,
    TransientError,
)
from remote.storage.faults import Fault, Kind

_ROLE = "roles/storage.objectUser"
_LOGIN = "Log in: gcloud auth application-default login"
_NEXT: dict[Kind, tuple[type[TlvmError], str]] = {
    Kind.CHANGED: (ConflictError, "Run the same command again."),
    Kind.MISSING: (NotFoundError, ""),
    Kind.UNREADY: (TransientError, ""),
    Kind.CUT: (
        TransientError,
        "Look at the network, and at store.endpoint where it is set; then run it again.",
    ),
    Kind.REFUSED: (CloudError, ""),
    Kind.NO_ADDRESS: (
        ConfigError,
        'Set store to "gs://BUCKET", "gs://BUCKET/FOLDER" or the full path of a folder.',
    ),
    Kind.NO_KEY: (ConfigError, ""),
    Kind.NO_BUCKET: (
        NotFoundError,
        "Make it: gcloud storage buckets create {place} --uniform-bucket-level-access",
    ),
    Kind.NO_LOGIN: (AuthError, _LOGIN),
    Kind.CREDENTIALS_FILE: (AuthError, "Name another file, or none: then the login of gcloud is taken."),
    Kind.FORBIDDEN: (
        AuthError,
        f"The role {_ROLE} on the bucket is needed; its owner grants it: gcloud storage buckets "
        f"add-iam-policy-binding {{place}} --member=user:YOU --role={_ROLE}",
    ),
    Kind.NOT_ENABLED: (
        AuthError,
        "Enable it, then wait some minutes: gcloud services enable storage.googleapis.com",
    ),
    Kind.NO_FILE: (NotFoundError, ""),
    Kind.DENIED: (AuthError, "Look at its owner and permissions: ls -ld {place}"),
    Kind.FULL: (CloudError, "Free some space there and run it again."),
    Kind.IN_THE_WAY: (CloudError, "Move that away, then run it again."),
    Kind.DISK: (CloudError, "Name another one: store.url."),
}


def said(fault: Fault) -> TlvmError:
    error, next = _NEXT[fault.kind]
    return error(fault.what, detail=fault.detail, next=next.format(place=fault.place))
