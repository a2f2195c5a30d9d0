"""Packs: any tar opens them, the same images give the same bytes, and the manifest's offsets hold."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.datasets.checks.checked import Checked
from orchestrator.datasets.checks.judge import Verdict
from orchestrator.datasets.folder.scan import Labelled
from orchestrator.datasets.packs import pack
from orchestrator.datasets.packs.member import header
from orchestrator.datasets.packs.scratch import scratch, spool
from orchestrator.errors import CloudError

files = st.lists(st.binary(max_size=1500), min_size=1, max_size=12)


def checked(root: Path, contents: list[bytes]) -> list[Checked]:
    images = []
    for number, data in enumerate(contents):
        path = root / f"{number:03d}.png"
        path.write_bytes(data)
        seen = path.stat()
        file = Labelled(os.fsencode(path.name), seen.st_size, seen.st_mtime_ns, seen.st_ino, None, "x")
        verdict = Verdict(hashlib.sha256(data).hexdigest(), "png", 1, 1, "RGB", 1, 1, b"")
        images.append(Checked(file, verdict))
    return images


@settings(max_examples=40, deadline=None)
@given(files, st.randoms(use_true_random=False))
def test_a_pack_is_a_tar_whose_members_lie_where_it_says(
    contents: list[bytes], shuffled: random.Random
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        images = checked(root, contents)
        (group,) = pack.groups(images)
        written, missed = pack.write(group, root, root)
        assert written is not None
        assert missed == []
        data = written.path.read_bytes()
        assert hashlib.sha256(data).hexdigest() == written.sha256 == written.path.stem
        assert len(data) == written.size
        with tarfile.open(written.path) as archive:
            members = archive.getmembers()
            assert [member.name for member in members] == sorted({f"{i.verdict.sha256}.png" for i in images})
            assert {(m.mtime, m.uid, m.gid, m.mode, m.isreg()) for m in members} == {(0, 0, 0, 0o644, True)}
            assert {m.name[:64]: m.offset_data for m in members} == written.offsets
        for content in contents:
            at = written.offsets[hashlib.sha256(content).hexdigest()]
            assert data[at : at + len(content)] == content
        shuffled.shuffle(images)
        again, _ = pack.write(images_once(images), root, root)
        assert again is not None
        assert again.sha256 == written.sha256


def images_once(images: list[Checked]) -> list[Checked]:
    return list({image.verdict.sha256: image for image in images}.values())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3000), max_size=40), st.integers(2000, 6000))
def test_packs_keep_to_their_size_and_hold_each_content_once(sizes: list[int], limit: int) -> None:
    images = [
        Checked(
            Labelled(b"%d" % n, size, 0, n, None, "x"),
            Verdict(hashlib.sha256(b"%d" % (n % 30)).hexdigest(), "png", 1, 1, "RGB", 1, 1, b""),
        )
        for n, size in enumerate(sizes)
    ]
    grouped = pack.groups(images, limit)
    flat = [image.verdict.sha256 for group in grouped for image in group]
    assert len(flat) == len(set(flat))
    assert set(flat) == {image.verdict.sha256 for image in images}
    for group in grouped:
        size = 1024 + sum(512 + -(-image.file.size // 512) * 512 for image in group)
        assert size <= limit or len(group) == 1


def test_gnu_tar_opens_it(tmp_path: Path) -> None:
    written, _ = pack.write(checked(tmp_path, [b"one", b"two" * 400]), tmp_path, tmp_path)
    assert written is not None
    listed = subprocess.run(["tar", "-tvf", written.path], capture_output=True, text=True, check=True)
    assert listed.stderr == ""
    assert len(listed.stdout.splitlines()) == 2


def test_the_header_is_the_one_that_tarfile_writes() -> None:
    name = "ab" * 32 + ".jpg"
    info = tarfile.TarInfo(name)
    info.size, info.mode = 123456, 0o644
    ours, theirs = header(name, 123456), info.tobuf(tarfile.USTAR_FORMAT)
    assert ours[:148] == theirs[:148]
    assert tarfile.TarInfo.frombuf(ours, "ascii", "strict").size == 123456


def test_what_changed_since_the_check_is_missed_and_the_rest_is_packed(tmp_path: Path) -> None:
    images = checked(tmp_path, [b"one", b"two", b"three", b"four"])
    (tmp_path / "000.png").unlink()
    (tmp_path / "001.png").write_bytes(b"another")
    seen = (tmp_path / "002.png").stat()
    (tmp_path / "002.png").write_bytes(b"THREE")
    os.utime(tmp_path / "002.png", ns=(seen.st_atime_ns, seen.st_mtime_ns))
    written, missed = pack.write(images, tmp_path, tmp_path)
    assert written is not None
    assert {(item.path, item.reason) for item in missed} == {
        ("000.png", "it vanished meanwhile"),
        ("001.png", "it changed meanwhile"),
        ("002.png", "it changed meanwhile"),
    }
    assert list(written.offsets) == [hashlib.sha256(b"four").hexdigest()]


def test_nothing_left_is_no_pack(tmp_path: Path) -> None:
    images = checked(tmp_path, [b"one"])
    (tmp_path / "000.png").unlink()
    written, missed = pack.write(images, tmp_path, tmp_path)
    assert (written, len(missed)) == (None, 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.needs("/dev/full")
def test_a_full_disk_says_so(tmp_path: Path) -> None:
    images = checked(tmp_path, [b"x" * 100_000])
    with pytest.raises(CloudError, match="The disk is full"), scratch() as folder:
        (folder / "pack.part").symlink_to("/dev/full")
        pack.write(images, tmp_path, folder)


def test_what_is_not_the_fault_of_the_folder_is_not_blamed_on_it(tmp_path: Path) -> None:
    with pytest.raises(BrokenPipeError), spool(tmp_path / "cache"):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")
    with pytest.raises(PermissionError), spool(tmp_path / "cache"):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "photos/1.png"))
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_is_its_fault_names_it(tmp_path: Path) -> None:
    with pytest.raises(CloudError, match="cache can't be used") as error, spool(tmp_path / "cache") as folder:
        (folder / "missing/pack").open("wb")
    assert error.value.detail == "No such file or directory"
    (tmp_path / "file").touch()
    with pytest.raises(CloudError, match="file/cache can't be used"), spool(tmp_path / "file/cache"):
        pass
