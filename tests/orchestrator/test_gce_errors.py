"""What the cloud refuses, in our words: by reason and code, whichever way it came."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests
from google.auth.exceptions import DefaultCredentialsError, RefreshError, TransportError

from orchestrator.errors import (
    AuthError,
    CapacityError,
    ConfigError,
    ConflictError,
    NotFoundError,
    QuotaError,
    TlvmError,
    TransientError,
)
from orchestrator.providers.gce.errors import Refusal, no_answer, of_answer, of_operation, translated
from tests.fakes.compute_faults import OPERATION_KINDS, operation_error, refusal


def answer(kind: str, call: str = "instances.insert") -> Refusal:
    said = refusal(kind, call, "projects/trees-4711/zones/us-central1-a/instances/vm", "trees-4711")
    error = {
        "code": said.code, "message": str(said), "details": said.details,
        "errors": [{"reason": said.reason, "message": str(said), "domain": "global"}],
    }  # fmt: skip
    response = requests.Response()
    response.status_code = said.code
    response._content = json.dumps({"error": error}).encode()
    return of_answer(response)


def operation(kind: str) -> Refusal:
    failed = operation_error(kind, "us-central1-a", "g2-standard-8", "nvidia-l4")
    found = of_operation(
        {
            "httpErrorStatusCode": failed.http[0],
            "httpErrorMessage": failed.http[1],
            "error": {"errors": [failed.error]},
        }
    )
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("kind", "error", "said"),
    [
        ("401", AuthError, "gcloud auth application-default login"),
        ("403 permission", AuthError, "add-iam-policy-binding trees-4711"),
        ("403 disabled", AuthError, "gcloud services enable compute.googleapis.com --project=trees-4711"),
        ("403 quota", QuotaError, "NVIDIA_L4_GPUS"),
        ("403 global quota", QuotaError, "tlvm quota"),
        ("403 rate", TransientError, ""),
        ("404", NotFoundError, "does not exist"),
        ("409", ConflictError, "taken"),
        ("412", TransientError, "meanwhile"),
        ("429", TransientError, ""),
        ("500", TransientError, ""),
        ("503", TransientError, ""),
    ],
)
def test_answers(kind: str, error: type[TlvmError], said: str) -> None:
    found = translated(answer(kind), "create the machine vm", region="us-central1")
    assert type(found) is error
    assert said in str(found)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("stock-out", CapacityError),
        ("plain stock-out", CapacityError),
        ("preempted creation", CapacityError),
        ("quota", QuotaError),
        ("global quota", QuotaError),
        ("operation rate", TransientError),
        ("not ready", TransientError),
        ("internal error", TransientError),
    ],
)
def test_operations(kind: str, error: type[TlvmError]) -> None:
    found = translated(operation(kind), "create the machine vm", region="us-central1")
    assert type(found) is error
    assert found.next or error is CapacityError  # which the loop over places completes


def test_every_way_in_which_an_operation_fails_is_known() -> None:
    for kind in OPERATION_KINDS:
        if kind != "vanish":
            assert type(translated(operation(kind), "do it", region="r")) is not TlvmError


@pytest.mark.parametrize("kind", ["quota", "403 quota"])
def test_a_regional_quota_names_its_region_and_a_global_one_none(kind: str) -> None:
    read = answer if kind.startswith("403") else operation
    regional = translated(read(kind), "create it", region="us-central1")
    everywhere = translated(read(kind.replace("quota", "global quota")), "create it", region="us-central1")
    assert isinstance(regional, QuotaError) and regional.region == "us-central1"
    assert isinstance(everywhere, QuotaError) and everywhere.region == ""
    assert (
        "NVIDIA_L4_GPUS" in regional.what and "GPUS_ALL_REGIONS" in everywhere.what
    )  # as tlvm quota names them


def test_a_machine_without_a_gpu_is_not_advised_to_do_without_one() -> None:
    refused = Refusal(
        403, "Quota 'CPUS' exceeded.  Limit: 8.0 in region us-central1.", frozenset({"quotaExceeded"})
    )
    found = translated(refused, "create it", region="us-central1")
    assert "--accelerator none" not in found.next and "smaller" in found.next


def test_zones_that_google_recommends_are_passed_on() -> None:
    refused = Refusal(
        503,
        "full",
        frozenset({"ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS"}),
        {"zonesAvailable": "us-east4-a"},
    )
    assert "us-east4-a" in translated(refused, "create it").next


def test_a_new_kind_of_stock_out_is_known_by_its_start() -> None:
    refused = Refusal(503, "full", frozenset({"ZONE_RESOURCE_POOL_EXHAUSTED_SOON"}))
    assert isinstance(translated(refused, "create it"), CapacityError)


def test_a_place_that_is_not_ours_is_a_setting_to_change() -> None:
    refused = Refusal(
        403, "Location us-east1-d is not found or access is unauthorized.", frozenset({"forbidden"})
    )
    assert isinstance(translated(refused, "create it"), ConfigError)


@pytest.mark.parametrize("text", [b"<html>Bad gateway</html>", b'{"error": "odd"}', b"[]", b""])
def test_an_answer_that_is_none_of_googles_is_told_by_its_code(text: bytes) -> None:
    response = requests.Response()
    response.status_code, response._content = 502, text
    assert isinstance(translated(of_answer(response), "list"), TransientError)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (requests.ConnectionError("refused"), TransientError),
        (requests.ReadTimeout("slow"), TransientError),
        (TransportError("unreachable"), TransientError),
        (DefaultCredentialsError("none"), AuthError),
        (RefreshError("expired"), AuthError),
    ],
)
def test_no_answer(error: Exception, expected: type[TlvmError]) -> None:
    assert type(no_answer(error, "list")) is expected


def test_an_operation_that_went_well_is_no_refusal() -> None:
    done: dict[str, Any] = {"status": "DONE"}
    assert of_operation(done) is None
