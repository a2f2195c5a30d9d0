"""doctor against the fakes of Google's services: each lack is found, and said with what to do."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config import GceSettings
from orchestrator.providers.findings import Finding
from orchestrator.providers.gce.checks_context import Context
from orchestrator.providers.gce.checks_machine import clock
from orchestrator.providers.gce.rest import Rest
from orchestrator.render import setup as render_setup
from orchestrator.stores import open_store
from orchestrator.workflows.setup.doctor import DoctorResult
from orchestrator.workflows.setup.quota import quota_request
from orchestrator.workflows.workspace import Workspace
from remote.contract.run_spec import StoreRef
from tests.fakes.compute_server import PROJECT
from tests.fakes.credentials import SERVICE_ACCOUNT
from tests.orchestrator.gce_cloud import wanted
from tests.orchestrator.gce_project import ACCOUNT, BUCKET, GOOD_POLICY, Project, text, well

GCLOUDS_ID = "764086051850-6qr4p6gpi6hn506pt8ejuq83di341hur.apps.googleusercontent.com"  # it is no secret


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with well(tmp_path) as found:
        yield found


def bad(result: DoctorResult) -> list[Finding]:
    return [finding for finding in result.findings if finding.level != "ok"]


def test_all_is_well(project: Project) -> None:
    result = project.doctor()
    assert bad(result) == [] and result.exit_code == 0
    names = {finding.name for finding in result.findings}
    assert {
        "login", "billing", "apis", "permissions", "account", "os login", "image", "zones", "quota", "network", "ssh",
        "clock", "bucket", "rights",
    } <= names  # fmt: skip
    assert "tlvm up --dry-run" in text(render_setup.examined, result)
    assert not [sent for sent in project.server.requests if sent.method in ("PUT", "PATCH", "DELETE")]


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


def few_processors(project: Project) -> None:
    project.server.cloud.project_quotas["CPUS_ALL_REGIONS"] = 4


def no_room_for_its_disk(project: Project) -> None:
    project.server.cloud.region_quotas["us-central1"]["SSD_TOTAL_GB"] = 100


def no_address(project: Project) -> None:
    project.server.cloud.region_quotas["us-central1"]["IN_USE_ADDRESSES"] = 0


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
        (enforced_os_login, "os login", 5, "os_login = true"),
        (no_gpu, "quota", 6, "--accelerator none"),
        (no_l4, "quota", 6, "tlvm quota request"),
        (few_processors, "quota", 6, "meanwhile: tlvm run SCENARIO --provider local"),
        (no_room_for_its_disk, "quota", 6, "tlvm quota request"),
        (no_address, "quota", 6, "tlvm quota request"),
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


@pytest.mark.filterwarnings("error")
def test_a_persons_login_that_names_no_project_is_a_warning_here_and_nowhere_else(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `gcloud auth application-default login` leaves it where gcloud knows no project."""
    login = {
        "type": "authorized_user", "account": "ana@uni.example", "client_id": GCLOUDS_ID, "client_secret": "",
        "refresh_token": "r", "token": "ya29.t", "expiry": "2099-01-01T00:00:00Z",
    }  # fmt: skip
    file = project.folder / "login.json"
    file.write_text(json.dumps(login))
    (found,) = bad(project.doctor(credentials_file=str(file)))
    assert (found.level, found.name) == ("warn", "login") and "ana@uni.example" in found.text
    assert found.next == f"gcloud auth application-default set-quota-project {PROJECT}"
    open_store(StoreRef(f"gs://{BUCKET}", credentials_file=str(file)))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    open_store(StoreRef(f"gs://{BUCKET}"))
    file.write_text(json.dumps(login | {"quota_project_id": PROJECT}))
    assert bad(project.doctor(credentials_file=str(file))) == []


@pytest.mark.parametrize("lack", [no_permission, not_its_user, not_my_bucket])
def test_commands_to_copy_name_who_asks(project: Project, lack: Callable[[Project], None]) -> None:
    lack(project)
    login = project.server.credentials_file(project.folder)
    (found,) = [one for one in project.doctor(credentials_file=str(login)).findings if one.level == "fail"]
    assert f"--member=user:{SERVICE_ACCOUNT} " in found.next


def test_who_has_no_account_for_machines_can_read_what_makes_it(project: Project) -> None:
    """It may be somebody else who owns the project: the text is enough for them."""
    no_account(project)
    shown = text(render_setup.examined, project.doctor()).splitlines()
    script = (Path(__file__).parents[2] / "infra/gce/setup.sh").read_text(encoding="utf-8").splitlines()
    first = shown.index(f"    {script[0]}")
    assert [line.strip() for line in shown[first : first + len(script)]] == [line.strip() for line in script]


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


def test_os_login_that_is_on_tells_the_name_and_whether_it_opens_machines(project: Project) -> None:
    enforced_os_login(project)
    more = {"os_login": True, "credentials_file": str(project.server.credentials_file(project.folder))}
    told = [finding for finding in project.doctor(**more).findings if finding.name == "os login"]
    assert [finding.level for finding in told] == ["ok"] and "sa_4711" in told[0].text
    project.server.project.refused_permissions |= {"compute.instances.osAdminLogin"}
    assert [one.level for one in project.doctor(**more).findings if one.name == "os login"] == ["ok"]
    project.server.project.refused_permissions |= {"compute.instances.osLogin"}
    (found,) = [one for one in project.doctor(**more).findings if one.name == "os login"]
    assert found.level == "fail" and "roles/compute.osAdminLogin" in found.next


def test_a_request_that_google_has_is_told_with_the_quota_that_lacks(project: Project) -> None:
    no_gpu(project)
    quota_request(
        Workspace(project.settings(credentials_file=str(project.server.credentials_file(project.folder))))
    )
    (found,) = [finding for finding in bad(project.doctor()) if finding.name == "quota"]
    today = f"{project.server.clock.now():%Y-%m-%d}"
    assert f"GPUS_ALL_REGIONS 0 of 0 left, 1 asked for on {today}, pending" in found.text
    assert "tlvm quota shows the answer" in found.next and "--accelerator none" in found.next
    two = project.doctor(machine={"accelerator_count": 2}, zones="us-central1-a")
    (found,) = [finding for finding in bad(two) if finding.name == "quota"]
    assert "tlvm quota request asks" in found.next  # the one that was asked for would not do


@pytest.mark.parametrize(("off_s", "level"), [(5, "ok"), (-100, "warn"), (100, "warn"), (3600, "fail")])
def test_a_clock_that_is_off_is_told_before_every_signature_is_refused(
    tmp_path: Path, off_s: float, level: str
) -> None:
    class Google(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(404)
            self.end_headers()

        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string((timestamp or time.time()) + off_s)

        def log_message(self, format: str, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Google) as google, ThreadPoolExecutor(1) as pool:
        serving = pool.submit(google.handle_request)
        settings = GceSettings(project=PROJECT, endpoint=f"http://127.0.0.1:{google.server_port}")
        (found,) = clock(Context(Rest(settings), settings, wanted(), StoreRef(f"gs://{BUCKET}")))
        serving.result()
    assert found.level == level and (level == "ok" or "timedatectl" in found.next)


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
