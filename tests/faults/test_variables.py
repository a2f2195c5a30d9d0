"""A secret that a run needs reaches its training over SSH, and is nowhere else: not in arguments, metadata, bucket or log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import pytest

from tests.e2e.gce_world import BUCKET
from tests.faults.fork_server import Forked
from tests.faults.stopping_bucket import StoppingBucket
from tests.faults.test_kill_anywhere import Stage, Theatre
from tests.needs import need

TOKEN = "correct-horse-battery-staple-4711"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    need("loopback machines")
    with Forked() as forked, StoppingBucket() as bucket, Theatre(tmp_path, forked, bucket).stage() as stage:
        yield stage


def test_a_secret_is_on_the_machine_alone_and_only_while_the_run_needs_it(stage: Stage) -> None:
    stage("up")
    (home,) = stage.machines.folder.glob("*")
    file = stage.folder.parent / "lab.env"
    file.write_text(f"LAB_TOKEN={TOKEN}\n")
    words = ("run", "fixed-extractor", "--weights", "none", "--seed", "60", "--verbose", "--json")
    job = stage.begin(*words, "--env-file", str(file))
    job.until(lambda: any(home.glob(".tlvm/runs/*/environment.json")) and _works(home))
    found = [*home.glob(".tlvm/runs/*/environment.json")]
    assert found[0].stat().st_mode & 0o777 == 0o600
    assert json.loads(found[0].read_text()) == {"LAB_TOKEN": TOKEN}
    assert _holding(home) == {found[0]}
    assert not any(TOKEN.encode() in line for line in _command_lines())
    (home / ".tlvm" / "go").touch()
    answer = job.answer()
    assert answer.exit_code == 0, answer.stderr

    assert answer.document["metrics"]["token"] == sha256(TOKEN.encode()).hexdigest()
    assert "LAB_TOKEN" in _content(stage, "spec.json").decode()
    assert TOKEN not in answer.stdout + answer.stderr
    assert _holding(home) == set() == _holding(stage.folder)
    assert not any(TOKEN.encode() in item.content for item in stage.bucket.api.buckets.page(BUCKET, {}).items)
    assert TOKEN not in json.dumps([request.body for request in stage.cloud.requests], default=str)
    assert not found[0].exists()


def _works(home: Path) -> bool:
    return any("line 299" in log.read_text() for log in home.glob(".tlvm/runs/*/log.txt"))


def _holding(folder: Path) -> set[Path]:
    return {
        path
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and TOKEN.encode() in path.read_bytes()
    }


def _command_lines() -> Iterator[bytes]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            yield path.read_bytes()


def _content(stage: Stage, name: str) -> bytes:
    found = stage.bucket.api.buckets.page(BUCKET, {"prefix": "runs/"}).items
    return b"".join(item.content for item in found if item.name.endswith(name))
