"""init for Google Cloud: what is looked at first, what is asked, the file and the bucket that come of it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config import load
from orchestrator.errors import ConfigError, ConflictError
from orchestrator.render import setup as render_setup
from orchestrator.render.console import Screen
from orchestrator.resources import folder as shipped
from orchestrator.workflows.setup.answers import Answers
from orchestrator.workflows.setup.init import InitResult, init
from tests.fakes.compute_cloud import Clock
from tests.fakes.compute_server import PROJECT, ComputeServer
from tests.fakes.gcs_server import GcsServer

BUCKET = f"{PROJECT}-tlvm"


class Person:
    """Answers by the start of a question; what is not told is answered as offered."""

    def __init__(self, **answers: str) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.said: list[str] = []

    def choose(self, question: str, choices: Mapping[str, str]) -> str:
        return self._answer(question, next(iter(choices)))

    def text(self, question: str, default: str) -> str:
        return self._answer(question, default)

    def yes(self, question: str) -> bool:
        return self._answer(question, "no") == "yes"

    def say(self, text: str) -> None:
        self.said.append(text)

    def _answer(self, question: str, default: str) -> str:
        self.asked.append(question)
        return next((text for start, text in self.answers.items() if question.startswith(start)), default)


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ComputeServer, GcsServer]]:
    with ComputeServer(clock=Clock(rate=0), wait_s=0.05) as server, GcsServer() as bucket:
        monkeypatch.setenv("TLVM_GCE_ENDPOINT", server.url)
        monkeypatch.setenv("TLVM_GCE_PROJECT", PROJECT)
        monkeypatch.setenv("TLVM_STORE_ENDPOINT", bucket.endpoint)
        yield server, bucket
        assert server.errors == [] and bucket.errors == []


Cloud = tuple[ComputeServer, GcsServer]


def written(result: InitResult) -> dict[str, Any]:
    return tomllib.loads(result.file.read_text(encoding="utf-8"))


def shown(result: InitResult) -> str:
    out = io.StringIO()
    render_setup.written(Screen(out, io.StringIO()), result)
    return out.getvalue()


def test_what_is_given_is_in_the_file_and_nobody_is_asked(cloud: Cloud, tmp_path: Path) -> None:
    given = Answers(
        "gce", "gs://elsewhere", PROJECT, "us-east4-c, us-west1", "l4,t4", 2, "g2-standard-24", True, 300,
        "pytorch-2-9-cu129-ubuntu-2204-nvidia-580", 8.0, 12.5,
    )  # fmt: skip
    result = init(tmp_path, given)
    found = written(result)
    assert found["gce"] == {
        "project": PROJECT,
        "zones": ["us-east4-c", "us-west1"],
        "image_family": "pytorch-2-9-cu129-ubuntu-2204-nvidia-580",
    }
    assert found["machine"] == {
        "accelerator": "l4,t4", "accelerator_count": 2, "machine_type": "g2-standard-24", "spot": True, "disk_gb": 300,
        "max_hours": 8.0, "budget": 12.5,
    }  # fmt: skip
    assert found["store"]["url"] == "gs://elsewhere" and result.bucket == ""
    assert result.comments > 20
    assert load({}, environ={}, folder=tmp_path).machine.budget == 12.5


def test_a_new_account_gets_a_machine_without_a_gpu_and_is_told(cloud: Cloud, tmp_path: Path) -> None:
    server, _ = cloud
    server.cloud.project_quotas["GPUS_ALL_REGIONS"] = 0
    result = init(tmp_path, Answers("gce"))
    assert written(result)["machine"] == {"accelerator": "none", "max_hours": 4.0}
    assert result.standing is not None and (result.standing.gpus, result.standing.billing) == (0, True)
    assert "tlvm quota request" in result.notes[0] and "GPU quota 0" in shown(result)


@pytest.mark.parametrize("way", ["local", "none", "ask"])
def test_a_person_without_a_quota_is_offered_three_ways(cloud: Cloud, tmp_path: Path, way: str) -> None:
    server, _ = cloud
    server.cloud.project_quotas["GPUS_ALL_REGIONS"] = 0
    person = Person(**{"Where": "gce", "Your GPU quota": way, "Which GPU": "t4"})
    result = init(tmp_path, Answers(), asking=person)
    assert "GPU quota 0" in person.said[0] and "GPU quota 0" not in shown(result)  # told once
    if way == "local":
        assert result.provider == written(result)["provider"] == "local"
        assert len(person.asked) == 2
    elif way == "none":
        assert written(result)["machine"]["accelerator"] == "none"
    else:
        assert written(result)["machine"]["accelerator"] == "t4"
        assert "--quota-id=GPUS-ALL-REGIONS-per-project" in result.requests[0].command
        assert "gcloud beta quotas preferences create" in shown(result)


def test_asking_google_for_a_gpu_is_asking(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _ = cloud
    server.cloud.project_quotas["GPUS_ALL_REGIONS"] = 0
    monkeypatch.setenv("TLVM_GCE_CREDENTIALS_FILE", str(server.credentials_file(tmp_path)))
    result = init(tmp_path, Answers(), asking=Person(**{"Where": "gce", "Your GPU quota": "ask"}))
    (asked,) = server.project.quota_requests.values()
    assert (asked["quotaId"], asked["quotaConfig"]["preferredValue"]) == ("GPUS-ALL-REGIONS-per-project", "1")
    assert "asked   GPUS_ALL_REGIONS of the project, to 1" in shown(result)


def test_a_project_that_nobody_named_is_asked_for(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TLVM_GCE_PROJECT")
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT", raising=False)
    person = Person(**{"Project": PROJECT, "Bucket": f"gs://{BUCKET}"})
    result = init(tmp_path, Answers("gce"), asking=person)
    assert written(result)["gce"]["project"] == PROJECT
    assert result.standing is not None and "No project" in person.said[0]


def test_a_slip_of_the_finger_loses_no_answer(cloud: Cloud, tmp_path: Path) -> None:
    slips = iter(["y", "-1", "nan", "6"])

    class Slipping(Person):
        def text(self, question: str, default: str) -> str:
            return next(slips) if question.startswith("Hours") else super().text(question, default)

    person = Slipping()
    result = init(tmp_path, Answers("gce"), asking=person)
    assert written(result)["machine"]["max_hours"] == 6
    assert [line for line in person.said if "no number" in line or "not a number" in line] == [
        f"{slip!r} is not a number from 0 on" for slip in ("y", "-1", "nan")
    ]


def test_the_bucket_is_private_near_and_keeps_everything_but_checkpoints(
    cloud: Cloud, tmp_path: Path
) -> None:
    _, bucket = cloud
    person = Person(**{"Regions": "us-east4-c,us-west1", "Create": "yes", "At most": "5", "Spot": "yes"})
    result = init(tmp_path, Answers("gce"), asking=person)
    assert (result.store, result.bucket) == (f"gs://{BUCKET}", "created")
    made = bucket.api.buckets.resource(BUCKET)
    assert made["location"] == "US-EAST4"
    assert made["iamConfiguration"] == {
        "uniformBucketLevelAccess": {"enabled": True},
        "publicAccessPrevention": "enforced",
    }
    deleting = [rule for rule in made["lifecycle"]["rule"] if rule["action"]["type"] == "Delete"]
    assert [rule["condition"]["matchesPrefix"] for rule in deleting] == [["checkpoints/"]]
    assert "softDeletePolicy" not in made  # Google's own: on
    found = written(result)
    assert (found["machine"]["spot"], found["machine"]["budget"]) == (True, 5.0)
    again = init(tmp_path, Answers("gce", create_bucket=True, zones="us-west1"), replace=True)
    assert again.replaced and again.bucket == "there already"
    assert bucket.api.buckets.resource(BUCKET)["location"] == "US-EAST4"


def test_a_name_of_somebody_else_is_not_used(cloud: Cloud, tmp_path: Path) -> None:
    _, bucket = cloud
    bucket.create_bucket(BUCKET)
    bucket.fail("403", on="buckets.get")
    with pytest.raises(ConflictError, match="somebody else"):
        init(tmp_path, Answers("gce", create_bucket=True))
    assert not (tmp_path / "tlvm.toml").exists()


@pytest.mark.parametrize(
    "given",
    [
        Answers("gce", store="photos"),
        Answers("gce", store="gs://UPPER", create_bucket=True),
        Answers("gce", max_hours=1000),
        Answers("gce", zones=","),
        Answers("docker", budget=3.0),
    ],
)
def test_what_can_not_be_writes_nothing(cloud: Cloud, tmp_path: Path, given: Answers) -> None:
    with pytest.raises(ConfigError):
        init(tmp_path, given)
    assert list(tmp_path.iterdir()) == []


def test_without_a_login_the_file_is_written_and_says_so(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TLVM_GCE_CREDENTIALS_FILE", str(tmp_path / "none.json"))
    result = init(tmp_path, Answers("gce", "gs://trees"))
    assert result.standing is None and "gcloud auth application-default login" in result.notes[0]
    assert written(result)["store"]["url"] == "gs://trees"


def test_no_billing_is_told(cloud: Cloud, tmp_path: Path) -> None:
    server, _ = cloud
    server.project.billing_enabled = False
    result = init(tmp_path, Answers("gce"))
    assert "no billing account" in result.notes[0] and "NO billing" in shown(result)


def test_every_key_of_the_commented_file_is_one_that_exists(tmp_path: Path) -> None:
    text = (shipped("configs") / "google-cloud.toml").read_text(encoding="utf-8")
    assert text.startswith("# ") and "tlvm up --dry-run" in text.splitlines()[0]
    opened = [line.removeprefix("# ") if " = " in line else line for line in text.splitlines()]
    (tmp_path / "tlvm.toml").write_text("\n".join(opened), encoding="utf-8")
    found = load({}, environ={"TLVM_DATA_DIR": str(tmp_path)}, folder=tmp_path)
    (tmp_path / "tlvm.toml").write_text('provider = "gce"\n', encoding="utf-8")
    bare = load({}, environ={"TLVM_DATA_DIR": str(tmp_path)}, folder=tmp_path)
    for name in ("accelerator", "accelerator_count", "max_hours", "idle_minutes"):
        assert getattr(found, name) == getattr(bare, name)


def test_on_a_real_terminal_it_asks_and_a_slip_is_asked_again(cloud: Cloud, tmp_path: Path) -> None:
    server, bucket = cloud
    server.cloud.project_quotas["GPUS_ALL_REGIONS"] = 0
    file = server.credentials_file(tmp_path)
    (folder := tmp_path / "trees").mkdir()
    answers = ("9", "3", "3", "2", "us-central1", "y", "six", "6", "5", "", "y")
    variables = os.environ | {
        "TLVM_GCE_CREDENTIALS_FILE": str(file),
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "COLUMNS": "200",
    }
    person, terminal = os.openpty()
    with os.fdopen(person, "wb", buffering=0) as hand:
        hand.write(
            "".join(f"{answer}\n" for answer in answers).encode()
        )  # the terminal keeps what is typed ahead
        command = [sys.executable, "-m", "orchestrator", "init"]
        process = subprocess.Popen(
            command, cwd=folder, env=variables, stdin=terminal, stdout=subprocess.PIPE, stderr=terminal
        )
        os.close(terminal)
        seen = bytearray()
        with suppress(OSError):  # the other side has closed the terminal
            while more := os.read(person, 65536):
                seen += more
        out = process.communicate(timeout=60)[0].decode()
    asked = seen.decode()
    assert process.returncode == 0, asked + out
    assert "[3] Google Cloud" in asked and "Your GPU quota is 0 (GPUS_ALL_REGIONS)" in asked
    assert "'six' is not a number" in asked and "GPU quota 0" in asked
    found = tomllib.loads((folder / "tlvm.toml").read_text(encoding="utf-8"))
    assert found["machine"] == {"accelerator": "t4", "spot": True, "max_hours": 6.0, "budget": 5.0}
    assert found["store"]["url"] == f"gs://{BUCKET}"
    assert bucket.api.buckets.resource(BUCKET)["location"] == "US-CENTRAL1"
    assert "asked   GPUS_ALL_REGIONS of the project, to 1" in out and "next: tlvm doctor" in out
