"""`configs/ci/github-workflow-gce.yml` as GitHub runs it: each `run:` step in a fresh checkout, with a login that lives for minutes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.test_wheel import few_photos
from tests.fakes import compute_loopback
from tests.fakes.compute_server import PROJECT, ComputeServer
from tests.fakes.gcs_server import GcsServer
from tests.fakes.token_service import TokenService
from tests.needs import need
from tests.orchestrator.gce_project import BUCKET, Project
from tests.shared_data import shared

_WORKFLOW = (Path(__file__).parents[2] / "configs/ci/github-workflow-gce.yml").read_text(encoding="utf-8")
_VARIABLES = {"PROJECT": PROJECT, "BUCKET": BUCKET, "PROVIDER": "", "ACCOUNT": ""}  # of the repository


@dataclass(frozen=True)
class Runner:
    """A computer of GitHub's, with the repository checked out and logged in."""

    checkout: Path
    environment: dict[str, str]
    project: Project
    tokens: TokenService

    def step(self, script: str) -> str:
        done = subprocess.run(
            ["bash", "-e", "-c", script],
            cwd=self.checkout,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, f"{script}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    need("loopback machines")
    checkout = tmp_path / "retrain"
    few_photos(checkout / "photos")
    (checkout / "tlvm.toml").write_text("[scenarios.fine-tune-all]\nepochs = 1\n")
    machines = compute_loopback.LoopbackHardware(tmp_path / "machines")
    with (
        TokenService(tmp_path) as tokens,
        GcsServer() as bucket,
        ComputeServer(machines, is_open=False) as cloud,
    ):
        cloud.is_current = bucket.is_current = tokens.is_current
        login = str(tokens.credentials_file())
        of_the_fakes = {
            "TLVM_GCE_ENDPOINT": cloud.url,
            "TLVM_GCE_CREDENTIALS_FILE": login,
            "TLVM_GCE_SSH_SOURCE_RANGES": "203.0.113.7/32",
            "TLVM_MACHINE_ACCELERATOR": "none",  # a machine of the fake has no GPU to train on
            "TLVM_STORE_ENDPOINT": bucket.endpoint,
            "TLVM_STORE_CREDENTIALS_FILE": login,
            "TLVM_RUN_MODEL": "squeezenet1_1",
            "TLVM_RUN_WEIGHTS": str(shared("weights/squeezenet1_1-onnxzoo-fp32.pth")),
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TLVM_")}
        environment = kept | {
            "HOME": str(tmp_path / "home"),
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
            "CI": "true",
        }
        environment.pop("XDG_DATA_HOME", None)
        yield Runner(
            checkout, environment | of_the_fakes | _environment(), Project(cloud, bucket, tmp_path), tokens
        )
        assert cloud.errors == [] and bucket.errors == []


def test_every_step_works_and_what_it_leaves_is_the_result(runner: Runner, tmp_path: Path) -> None:
    install, *steps = re.findall(r"^      - run: (.+)$", _WORKFLOW, re.MULTILINE)
    assert install == "pip install tlvm"  # it is here already
    assert len(steps) == _WORKFLOW.count("run: ") - 1 == 2
    said = "".join(runner.step(step) for step in steps)
    assert "0 failures, 0 warnings" in said
    summary = (tmp_path / "summary.md").read_text()
    assert summary.startswith("### fine-tune-all on photos ") and "| class | right |" in summary
    (uploaded,) = re.findall(r"^ +path: (.+)$", _WORKFLOW, re.MULTILINE)
    (result,) = (runner.checkout / uploaded).glob("fine-tune-all-*")
    assert (result / "model" / "model.safetensors").is_file()
    assert json.loads((result / "run.json").read_text())["state"] == "SUCCEEDED"
    resources = runner.project.server.cloud.resources
    assert resources["instances"] == {} and resources["disks"] == {}
    (made,) = [one.body for one in runner.project.server.requests if one.call == "instances.insert"]
    assert made["scheduling"]["maxRunDuration"] == {"seconds": str(4 * 3600)}
    assert runner.tokens.exchanged and runner.tokens.refused == []


def _environment() -> dict[str, str]:
    """`env:` of the job, with the variables of the repository filled in."""
    (block,) = re.findall(r"^    env:\n((?:      .+\n)+)", _WORKFLOW, re.MULTILINE)
    found = dict(re.findall(r"^      (\w+): \"?(.+?)\"?$", block, re.MULTILINE))
    return {
        name: re.sub(r"\$\{\{ vars\.(\w+) \}\}", lambda match: _VARIABLES[match[1]], value)
        for name, value in found.items()
    }
