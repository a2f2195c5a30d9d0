"""`tlvm run --rehearse` goes all the way with two images a class, for every scenario, and leaves nothing behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from remote.contract.scenarios import SCENARIOS
from tests.e2e.command import OWNER, Tlvm
from tests.e2e.test_main_job import docker_bridge
from tests.e2e.test_wheel import few_photos
from tests.fakes.gcs_server import GcsServer
from tests.processes import living_with
from tests.shared_data import shared

WEIGHTS = "weights/squeezenet1_1-onnxzoo-fp32.pth"
MODEL = ["--model", "squeezenet1_1", "--set", "image_size=64"]


@pytest.fixture
def tlvm(tmp_path: Path) -> Tlvm:
    """With its temporary files in a folder of the test."""
    few_photos(tmp_path / "photos")
    return at(tmp_path)


def at(folder: Path, **variables: str) -> Tlvm:
    (folder / "temporary").mkdir()
    return Tlvm(folder, variables={"TMPDIR": str(folder / "temporary"), **variables})


def test_every_scenario_is_rehearsed_and_nothing_is_left(tlvm: Tlvm, tmp_path: Path) -> None:
    tlvm("upload", tlvm.home / "photos")
    before = stored(tmp_path)
    words = [
        "run",
        "all",
        *MODEL,
        "--weights",
        str(shared(WEIGHTS)),
        "--env",
        "LAB_TOKEN=s3cret",
        "--rehearse",
    ]
    said = tlvm(*words, "--json").document
    assert [run["scenario"] for run in said["runs"]] == list(SCENARIOS)
    by_name = {run["scenario"]: run for run in said["runs"]}
    assert by_name["fine-tune-all"]["changed"] == {"epochs": "15 → 2"}
    assert by_name["fixed-extractor"]["weights"] == "file squeezenet1_1-onnxzoo-fp32.pth"
    assert by_name["from-scratch"]["weights"] == "none"
    assert (said["provider"], said["packs"], said["dataset"]) == ("local", 1, "photos")
    assert said["next"].startswith("tlvm run all --model squeezenet1_1 ")
    assert "LAB_TOKEN=..." in said["next"]
    assert "--rehearse" not in said["next"] and "s3cret" not in said["next"]
    assert {key for key in stored(tmp_path) - before if not key.startswith("weights/")} == set()
    assert not (tlvm.folder / "runs").exists()
    nothing_is_left(tmp_path)


def test_ctrl_c_ends_it_and_leaves_nothing(tlvm: Tlvm, tmp_path: Path) -> None:
    tlvm("upload", tlvm.home / "photos")
    rest = tlvm.interrupted("run", "from-scratch", "--weights", "none", *MODEL, "--rehearse", at="run ")
    assert "The rehearsal has ended its machine: Nothing of it goes on." in rest
    nothing_is_left(tmp_path)


def test_what_would_fail_on_a_rented_machine_fails_here_first(tlvm: Tlvm, tmp_path: Path) -> None:
    words = ["--model", "squeezenet1_1", "--weights", "none", "--unfreeze-from", "layer9", "--rehearse"]
    failed = tlvm("run", "fine-tune-top", "--data", tlvm.home / "photos", *words, "--json", expect=9)
    error = failed.document["error"]
    assert error["what"] == "The rehearsal of fine-tune-top failed; nothing was rented"
    assert "layer9" in error["detail"]
    nothing_is_left(tmp_path)


@pytest.fixture
def bucket() -> Iterator[GcsServer]:
    with GcsServer(("127.0.0.1", docker_bridge())) as server:
        yield server


@pytest.mark.docker
def test_in_a_container_with_the_data_of_a_bucket(bucket: GcsServer, tmp_path: Path) -> None:
    tlvm = at(
        tmp_path,
        TLVM_PROVIDER="gce",
        TLVM_STORE_URL=bucket.create_bucket("ants-and-bees"),
        TLVM_STORE_ENDPOINT=bucket.endpoint_at("127.0.0.1"),
    )
    few_photos(tmp_path / "photos")
    words = [
        "run",
        "fixed-extractor",
        "--data",
        str(tlvm.home / "photos"),
        *MODEL,
        "--weights",
        str(shared(WEIGHTS)),
    ]
    answer = tlvm(*words, "--rehearse", timeout_s=180)
    assert "rehearsed in " in answer.stdout and "on a container of this computer" in answer.stdout
    assert (
        "fixed-extractor, squeezenet1_1, file squeezenet1_1-onnxzoo-fp32.pth: fetched, trained"
        in answer.stdout
    )
    assert f"next: tlvm run fixed-extractor --data {tlvm.home / 'photos'} --model" in answer.stdout
    nothing_is_left(tmp_path)
    from tests.docker_engine import engine

    with engine() as client:
        names = [found.name for found in client.containers.list(all=True)]
    assert not [name for name in names if name and f"{OWNER}-rehearsal-" in name]


def stored(folder: Path) -> set[str]:
    store = folder / "data" / "store"
    return {path.relative_to(store).as_posix() for path in store.rglob("*") if path.is_file()}


def nothing_is_left(folder: Path) -> None:
    """No file of the rehearsal (torch itself keeps a folder of its own), no record of its machine, no process that names one."""
    assert list((folder / "temporary").glob("tlvm*")) == []
    assert living_with(str(folder / "temporary")) == []
    records = [json.loads(path.read_text()) for path in (folder / "data").glob("records/**/*.json")]
    assert "rehearsal" not in json.dumps(records)
