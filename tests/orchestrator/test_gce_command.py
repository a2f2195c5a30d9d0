"""The command itself on gce: what it loads, and what a person sees."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.compute_server import PROJECT, ComputeServer
from tests.fakes.gcs_server import GcsServer
from tests.orchestrator.gce_cloud import OFFER, gce, wanted

_LOADED = """
import sys
from orchestrator.cli import main
try:
    main()
finally:
    heavy = ("google.cloud.compute_v1", "google.cloud.storage", "fabric", "torch")
    print("LOADED", *[name for name in heavy if name in sys.modules], file=sys.stderr)
"""


@pytest.fixture
def server() -> Iterator[ComputeServer]:
    with ComputeServer() as running:
        yield running
        assert running.errors == []


@pytest.fixture
def project(server: ComputeServer, tmp_path: Path) -> Iterator[Path]:
    with GcsServer() as bucket:
        bucket.create_bucket("trees-4711-tlvm")
        (tmp_path / "tlvm.toml").write_text(
            f"""provider = "gce"
owner = "ana"
[store]
url = "gs://trees-4711-tlvm"
endpoint = "{bucket.endpoint}"
[machine]
accelerator = ["l4", "t4"]
spot = true
budget = 1.0
[gce]
project = "{PROJECT}"
zones = ["us-central1-a", "us-east4"]
endpoint = "{server.url}"
ssh_source_ranges = ["203.0.113.7/32"]
""",
            encoding="utf-8",
        )
        yield tmp_path


def tlvm(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TLVM_DATA_DIR": str(project / "data"), "COLUMNS": "200"}
    command = [sys.executable, "-c", _LOADED, *arguments]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=120)


def loaded(done: subprocess.CompletedProcess[str]) -> list[str]:
    return done.stderr.split("LOADED", 1)[1].split()


def test_a_dry_run_tells_places_price_end_and_the_most_it_can_cost(
    server: ComputeServer, project: Path
) -> None:
    done = tlvm(project, "up", "--dry-run")
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "nvidia-l4 in us-central1-a" in said and "us-east4-a" in said
    assert "then nvidia-tesla-t4 in us-central1-a" in said
    assert "disk 200 GB pd-balanced, about $20.00 a month" in said
    assert "ssh only from 203.0.113.7/32, as gce.ssh_source_ranges says" in said
    assert "at most about $1.00" in said and "30 min idle" in said
    assert "google.cloud.compute_v1" not in loaded(done)
    request = json.loads(tlvm(project, "up", "--dry-run", "--json").stdout)["request"]
    assert request["body"]["scheduling"]["provisioningModel"] == "SPOT"
    assert server.count("instances.insert") == 0


def test_what_a_person_waits_for_does_not_load_googles_client(server: ComputeServer, project: Path) -> None:
    held = gce(server)
    held.create(wanted(name="tlvm-ana-trees", project="other"), OFFER)
    shown = tlvm(project, "status")
    assert shown.returncode == 0, shown.stderr
    assert "tlvm-ana-trees" in shown.stdout and "us-central1-a" in shown.stdout
    assert not {"google.cloud.compute_v1", "torch"} & set(loaded(shown))
    ended = tlvm(project, "down", "--machine", "tlvm-ana-trees", "--yes", "--force")
    assert ended.returncode == 0, ended.stderr
    assert "google.cloud.compute_v1" not in loaded(ended)
    assert held.get("tlvm-ana-trees") is None


def test_another_provider_by_flag_leaves_the_files_machine_aside(project: Path) -> None:
    """`tlvm run --provider local` must work in a folder whose tlvm.toml describes a rented machine."""
    done = tlvm(project, "up", "--dry-run", "--provider", "local", "--json")
    assert done.returncode != 0 or json.loads(done.stdout)["spec"]["accelerator"] == "none"
    assert "spot" not in done.stderr


def test_what_only_a_rented_machine_has_is_refused_elsewhere(project: Path) -> None:
    done = tlvm(project, "up", "--dry-run", "--provider", "local", "--idle-minutes", "5")
    assert done.returncode == 2
    assert "--idle-minutes" in done.stderr and "local" in done.stderr
