"""The main job on `docker` with a folder as the store, of which a machine may write only runs/ and checkpoints/; and the script for CI."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker_engine import engine
from tests.e2e.command import OWNER, Tlvm
from tests.e2e.test_wheel import few_photos
from tests.shared_data import shared

pytestmark = pytest.mark.docker

_SCRIPT = Path(__file__).parents[2] / "configs" / "ci" / "retrain"
_WEIGHTS = "weights/squeezenet1_1-onnxzoo-fp32.pth"
_MACHINE = f"tlvm-{OWNER}-folder"


@pytest.fixture
def tlvm(tmp_path: Path) -> Iterator[Tlvm]:
    variables = {"TLVM_PROVIDER": "docker", "TLVM_MACHINE_NAME": _MACHINE, "TLVM_MACHINE_MAX_HOURS": "1"}
    tlvm = Tlvm(tmp_path, variables=variables)
    few_photos(tmp_path / "photos")
    try:
        yield tlvm
    finally:
        tlvm("down", "--force", "--yes")


def test_the_main_job(tlvm: Tlvm) -> None:
    tlvm("up")
    tlvm("upload", tlvm.home / "photos")
    model = ["--model", "squeezenet1_1", "--weights", str(shared(_WEIGHTS))]
    result = tlvm("run", "fixed-extractor", *model, "--json", timeout_s=180).document
    assert (result["state"], result["look"]) == ("SUCCEEDED", 1)
    (look,) = (tlvm.home / "data").glob(f"**/looks/*/val/{result['run_id']}")
    assert look.is_file()
    down = tlvm("down", "--yes", "--json").document
    assert (down["deleted"], down["runs"]) == (True, [result["run_id"]])
    assert not _containers(_MACHINE)


def test_the_script_for_ci(tlvm: Tlvm) -> None:
    environment = tlvm.environment() | {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "MODEL": "squeezenet1_1",
        "WEIGHTS": str(shared(_WEIGHTS)),
    }
    summary = tlvm.home / "summary.md"
    summary.write_text("# Retrained\n")
    done = subprocess.run(
        [_SCRIPT, tlvm.home / "photos", summary],
        cwd=tlvm.folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    text = summary.read_text()
    assert text.startswith("# Retrained\n### fixed-extractor on photos ")
    assert "| class | right | recall | 95 % | precision |" in text
    (folder,) = (tlvm.folder / "runs").glob("fixed-extractor-*")
    machine = f"tlvm-{folder.name}"
    assert f"| machine | {machine}, which is gone |" in text
    (figures,) = [
        one
        for one in json.loads((folder / "metrics.json").read_text())["evaluations"]
        if one["split"] == "val"
    ]
    assert 0.5 <= figures["accuracy"] <= 1
    about = json.loads((folder / "run.json").read_text())
    assert [one["machine"] for one in about["attempts"]] == [machine] and about["seconds"] > 0
    assert not _containers(machine)


def _containers(name: str) -> list[str]:
    with engine() as client:
        found = client.containers.list(all=True, filters={"name": f"^/{name}$"})
        return [str(one.name) for one in found]
