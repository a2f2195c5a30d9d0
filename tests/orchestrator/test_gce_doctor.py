"""doctor, quota and gpus against the fakes of Google's services: each lack is found, and said with what to do."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import main
from orchestrator.config import Settings
from orchestrator.errors import ConfigError
from orchestrator.providers.findings import Finding
from orchestrator.providers.gce.quotas import request
from orchestrator.render import cloud as render_cloud
from orchestrator.render import setup as render_setup
from orchestrator.render.console import Screen
from orchestrator.workflows.doctor import DoctorResult, doctor
from orchestrator.workflows.gpus import gpus
from orchestrator.workflows.quota import quota, quota_request
from orchestrator.workflows.workspace import Workspace
from tests.fakes.compute_cloud import Clock
from tests.fakes.compute_server import PROJECT, ComputeServer
from tests.fakes.gcs_server import GcsServer
from tests.fakes.http_service import Answer, HttpService, Incoming, whole

BUCKET = "trees-4711-tlvm"
ACCOUNT = f"serviceAccount:tlvm-machine@{PROJECT}.iam.gserviceaccount.com"
GOOD_BUCKET = {
    "location": "US-CENTRAL1",
    "iamConfiguration": {
        "uniformBucketLevelAccess": {"enabled": True},
        "publicAccessPrevention": "enforced",
    },
    "lifecycle": {
        "rule": [
            {"action": {"type": "Delete"}, "condition": {"age": 14, "matchesPrefix": ["checkpoints/"]}},
            {"action": {"type": "AbortIncompleteMultipartUpload"}, "condition": {"age": 7}},
        ]
    },
}
GOOD_POLICY = {
    "kind": "storage#policy",
    "version": 3,
    "etag": "CAE=",
    "bindings": [
        {"role": "roles/storage.objectViewer", "members": [ACCOUNT]},
        {
            "role": "roles/storage.objectUser",
            "members": [ACCOUNT],
            "condition": {"title": "tlvm-results", "expression": "true"},
        },
    ],
}


class Project:
    """A project in which all is well, until a test changes it."""

    def __init__(self, server: ComputeServer, bucket: GcsServer, folder: Path) -> None:
        self.server = server
        self.bucket = bucket
        self.folder = folder
        bucket.create_bucket(BUCKET)
        bucket.api.buckets.patch(BUCKET, GOOD_BUCKET)
        bucket.api.policies[BUCKET] = GOOD_POLICY

    def settings(self, *, machine: dict[str, Any] | None = None, **gce: object) -> Settings:
        given = {"project": PROJECT, "endpoint": self.server.url, "ssh_source_ranges": "203.0.113.7/32"} | gce
        store = {"url": f"gs://{BUCKET}", "endpoint": self.bucket.endpoint}
        values = {"provider": "gce", "owner": "ana", "gce": given, "store": store, "machine": machine or {}}
        return Settings.model_validate(values | {"folder": self.folder, "data_dir": self.folder / "data"})

    def doctor(self, **more: Any) -> DoctorResult:
        return doctor(self.settings(**more))


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with ComputeServer(clock=Clock(rate=0), wait_s=0.05) as server, GcsServer() as bucket:
        yield Project(server, bucket, tmp_path)
        assert server.errors == [] and bucket.errors == []


def bad(result: DoctorResult) -> list[Finding]:
    return [finding for finding in result.findings if finding.level != "ok"]


def text(draw: Callable[[Screen, Any], None], result: object) -> str:
    out = io.StringIO()
    draw(Screen(out, io.StringIO()), result)
    return out.getvalue()


def test_all_is_well(project: Project) -> None:
    result = project.doctor()
    assert bad(result) == [] and result.exit_code == 0
    names = {finding.name for finding in result.findings}
    assert {
        "login", "billing", "apis", "permissions", "account", "os login", "image", "zones", "quota", "network", "ssh",
        "clock", "bucket", "rights",
    } <= names  # fmt: skip
    assert "tlvm up --dry-run" in text(render_setup.examined, result)
    assert not [request for sent in project.server.requests if sent.method in ("PUT", "PATCH", "DELETE")]


def disabled(project: Project) -> None:
    project.server.project.enabled.discard("iam.googleapis.com")


def no_billing(project: Project) -> None:
    project.server.project.billing_enabled = False


def no_permission(project: Project) -> None:
    project.server.project.refused_permissions.add("compute.instances.delete")


def no_account(project: Project) -> None:
    project.server.cloud.service_accounts.clear()


def not_its_user(project: Project) -> None:
    project.server.project.refused_permissions.add("iam.serviceAccounts.actAs")


def enforced_os_login(project: Project) -> None:
    project.server.project.org_policies["compute.requireOsLogin"] = True


def no_gpu(project: Project) -> None:
    project.server.cloud.project_quotas["GPUS_ALL_REGIONS"] = 0


def no_l4(project: Project) -> None:
    project.server.cloud.region_quotas["us-central1"]["NVIDIA_L4_GPUS"] = 0


def no_network(project: Project) -> None:
    project.server.cloud.resources["networks"].clear()


def no_bucket(project: Project) -> None:
    project.bucket.api.buckets.drop(BUCKET)


def deleting_bucket(project: Project) -> None:
    rule = {"action": {"type": "Delete"}, "condition": {"age": 30}}
    project.bucket.api.buckets.patch(BUCKET, {"lifecycle": {"rule": [rule]}})


def not_my_bucket(project: Project) -> None:
    project.bucket.api.refused_permissions.add("storage.objects.create")


def not_the_machines_bucket(project: Project) -> None:
    project.bucket.api.policies.clear()


@pytest.mark.parametrize(
    ("lack", "name", "code", "next"),
    [
        (disabled, "apis", 5, f"gcloud services enable iam.googleapis.com --project={PROJECT}"),
        (no_billing, "billing", 5, "console.cloud.google.com/billing"),
        (no_permission, "permissions", 5, "roles/compute.admin"),
        (no_account, "account", 5, f"infra/gce/setup.sh {PROJECT} {BUCKET}"),
        (not_its_user, "account", 5, "roles/iam.serviceAccountUser"),
        (enforced_os_login, "os login", 5, "compute.requireOsLogin"),
        (no_gpu, "quota", 6, "--accelerator none"),
        (no_l4, "quota", 6, "tlvm quota request"),
        (no_network, "network", 2, "gce.network"),
        (no_bucket, "bucket", 2, f"gcloud storage buckets create gs://{BUCKET}"),
        (deleting_bucket, "bucket", 2, "buckets describe"),
        (not_my_bucket, "rights", 5, "roles/storage.objectUser"),
        (not_the_machines_bucket, "rights", 5, "infra/gce/setup.sh"),
    ],
)
def test_what_lacks_is_a_failure_with_what_to_do(
    project: Project, lack: Callable[[Project], None], name: str, code: int, next: str
) -> None:
    lack(project)
    result = project.doctor()
    failed = [finding for finding in result.findings if finding.level == "fail"]
    assert [finding.name for finding in failed] == [name]
    assert next in failed[0].next and result.exit_code == failed[0].code == code
    assert f"exit {code}" in text(render_setup.examined, result)


@pytest.mark.parametrize(
    ("settings", "name", "next"),
    [
        ({"image_family": "pytorch-latest-gpu"}, "image", "gce.image_family"),
        ({"zones": "us-central1-f"}, "zones", "gce.zones"),
        ({"zones": "us-centrall"}, "zones", "gce.zones"),
        ({"iap": True}, "network", "--enable-private-ip-google-access"),
        ({"ssh_source_ranges": "", "address_lookup": ""}, "ssh", "gce.ssh_source_ranges"),
    ],
)
def test_what_tlvm_toml_asks_for_and_is_not_there(
    project: Project, settings: dict[str, Any], name: str, next: str
) -> None:
    found = [finding for finding in bad(project.doctor(**settings)) if finding.name == name]
    assert found and next in found[0].text + found[0].next


def test_a_quota_of_one_region_is_a_warning_while_another_will_do(project: Project) -> None:
    no_l4(project)
    result = project.doctor(zones="us-central1,us-east4")
    assert [(finding.level, finding.name) for finding in bad(result) if finding.name == "quota"] == [
        ("warn", "quota")
    ]
    assert any("pays to read" in finding.text for finding in bad(result))  # us-east4
    assert result.exit_code == 0


def test_without_a_gpu_no_gpu_quota_matters(project: Project) -> None:
    no_gpu(project)
    assert bad(project.doctor(machine={"accelerator": "none"})) == []


def test_what_can_not_be_read_is_a_warning(project: Project) -> None:
    project.bucket.api.refused_permissions.add("storage.buckets.getIamPolicy")
    project.server.project.enabled -= {"cloudbilling.googleapis.com", "orgpolicy.googleapis.com"}
    found = bad(project.doctor())
    assert sorted(finding.name for finding in found) == ["billing", "os login", "rights"]
    assert {finding.level for finding in found} == {"warn"}
    assert "API cloudbilling.googleapis.com is not enabled" in found[0].text


def test_an_open_bucket_in_another_place_is_a_warning(project: Project) -> None:
    project.bucket.api.buckets.patch(
        BUCKET, {"location": "EUROPE-WEST4", "iamConfiguration": {}, "softDeletePolicy": {"retentionDurationSeconds": "0"}}
    )  # fmt: skip
    texts = [finding.text for finding in bad(project.doctor())]
    assert len(texts) == 4 and any("europe-west4" in one for one in texts)


def test_a_machine_account_that_may_write_everywhere_is_a_warning(project: Project) -> None:
    project.bucket.api.policies[BUCKET] = GOOD_POLICY | {
        "bindings": [{"role": "roles/storage.objectAdmin", "members": [ACCOUNT]}]
    }
    (found,) = bad(project.doctor())
    assert (found.level, found.name) == ("warn", "rights") and "write everywhere" in found.text


def test_nobody_logged_in_is_said_first_and_alone(project: Project, tmp_path: Path) -> None:
    result = project.doctor(credentials_file=tmp_path / "none.json")
    assert [finding.name for finding in bad(result)] == ["login"] and result.exit_code == 5


def test_the_account_is_named(project: Project, tmp_path: Path) -> None:
    file = project.server.credentials_file(tmp_path)
    found = [finding for finding in project.doctor(credentials_file=file).findings if finding.name == "login"]
    assert "tester@trees-4711" in found[0].text and PROJECT in found[0].text


# quota and gpus


def test_quotas_that_matter_are_shown_with_what_a_machine_takes(project: Project) -> None:
    no_gpu(project)
    result = quota(Workspace(project.settings(machine={"spot": True})))
    found = {(one.metric, one.region): (one.limit, one.needed) for one in result.quotas}
    some = {
        ("GPUS_ALL_REGIONS", ""): (0.0, 1.0),
        ("PREEMPTIBLE_NVIDIA_L4_GPUS", "us-central1"): (4.0, 1.0),
        ("CPUS", "us-central1"): (200.0, 8.0),
    }
    assert some.items() <= found.items()
    assert [one.metric for one in result.lacking] == ["GPUS_ALL_REGIONS"]
    assert "short  GPUS_ALL_REGIONS" in text(render_cloud.allowed, result)


def test_a_request_is_the_exact_command_for_what_lacks(project: Project) -> None:
    no_gpu(project)
    no_l4(project)
    result = quota_request(Workspace(project.settings()))
    assert [one.command[-2:] for one in result.requests] == [
        ["--quota-id=GPUS-ALL-REGIONS-per-project", "--preferred-value=1"],
        ["--preferred-value=1", "--dimensions=region=us-central1"],
    ]
    shown = text(render_cloud.asked, result)
    assert "gcloud beta quotas preferences create" in shown and f"?project={PROJECT}" in shown


@pytest.mark.skipif(shutil.which("gcloud") is None, reason="gcloud is not installed")
def test_gcloud_takes_that_very_command(tmp_path: Path) -> None:
    """The Cloud Quotas API has no discovery document here: what gcloud makes of our words is the check."""
    sent: list[dict[str, Any]] = []

    def answer(request: Incoming) -> Answer:
        sent.append(json.loads(request.body))
        return Answer(200, {"Content-Type": "application/json"}, b'{"name": "projects/p/locations/global/x"}')

    asked = request(PROJECT, "NVIDIA_L4_GPUS", "us-central1", 2, "ana@example.org")
    with HttpService(whole(answer), ["127.0.0.1"]) as service:
        environment = os.environ | {
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDQUOTAS": service.url_at("127.0.0.1") + "/",
            "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "True",
            "CLOUDSDK_CONFIG": str(tmp_path),
        }
        subprocess.run(asked.command, env=environment, capture_output=True, check=True, timeout=60)
    (body,) = sent
    assert (body["service"], body["quotaId"]) == (
        "compute.googleapis.com",
        "NVIDIA-L4-GPUS-per-project-region",
    )
    assert (body["quotaConfig"], body["dimensions"]) == ({"preferredValue": "2"}, {"region": "us-central1"})
    assert body["contactEmail"] == "ana@example.org"


def test_a_request_by_name(project: Project) -> None:
    workspace = Workspace(project.settings(zones="us-central1,us-east4"))
    (found,) = quota_request(workspace, "nvidia_l4_gpus", value=2, region="us-east4").requests
    assert (found.metric, found.region, found.value) == ("NVIDIA_L4_GPUS", "us-east4", 2)
    for wrong, said in (({}, "how many"), ({"value": 2.0}, "each region")):
        with pytest.raises(ConfigError, match=said):
            quota_request(workspace, "NVIDIA_L4_GPUS", **wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as caught:
        quota_request(workspace, "NVIDIA_L5_GPUS", value=1)
    assert "NVIDIA_L4_GPUS" in caught.value.next
    assert quota_request(workspace).requests == []


def test_gpus_are_listed_with_zones_price_and_quota(project: Project) -> None:
    project.server.cloud.region_quotas["us-east4"]["NVIDIA_L4_GPUS"] = 1
    result = gpus(Workspace(project.settings(zones="us-east4")))
    by_name = {kind.short: kind for kind in result.accelerators}
    l4 = by_name["l4"]
    assert l4.zones[:2] == ["us-east4-a", "us-east4-c"] and l4.region == "us-east4"
    assert l4.machine_type == "g2-standard-8" and 0 < l4.per_hour_spot < l4.per_hour
    assert (l4.quota["us-east4"], by_name["h100"].quota["us-east4"]) == (1, None)
    prices = [kind.per_hour for kind in result.accelerators]
    assert prices == sorted(prices)
    assert "NVIDIA L4" in text(render_cloud.offered, result)


def test_where_nothing_is_rented_there_is_nothing_to_ask(tmp_path: Path) -> None:
    workspace = Workspace(Settings(folder=tmp_path, data_dir=tmp_path / "data"))
    for ask in (quota, gpus):
        with pytest.raises(ConfigError, match="rents nothing"):
            ask(workspace)


# The commands


@pytest.mark.parametrize(
    ("words", "code", "field"),
    [
        (["doctor"], 0, "findings"),
        (["quota"], 0, "quotas"),
        (["quota", "request"], 0, "requests"),
        (["gpus"], 0, "accelerators"),
        (["gc"], 0, "items"),
        (["gc", "--dry-run"], 0, "items"),
        (["gc", "nothing"], 4, "error"),
        (["status"], 0, "left_over"),
        (["extend", "2"], 4, "error"),
        (["stop"], 4, "error"),
        (["start"], 4, "error"),
    ],
)
def test_every_command_says_it_as_json(
    project: Project,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    field: str,
) -> None:
    variables = {
        "PROVIDER": "gce", "OWNER": "ana", "GCE_PROJECT": PROJECT, "GCE_ENDPOINT": project.server.url,
        "GCE_SSH_SOURCE_RANGES": "203.0.113.7/32", "STORE_URL": f"gs://{BUCKET}",
        "STORE_ENDPOINT": project.bucket.endpoint, "DATA_DIR": str(tmp_path / "data"),
    }  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(f"TLVM_{name}", value)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit:
        main([*words, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert exit.value.code == code and found["schema"] == 1 and field in found
