"""Every file is read and decoded to its last byte, and each that can't be used is listed with the reason."""

from __future__ import annotations

import io
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.datasets.checks.cache import FILE, Cache
from orchestrator.datasets.checks.check import Outcome, check
from orchestrator.datasets.checks.checked import Checked
from orchestrator.datasets.checks.findings import window
from orchestrator.datasets.checks.judge import SAMPLES, Unusable, Verdict, judge
from orchestrator.datasets.folder import names, reading
from orchestrator.datasets.folder.scan import Labelled, Scan, survey
from orchestrator.progress import Bar, Silent
from tests.nobody import as_nobody, for_all
from tests.orchestrator.pictures import fill, picture
from tests.processes import living
from tests.shared_data import shared, unpacked

UNUSABLE = {  # what becomes of the odd images that have an image's name and are none, or not one
    "animated_gif_named.jpg": "GIF is not taken",
    "badwidth.bmp": "more than 89,478,485 pixels",
    "bomb_100Mpx_warns.png": "100,000,000 pixels, more than",
    "bomb_400Mpx_error.png": "more than 89,478,485 pixels",
    "broken.png": "not an image",
    "broken_data_stream.png": "can't be decoded",
    "crash-0c7e0e8e11ce787078f00b5b0ca409a167f070e0.tif": "can't be decoded",
    "half_photo.jpg": "can't be decoded",
    "html_error_page.jpg": "not an image",
    "iss634.webp": "42 frames",
    "jpeg_header_claims_65500x65500.jpg": "more than 89,478,485 pixels",
    "lfs_pointer.jpg": "a pointer of git-lfs",
    "mode_16bit.png": "3 frames",
    "mode_palette_alpha.png": "3 frames",
    "multipage.tiff": "3 pages",
    "negative_size.ppm": "not an image",
    "oom-225817ca0f8c663be7ab4b9e717b02c661e66834.tif": "",
    "photo_cut_200_bytes.jpg": "can't be decoded",
    "photo_missing_last_2_bytes.jpg": "can't be decoded",
    "png_decompression_dos.png": "can't be decoded",
    "seek_too_large.tif": "can't be decoded",
    "text.png": "not an image",
    "truncated_end_chunk.png": "can't be decoded",
    "truncated_image.png": "can't be decoded",
    "truncated_jpeg.jpg": "can't be decoded",
    "ultrahdr.jpg": "can't be decoded",
    "zero_byte.jpg": "empty file",
}
FOREIGN = {
    ".DS_Store", "._photo.jpg", "MANIFEST.txt", "Thumbs.db", "background_outside_palette.gif", "broken_symlink.jpg", "chi.gif",
    "decompression_bomb.gif", "decompression_bomb.ico", "decompression_bomb_extents.gif",
    "hopper.qoi", "imageNotFound.gif", "iss634.gif", "no_extension", "no_palette_with_transparency.gif", "sugarshack.mpo",
}  # fmt: skip


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scan, Outcome]:
    root = tmp_path_factory.mktemp("odd")
    unpacked("data/odd_images.tar.gz", root / "odd")
    fill(root, {"plain": 1})
    (found,) = survey(root).datasets
    return found, check(found, Silent())


def test_odd_images_are_used_or_set_aside_and_none_is_dropped(odd: tuple[Scan, Outcome]) -> None:
    scan, outcome = odd
    used = {names.encode(image.file.path) for image in outcome.images}
    unusable = {item.path for item in outcome.unusable}
    foreign = {item.path for item in scan.set_aside}
    on_disk = {
        names.encode(os.fsencode(path.relative_to(scan.root)))
        for path in scan.root.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }
    assert used | unusable | foreign == on_disk
    assert len(used) + len(unusable) + len(foreign) == len(on_disk)
    assert foreign == {f"odd/{name}" for name in FOREIGN}
    assert not outcome.missed


def test_unusable_images_are_listed_with_their_reason(odd: tuple[Scan, Outcome]) -> None:
    found = {item.path.removeprefix("odd/"): item.reason for item in odd[1].unusable}
    assert set(found) == set(UNUSABLE)
    assert [name for name, reason in found.items() if UNUSABLE[name] not in reason] == []
    assert [reason for reason in found.values() if "<_io" in reason or "\n" in reason] == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cmyk_adobe.jpg", ("jpg", "CMYK", 1)),
        ("exif_rot6.jpg", ("jpg", "RGB", 6)),
        ("exif_rot6.png", ("png", "RGB", 6)),
        ("hopper_orientation_5.jpg", ("jpg", "RGB", 5)),
        ("Landscape_0.jpg", ("jpg", "RGB", 1)),
        ("gray16_full_range.png", ("png", "I;16", 1)),
        ("float32.tif", ("tif", "F", 1)),
        ("hopper_16bit.pgm", ("ppm", "I", 1)),
        ("palette_transparency_bytes.png", ("png", "P", 1)),
        ("rgba_png_named.jpg", ("png", "RGBA", 1)),
        ("webp_named.jpg", ("webp", "RGB", 1)),
        ("bilevel_1bit.png", ("png", "1", 1)),
        ("latin1_%E9.jpg", ("jpg", "RGB", 1)),
        ("new%0Aline.jpg", ("jpg", "RGB", 1)),
        ("good_symlink.jpg", ("jpg", "RGB", 1)),
        ("trailing_garbage.jpg", ("jpg", "RGB", 1)),
    ],
)
def test_odd_images_that_can_be_used(
    odd: tuple[Scan, Outcome], name: str, expected: tuple[str, str, int]
) -> None:
    (verdict,) = [i.verdict for i in odd[1].images if names.encode(i.file.path) == f"odd/{name}"]
    assert (verdict.extension, verdict.mode, verdict.orientation) == expected
    assert len(verdict.sample) == (4 * SAMPLES if verdict.mode in ("I;16", "F", "I") else 0)


def test_a_photo_with_previews_is_a_photo() -> None:
    with tarfile.open(shared("data/odd_images.tar.gz")) as archive:
        member = archive.extractfile(
            next(m for m in archive.getmembers() if m.name.endswith("sugarshack.mpo"))
        )
        assert member is not None
        verdict = judge(member.read())
    assert isinstance(verdict, Verdict)
    assert (verdict.extension, verdict.pages) == ("jpg", 2)


def test_every_cut_of_an_image_is_refused() -> None:
    for form in ("JPEG", "PNG"):
        whole = picture(1, form, (64, 48))
        assert isinstance(judge(whole), Verdict)
        for length in (0, 1, 100, len(whole) // 2, len(whole) - 2):
            assert isinstance(judge(whole[:length]), Unusable), (form, length)


def test_processes_and_this_process_agree(tmp_path: Path) -> None:
    fill(tmp_path, {"ants": 70, "bees": 30})
    (tmp_path / "bees/broken.png").write_bytes(b"\x89PNG")
    (found,) = survey(tmp_path).datasets
    assert check(found, Silent(), processes=2) == check(found, Silent(), processes=0)


class Advancing:
    """Progress that does something each time a batch is done."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act

    def say(self, label: str, text: str) -> None: ...

    def warn(self, text: str) -> None: ...

    def bar(self, label: str, total: int, unit: str) -> AbstractContextManager[Bar]:
        return nullcontext(self)

    def advance(self, amount: int = 1, size_bytes: int = 0) -> None:
        self._act()


def test_a_worker_that_is_killed_costs_no_image(tmp_path: Path) -> None:
    fill(tmp_path, {"ants": 200, "bees": 100})
    (found,) = survey(tmp_path).datasets
    killed: list[int] = []

    def kill_once() -> None:
        for child in multiprocessing.active_children():
            if not killed and child.pid:
                killed.append(child.pid)
                child.kill()

    outcome = check(found, Advancing(kill_once), processes=2)
    assert killed
    assert len(outcome.images) + len(outcome.unusable) == 300
    assert {item.reason for item in outcome.unusable} <= {"the decoder crashed on it"}
    assert len(outcome.unusable) <= 1


def test_ctrl_c_leaves_no_process_behind(tmp_path: Path) -> None:
    fill(tmp_path, {"ants": 100, "bees": 100})
    (found,) = survey(tmp_path).datasets
    check(found, Silent(), processes=1)
    before = set(multiprocessing.active_children())  # of a check that has ended, and need not be waited for
    began: set[BaseProcess] = set()

    def interrupt() -> None:
        began.update(set(multiprocessing.active_children()) - before)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(found, Advancing(interrupt), processes=2)
    assert began and not began & set(multiprocessing.active_children())


_STOPPED_HALF_WAY = """
import multiprocessing, sys, time
from pathlib import Path
from orchestrator.datasets.checks.check import check
from orchestrator.datasets.folder.scan import survey
from tests.orchestrator.test_datasets_check import Advancing

def stop():
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    time.sleep(60)

check(survey(Path(sys.argv[1])).datasets[0], Advancing(stop), processes=2)
"""


def test_workers_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    fill(tmp_path, {"ants": 100, "bees": 100})
    with subprocess.Popen(
        [sys.executable, "-c", _STOPPED_HALF_WAY, tmp_path], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        workers = {int(pid) for pid in parent.stdout.readline().split()}
        parent.kill()
    assert len(workers) == 2
    deadline = time.monotonic() + 120
    while living().keys() & workers:
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.05)


def test_what_was_found_is_kept_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill costs a few seconds of work."""
    monkeypatch.setattr("orchestrator.datasets.checks.check._KEPT_AT_ONCE", 1)
    fill(tmp_path / "bugs", {"ants": 200, "bees": 200})
    (found,) = survey(tmp_path / "bugs").datasets
    kept: list[int] = []

    def look() -> None:
        with closing(sqlite3.connect(tmp_path / FILE)) as database:
            kept.extend(count for (count,) in database.execute("SELECT count(*) FROM verdicts"))

    with closing(Cache(tmp_path)) as cache:
        check(found, Advancing(look), processes=0, cache=cache)
    assert kept == sorted(kept) and kept[0] == 0 < kept[1] < 400


_CHECKED = """
import sys
from pathlib import Path
from orchestrator.datasets.checks import workers
from orchestrator.datasets.checks.check import check
from orchestrator.datasets.folder.scan import survey
from orchestrator.errors import CloudError
from orchestrator.progress import Silent

workers._LOADED_BY_WORKERS = tuple(sys.argv[2:])
try:
    print(len(check(survey(Path(sys.argv[1])).datasets[0], Silent(), processes=2).images))
except CloudError as error:
    print(error.what)
"""


def checked(folder: Path, *loaded: str, temporary: Path) -> str:
    """What a process of its own says, whose workers load this."""
    words = [sys.executable, "-c", _CHECKED, str(folder), *loaded]
    environment = os.environ | {"TMPDIR": str(temporary), "PYTHONPATH": os.getcwd()}  # noqa: PTH109
    return subprocess.run(
        words, env=environment, cwd=temporary, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ).stdout


@pytest.mark.parametrize("length", [10, 120])
def test_any_temporary_folder_will_do(tmp_path: Path, length: int) -> None:
    """Paths of sockets are short."""
    temporary = tmp_path / ("t" * length)
    temporary.mkdir()
    fill(tmp_path / "bugs", {"ants": 50, "bees": 50})
    assert checked(tmp_path / "bugs", temporary=temporary) == "100\n"
    assert list(temporary.iterdir()) == []


def test_workers_that_end_as_they_begin_are_no_answer(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    fill(tmp_path / "bugs", {"ants": 50, "bees": 50})
    said = checked(tmp_path / "bugs", "unittest.__main__", temporary=tmp_path / "t")
    assert said == "The processes that look at images can't be started\n"


def test_files_that_change_or_vanish_are_named(tmp_path: Path) -> None:
    fill(tmp_path, {"ants": 3, "bees": 1})
    (found,) = survey(tmp_path).datasets
    (tmp_path / "ants/0000.png").unlink()
    (tmp_path / "ants/0001.png").write_bytes(picture(99))
    outcome = check(found, Silent())
    assert {item.path: item.reason for item in outcome.missed} == {
        "ants/0000.png": "it vanished meanwhile",
        "ants/0001.png": "it changed meanwhile",
    }
    assert len(outcome.images) == 2


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    with path.open("wb") as file:
        file.truncate(reading.FILE_BYTES_MAX + 1)
    seen = path.stat()
    file_ = Labelled(b"huge.png", seen.st_size, seen.st_mtime_ns, seen.st_ino, None, "x")
    assert reading.read(os.fsencode(tmp_path), file_) == Unusable("larger than 512 MiB")


def deep(low: int, high: int) -> bytes:
    values = np.linspace(low, high, 64 * 64).reshape(64, 64).astype(np.uint16)
    out = io.BytesIO()
    Image.fromarray(values).save(out, "PNG")
    return out.getvalue()


def test_one_intensity_window_comes_from_train() -> None:
    images = []
    for number, (low, high) in enumerate([(100, 2000), (300, 4000), (0, 60000)]):
        verdict = judge(deep(low, high))
        assert isinstance(verdict, Verdict)
        images.append(Checked(Labelled(b"%d.png" % number, 0, 0, 0, None, "x"), verdict))
    found = window(images, ["train", "train", "val"])
    assert found is not None
    assert found[0] == pytest.approx(100, abs=10)
    assert found[1] == pytest.approx(4000, abs=10)
    assert window(images, ["val", "val", "val"]) is not None
    assert window([], []) is None


def test_a_plain_image_twice_gives_a_window_that_is_not_empty() -> None:
    verdict = judge(deep(7, 7))
    assert isinstance(verdict, Verdict)
    image = Checked(Labelled(b"1.png", 0, 0, 0, None, "x"), verdict)
    assert window([image], ["train"]) == [7.0, 8.0]


def test_ants_and_bees_all_decode() -> None:
    (found,) = survey(shared("data/hymenoptera")).datasets
    few = Scan(found.name, found.root, found.files[::12], found.splits, [], [])
    outcome = check(few, Silent(), processes=0)
    assert (len(outcome.images), outcome.unusable, outcome.missed) == (len(few.files), [], [])


def test_no_permission() -> None:
    with for_all() as root:
        fill(root / "bugs", {"ants": 2, "bees": 2})
        (root / "bugs/ants/0000.png").chmod(0)
        with as_nobody():
            (found,) = survey(root / "bugs").datasets
            outcome = check(found, Silent(), processes=0)
    assert [(i.path, i.reason) for i in outcome.missed] == [("ants/0000.png", "no permission to read it")]
    assert len(outcome.images) == 3
