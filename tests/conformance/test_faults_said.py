"""Whatever goes wrong with a store, each half has an error for it that keeps what was found out."""

from __future__ import annotations

import pytest

from orchestrator.errors import AuthError, TlvmError
from orchestrator.stores.faults import said
from remote import store as machine
from remote.storage import Fault, Kind
from tests.conformance.stores import LAPTOP, MACHINE, Half


@pytest.mark.parametrize("half", [LAPTOP, MACHINE], ids=["laptop", "machine"])
@pytest.mark.parametrize("kind", Kind)
def test_each_kind_keeps_what_was_found_out(kind: Kind, half: Half) -> None:
    error = half.say(Fault(kind, "There is no {x} in gs://trees", "Not found: {x}", "/{here}"))
    assert isinstance(error, half.any)
    assert "There is no {x} in gs://trees" in str(error) and "Not found: {x}" in str(error)
    assert (
        bool(getattr(error, "retryable", None))
        == (kind in {Kind.UNREADY, Kind.CUT})
        == isinstance(error, half.transient)
    )
    assert isinstance(error, half.changed) == (kind is Kind.CHANGED)


def test_only_what_is_not_in_the_store_is_missing_to_the_machine() -> None:
    """A file of its own that vanished is no blob that was never there: a run would take it for "no checkpoint yet"."""
    missing = {kind for kind in Kind if isinstance(machine.said(Fault(kind, "what")), machine.StoreMissing)}
    assert missing == {Kind.MISSING, Kind.NO_BUCKET}


@pytest.mark.parametrize(
    ("kind", "place", "command"),
    [
        (Kind.NO_BUCKET, "gs://trees", "gcloud storage buckets create gs://trees "),
        (
            Kind.FORBIDDEN,
            "gs://trees",
            "add-iam-policy-binding gs://trees --member=user:YOU --role=roles/storage.",
        ),
        (Kind.NO_LOGIN, "", "gcloud auth application-default login"),
        (Kind.NOT_ENABLED, "", "gcloud services enable storage.googleapis.com"),
        (Kind.DENIED, "/shared/store", "ls -ld /shared/store"),
        (Kind.CUT, "", "store.endpoint"),
        (Kind.DISK, "/shared/store", "store.url"),
    ],
)
def test_the_laptop_names_the_command_that_helps(kind: Kind, place: str, command: str) -> None:
    error = said(Fault(kind, "what", place=place))
    assert isinstance(error, TlvmError) and command in error.next
    assert isinstance(error, AuthError) == (kind not in {Kind.NO_BUCKET, Kind.CUT, Kind.DISK})
