"""`run --ephemeral` as one transaction, on Google's client library, real SSH and a machine of its own: what ends it, and when.

Training is a stand-in. There is never a machine without an end, and never a result lost.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fakes import compute_loopback
from tests.faults.fork_server import Forked, Job
from tests.faults.stopping_bucket import StoppingBucket
from tests.faults.test_kill_anywhere import Stage, Theatre

_RUN = ("run", "fixed-extractor", "--weights", "none", "--ephemeral")


@pytest.fixture(scope="module")
def theatre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    if why := compute_loopback.missing():
        pytest.skip(why)
    with Forked() as forked, StoppingBucket() as bucket:
        yield Theatre(tmp_path_factory.mktemp("ephemeral"), forked, bucket)


@pytest.fixture
def stage(theatre: Theatre) -> Iterator[Stage]:
    with theatre.stage() as stage:
        text = (stage.folder / "tlvm.toml").read_text()
        (stage.folder / "tlvm.toml").write_text(text.replace('name = "tlvm-ana-trees"\n', ""))
        yield stage


def owed(stage: Stage) -> list[str]:
    """The machines that this computer has still to see to."""
    return [path.stem for path in (stage.folder / ".tlvm" / "ephemeral").glob("*/*.json")]


def here(stage: Stage) -> dict[str, set[str]]:
    """The files of each result on this computer."""
    return {
        folder.name: {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        for folder in (stage.folder / "runs").glob("*")
    }


def test_up_run_down_and_pull_are_one_command(stage: Stage) -> None:
    document = stage(*_RUN, "--json").document
    run_id = document["run_id"]
    assert document["state"] == "SUCCEEDED" and document["machine"] == f"tlvm-{run_id}"
    assert document["down"]["deleted"] and document["down"]["runs"] == [run_id]
    assert document["cost"] == document["down"]["cost"] > 0
    assert stage.instances() == {} and stage.in_bucket(run_id) and owed(stage) == []
    assert "model/model.safetensors" in here(stage)[run_id]
