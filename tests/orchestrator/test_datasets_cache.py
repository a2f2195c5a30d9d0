"""What is remembered saves time and never hides a change; small packs that are many become one."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.config import load
from orchestrator.datasets.checks.cache import FILE, Cache
from orchestrator.datasets.checks.judge import Unusable, judge
from orchestrator.datasets.folder.snapshot import is_settled
from orchestrator.datasets.packs.small import SMALL_MAX
from orchestrator.workflows.data.datasets import resolve
from orchestrator.workflows.data.upload import UploadResult, upload
from orchestrator.workflows.workspace import Workspace
from tests.orchestrator.pictures import picture

COUNTS = {"train/ants": 6, "train/bees": 6, "val/ants": 2, "val/bees": 2}
LONG_AGO_NS = 1_700_000_000_123_456_789


def workspace_of(tmp_path: Path) -> Workspace:
    return Workspace(load({}, environ={"TLVM_DATA_DIR": str(tmp_path / "data")}, folder=tmp_path))


def photo(path: Path, seed: int) -> None:
    """Noise without compression: every file has the same size. Its time is long ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "BMP")
    os.utime(path, ns=(LONG_AGO_NS + seed, LONG_AGO_NS + seed))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    number = 0
    for label, count in COUNTS.items():
        for _ in range(count):
            number += 1
            photo(tmp_path / "bugs" / label / f"{number}.bmp", number)
    return tmp_path / "bugs"


def one(tmp_path: Path, folder: Path) -> UploadResult:
    (result,) = upload(workspace_of(tmp_path), folder, processes=0)
    return result


def test_again_unchanged_no_file_is_opened(tmp_path: Path, folder: Path) -> None:
    first = one(tmp_path, folder)
    path = folder / "train/ants/1.bmp"
    seen, content = path.stat(), path.read_bytes()
    with path.open(
        "r+b"
    ) as file:  # the same size, inode and, put back, time: nobody could know without reading
        file.write(content[:-1] + b"?")
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    again = one(tmp_path, folder)
    assert (again.unchanged, again.version, again.images) == (True, first.version, 16)
    assert (again.counts, again.warnings, again.added) == (first.counts, first.warnings, 0)


@pytest.mark.parametrize("how", ["time", "inode"])
def test_a_file_edited_at_equal_size_is_found(tmp_path: Path, folder: Path, how: str) -> None:
    one(tmp_path, folder)
    path = folder / "train/ants/1.bmp"
    size, seen = path.stat().st_size, path.stat()
    if how == "time":
        photo(path, 99)
    else:
        photo(folder.parent / "new.bmp", 98)
        os.utime(folder.parent / "new.bmp", ns=(seen.st_atime_ns, seen.st_mtime_ns))
        (folder.parent / "new.bmp").replace(path)
    assert path.stat().st_size == size
    assert one(tmp_path, folder).changed == 1


def test_what_is_remembered_of_a_file_is_not_believed_of_other_bytes(tmp_path: Path, folder: Path) -> None:
    """Size, time and inode are those of the file that was judged, and it must be read again for another store."""
    one(tmp_path, folder)
    path = folder / "train/ants/1.bmp"
    seen, content = path.stat(), path.read_bytes()
    with path.open("r+b") as file:
        file.write(b"??" + content[2:])
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    flags = {"store.url": str(tmp_path / "another")}
    settings = load(flags, environ={"TLVM_DATA_DIR": str(tmp_path / "data")}, folder=tmp_path)
    (result,) = upload(Workspace(settings), folder, processes=0)
    assert [item.path for item in result.unusable] == ["train/ants/1.bmp"]
    assert result.images == 15


@pytest.mark.parametrize("harm", ["gone", "junk", "old"])
def test_a_cache_that_is_lost_or_damaged_changes_only_time(tmp_path: Path, folder: Path, harm: str) -> None:
    first = one(tmp_path, folder)
    cache = tmp_path / "data/records/cache"
    for path in [path for path in cache.rglob("*") if path.is_file()]:
        path.unlink() if harm == "gone" else path.write_bytes(b"junk" if harm == "junk" else b"{}")
    again = one(tmp_path, folder)
    assert (again.version, again.unchanged) == (first.version, True)
    photo(folder / "train/ants/more.bmp", 500)
    assert (one(tmp_path, folder).added, one(tmp_path, folder).unchanged) == (1, True)


def test_what_was_written_a_moment_ago_is_looked_at_again() -> None:
    now_ns = time.time_ns()
    whole_second = (now_ns // 1_000_000_000 - 1) * 1_000_000_000
    times = np.array([LONG_AGO_NS, now_ns - 1_000_001, whole_second])
    assert is_settled(times, now_ns).tolist() == [True, False, False]


def test_verdicts_of_another_way_of_looking_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = judge(picture(1))
    cache = Cache(tmp_path)
    cache.keep([("ab" * 32, judged), ("cd" * 32, Unusable("no"))])
    assert cache.verdicts(["ab" * 32, "ef" * 32]) == {"ab" * 32: judged}
    assert cache.verdicts(["cd" * 32]) == {"cd" * 32: Unusable("no")}
    cache.close()
    another = Cache(tmp_path, how="page 2")
    assert another.verdicts(["ab" * 32]) == {}
    another.keep([("ab" * 32, judged)])
    another.close()
    monkeypatch.setattr(
        "orchestrator.datasets.checks.cache.ENCODING", 0
    )  # it names what travels, by another encoder
    another = Cache(tmp_path, how="page 2")
    assert another.verdicts(["ab" * 32]) == {}
    another.close()
    as_it_is = Cache(tmp_path)
    assert as_it_is.verdicts(["ab" * 32]) == {"ab" * 32: judged}
    as_it_is.close()
    assert (tmp_path / FILE).exists()


def test_small_packs_that_are_many_become_one(tmp_path: Path, folder: Path) -> None:
    one(tmp_path, folder)
    for number in range(SMALL_MAX + 1):
        photo(folder / f"train/ants/more{number}.bmp", 1000 + number)
        result = one(tmp_path, folder)
        assert result.packs_sent == 1
    manifest = resolve(workspace_of(tmp_path), "bugs")[2]
    assert result.images == 16 + SMALL_MAX + 1
    assert len(manifest.packs()) <= 2
    assert one(tmp_path, folder).unchanged
