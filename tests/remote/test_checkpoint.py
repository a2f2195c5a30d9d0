"""Checkpoints: written whole, kept twice, refused by name, and a full disk that ends nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from remote.training.checkpoint import Checkpoints, Rhythm, State, digest

ROOT = Path(__file__).parents[2]
PARAMETERS = {"epochs": 3, "learning_rate": 0.1}


def opened(folder: Path, run_id: str = "run-a", parameters: dict[str, Any] | None = None) -> Checkpoints:
    return Checkpoints(folder, run_id, parameters or PARAMETERS, rhythm=Rhythm(60, 50), tell=print)


def state(number: int) -> State:
    weight = torch.arange(12.0).view(1, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    return {"weight": weight + number, "position": {"step": number, "best": float("inf")}, "none": None}


def test_what_each_one_cost_is_told(tmp_path: Path) -> None:
    told: list[tuple[int, int, float]] = []
    times = iter([0.0, 10.0, 12.5, 20.0, 21.0])
    checkpoints = Checkpoints(
        tmp_path,
        "run-a",
        {},
        rhythm=Rhythm(60, 50),
        wrote=lambda number, size, seconds: told.append((number, size, seconds)),
        clock=lambda: next(times),
    )
    assert checkpoints.save(state(1)) and checkpoints.save(state(2))
    sizes = [path.stat().st_size for path in sorted(tmp_path.glob("*.pt"))]
    assert told == [(1, sizes[0], 2.5), (2, sizes[1], 1.0)]


def test_the_newest_is_read_and_two_are_kept(tmp_path: Path) -> None:
    checkpoints = opened(tmp_path / "checkpoints")
    assert checkpoints.latest() is None
    for number in range(4):
        assert checkpoints.save(state(number))
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["checkpoint-00000003.pt", "checkpoint-00000004.pt"]
    found = opened(tmp_path / "checkpoints").latest()
    assert found is not None
    assert digest(found) == digest(state(3))
    assert found["weight"].stride() == state(3)["weight"].stride()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-700])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def other_content(path: Path) -> None:
    held = torch.load(path, weights_only=True)
    held["state"]["weight"][0, 0, 0, 0] += 1
    torch.save(held, path)


def older(path: Path) -> None:
    torch.save({**torch.load(path, weights_only=True), "schema": 1}, path)


def of_another_run(path: Path) -> None:
    torch.save({**torch.load(path, weights_only=True), "run_id": "run-b"}, path)


def with_other_parameters(path: Path) -> None:
    torch.save({**torch.load(path, weights_only=True), "parameters": {**PARAMETERS, "epochs": 4}}, path)


def code(path: Path) -> None:
    torch.save(subprocess.run, path)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (cut, "can't be read"),
        (empty, "can't be read"),
        (code, "can't be read"),
        (other_content, "hash"),
        (older, "schema 3"),
        (of_another_run, "another run, run-b"),
        (with_other_parameters, "other parameters"),
    ],
)
def test_what_is_no_checkpoint_of_this_run_is_refused_and_the_one_before_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], None], says: str
) -> None:
    checkpoints = opened(tmp_path)
    for number in range(2):
        checkpoints.save(state(number))
    spoil(tmp_path / "checkpoint-00000002.pt")
    checkpoints = opened(tmp_path)
    found = checkpoints.latest()
    assert found is not None
    assert found["position"]["step"] == 0
    told = capsys.readouterr().out
    assert told.startswith("checkpoint-00000002.pt is refused: ")
    assert says in told
    checkpoints.save(state(1))  # what is refused is none of the two that are kept
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint-00000001.pt",
        "checkpoint-00000003.pt",
    ]


def test_a_byte_that_turned_is_noticed_wherever_it_is(tmp_path: Path) -> None:
    opened(tmp_path).save(state(0))
    whole = (tmp_path / "checkpoint-00000001.pt").read_bytes()
    weight = whole.index(
        torch.arange(12.0).view(1, 3, 2, 2).permute(0, 2, 3, 1).contiguous().numpy().tobytes()
    )
    (tmp_path / "checkpoint-00000001.pt").write_bytes(
        whole[: weight + 5] + bytes([whole[weight + 5] ^ 1]) + whole[weight + 6 :]
    )
    assert opened(tmp_path).latest() is None


def test_saving_takes_at_most_a_fiftieth_of_the_time(tmp_path: Path) -> None:
    now = [0.0]

    class Slow:
        """A number that takes 10 s to write."""

        def __reduce__(self) -> tuple[type[int], tuple[int]]:
            now[0] += 10
            return int, (1,)

    checkpoints = Checkpoints(tmp_path, "run-a", {}, rhythm=Rhythm(60, 50), clock=lambda: now[0])
    now[0] = 59
    assert not checkpoints.due()
    now[0] = 60
    assert checkpoints.due()
    checkpoints.save({"slow": Slow()})
    began = 0.0
    for written in (1, 2, 3):
        while not checkpoints.due():
            now[0] += 1
        assert now[0] - began >= 50 * 10, "since the last one"
        assert 50 * 10 * (written + 2) <= now[0], "all of them, with this one and one at the end"
        began = now[0]
        checkpoints.save({"slow": Slow()})
    assert now[0] <= 50 * 10 * (3 + 2) + 3 * 10, "and hardly later than that"


def test_a_full_disk_is_told_and_the_one_before_stays(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
import torch
from remote.training.checkpoint import Checkpoints, Rhythm
disk = Path(sys.argv[1])
checkpoints = Checkpoints(disk / "checkpoints", "run-a", {}, rhythm=Rhythm(0, 0), tell=print)
assert checkpoints.save({"weight": torch.zeros(1000)})
assert not checkpoints.save({"weight": torch.zeros(1_000_000)})
assert [path.name for path in (disk / "checkpoints").iterdir()] == ["checkpoint-00000001.pt"]
assert checkpoints.latest()["weight"].shape == (1000,)
assert checkpoints.save({"weight": torch.zeros(2000)})
assert checkpoints.latest()["weight"].shape == (2000,)
"""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = f'mount -t tmpfs -o size=1m none "{disk}" && exec "$@"'
    command = [sys.executable, "-c", script, str(disk)]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mounted, "sh", *command], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("No checkpoint could be written") == 1
