"""quota and gpus against the fakes, gcloud as a second reader of a request; every command's JSON."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import main
from orchestrator.config import Settings
from orchestrator.errors import ConfigError
from orchestrator.providers.gce.quota_requests import body, by_hand
from orchestrator.render import cloud as render_cloud
from orchestrator.workflows.setup.gpus import gpus
from orchestrator.workflows.setup.quota import quota, quota_request
from orchestrator.workflows.workspace import Workspace
from tests.fakes import cloud_quotas
from tests.fakes.compute_server import PROJECT
from tests.fakes.http_service import Answer, HttpService, Incoming, whole
from tests.orchestrator.gce_project import BUCKET, Project, text, well


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with well(tmp_path) as found:
        yield found


def test_quotas_that_matter_are_shown_with_what_a_machine_takes(project: Project) -> None:
    project.server.cloud.project_quotas["GPUS_ALL_REGIONS"] = 0
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
    project.server.cloud.project_quotas["GPUS_ALL_REGIONS"] = 0
    project.server.cloud.region_quotas["us-central1"]["NVIDIA_L4_GPUS"] = 0
    result = quota_request(Workspace(project.settings()), dry_run=True)
    assert project.server.project.quota_requests == {}
    assert [one.command[-2:] for one in result.requests] == [
        ["--quota-id=GPUS-ALL-REGIONS-per-project", "--preferred-value=1"],
        ["--preferred-value=1", "--dimensions=region=us-central1"],
    ]
    shown = text(render_cloud.asked, result)
    assert "gcloud beta quotas preferences create" in shown and f"?project={PROJECT}" in shown


def with_login(project: Project) -> Workspace:
    file = project.server.credentials_file(project.folder)
    return Workspace(project.settings(credentials_file=str(file), zones="us-central1"))


def test_what_lacks_is_asked_for_once_and_the_answer_is_shown(project: Project) -> None:
    cloud = project.server.cloud
    cloud.project_quotas["GPUS_ALL_REGIONS"] = 0
    cloud.region_quotas["us-central1"]["NVIDIA_L4_GPUS"] = 0
    asked = project.server.project.quota_requests
    assert quota_request(with_login(project), confirm=lambda question: False).dry_run and asked == {}
    questions: list[str] = []

    def yes(question: str) -> bool:
        questions.append(question)
        return True

    result = quota_request(with_login(project), confirm=yes)
    assert "GPUS_ALL_REGIONS to 1" in questions[0] and result.exit_code == 0
    assert [one["quotaId"] for one in asked.values()] == [
        "GPUS-ALL-REGIONS-per-project", "NVIDIA-L4-GPUS-per-project-region",
    ]  # fmt: skip
    assert {one["contactEmail"].partition("@")[0] for one in asked.values()} == {"tester"}
    today = f"{cloud.now():%Y-%m-%d}"
    shown = text(render_cloud.allowed, quota(with_login(project)))
    assert shown.count(f"1 on {today}, pending") == 2
    assert f"GPUS_ALL_REGIONS of the project: 1 asked for on {today}, pending:" in shown
    assert "quota request" not in shown and "tlvm up --accelerator none, or tlvm run SCENARIO" in shown
    again = quota_request(with_login(project))
    assert again.requests == [] and len(again.pending) == 2
    told = text(render_cloud.asked, again)
    assert f"1 asked for on {today}, pending:" in told and "shows the answer     meanwhile" in told
    cloud_quotas.answered(asked, "GPUS-ALL-REGIONS-per-project", 0)
    cloud_quotas.answered(asked, "NVIDIA-L4-GPUS-per-project-region", 1)
    shown = text(render_cloud.allowed, quota(with_login(project)))
    assert shown.count(f"1 on {today}, not granted") == 1 and "pending" not in shown
    assert "next: tlvm quota request" in shown


def test_what_was_asked_for_and_is_too_little_is_asked_for_again(project: Project) -> None:
    project.server.cloud.project_quotas["GPUS_ALL_REGIONS"] = 0
    quota_request(with_login(project))
    file = project.server.credentials_file(project.folder)
    two = Workspace(
        project.settings(machine={"accelerator_count": 2}, credentials_file=str(file), zones="us-central1")
    )
    assert "next: tlvm quota request" in text(render_cloud.allowed, quota(two))
    assert [one.value for one in quota_request(two).requests] == [2]


def test_while_something_else_than_a_gpu_lacks_only_this_computer_runs(project: Project) -> None:
    project.server.cloud.region_quotas["us-central1"]["CPUS"] = 2
    workspace = Workspace(project.settings(zones="us-central1"))
    shown = text(render_cloud.allowed, quota(workspace))
    assert "meanwhile: tlvm run SCENARIO --provider local" in shown and "A GPU" not in shown


def test_a_project_without_any_gpu_may_ask_for_one_whatever_its_machine(project: Project) -> None:
    """As `tlvm init` leaves a new account: accelerator = "none", and told to ask."""
    project.server.cloud.project_quotas["GPUS_ALL_REGIONS"] = 0
    workspace = Workspace(project.settings(machine={"accelerator": "none"}))
    (found,) = quota_request(workspace, dry_run=True).requests
    assert (found.metric, found.value) == ("GPUS_ALL_REGIONS", 1)
    assert "for a GPU: tlvm quota request" in text(render_cloud.allowed, quota(workspace))
    quota_request(with_login(project), "GPUS_ALL_REGIONS", value=1)
    shown = text(render_cloud.allowed, quota(workspace))
    assert ", pending: Google answers" in shown and "quota request" not in shown


def test_where_google_takes_no_request_the_way_by_hand_is_shown(project: Project) -> None:
    project.server.cloud.project_quotas["GPUS_ALL_REGIONS"] = 0
    project.server.project.enabled.discard("cloudquotas.googleapis.com")
    result = quota_request(with_login(project))
    assert result.exit_code == 7 and not result.requests[0].is_sent
    shown = text(render_cloud.asked, result)
    assert (
        "not enabled" in shown
        and "has not been used" in shown
        and "gcloud beta quotas preferences create" in shown
    )
    assert not any(one.asked for one in quota(with_login(project)).quotas)


@pytest.mark.needs("gcloud")
def test_gcloud_takes_that_very_command(tmp_path: Path) -> None:
    """The Cloud Quotas API has no discovery document here: what gcloud makes of our words is the check."""
    sent: list[dict[str, Any]] = []

    def answer(request: Incoming) -> Answer:
        sent.append(json.loads(request.body))
        return Answer(200, {"Content-Type": "application/json"}, b'{"name": "projects/p/locations/global/x"}')

    asked = by_hand(PROJECT, "NVIDIA_L4_GPUS", "us-central1", 2, "ana@example.org")
    with HttpService(whole(answer), ["127.0.0.1"]) as service:
        environment = os.environ | {
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDQUOTAS": service.url_at("127.0.0.1") + "/",
            "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "True",
            "CLOUDSDK_CONFIG": str(tmp_path),
        }
        subprocess.run(asked.command, env=environment, capture_output=True, check=True, timeout=60)
    sent[0].pop("justification")  # words, on both sides
    assert sent == [body(asked, "ana@example.org")]  # what we send ourselves is what gcloud sends
    assert sent[0]["quotaId"] == "NVIDIA-L4-GPUS-per-project-region"
    assert (sent[0]["quotaConfig"], sent[0]["dimensions"]) == (
        {"preferredValue": "2"},
        {"region": "us-central1"},
    )


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


def test_a_new_account_may_have_no_gpu_whatever_its_regions_would_allow(project: Project) -> None:
    project.server.cloud.project_quotas["GPUS_ALL_REGIONS"] = 0
    found = gpus(Workspace(project.settings())).accelerators
    assert {left for kind in found for left in kind.quota.values()} == {0, None}


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
