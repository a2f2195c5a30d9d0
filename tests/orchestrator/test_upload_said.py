"""What an upload says is true: images are counted as images, and a split that is not there is not praised."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from orchestrator.datasets.checks.convert import Conversion
from orchestrator.datasets.columns.places import LOCATED
from orchestrator.datasets.packs import packing
from orchestrator.datasets.packs.pack import Pack
from orchestrator.datasets.packs.sending import Sending
from orchestrator.errors import DataError, NotFoundError
from orchestrator.progress import Bar, Silent
from orchestrator.render.console import Screen
from orchestrator.render.dataset_versions import collected, compared, shown
from orchestrator.render.datasets import uploaded
from orchestrator.stores import open_store
from orchestrator.stores.base import FREE, Blob, Store, Way
from orchestrator.workflows.data.datasets import resolve
from orchestrator.workflows.data.diff import diff
from orchestrator.workflows.data.download import download
from orchestrator.workflows.data.gc import gc
from orchestrator.workflows.data.show import show
from orchestrator.workflows.data.upload import UploadResult, upload
from remote.contract import layout
from remote.contract.run_spec import StoreRef
from tests.orchestrator.pictures import fill, picture
from tests.orchestrator.uploading import BUGS, Recorded, one, place


def drawn(result: UploadResult) -> str:
    out = io.StringIO()
    uploaded(Screen(out, io.StringIO()), [result])
    return out.getvalue()


def photo(number: int) -> Image.Image:
    """Smooth, as photos are: saving it again changes little."""
    return Image.open(io.BytesIO(picture(number))).resize((160, 120), Image.Resampling.BICUBIC)


def copies(tmp_path: Path) -> Path:
    """One image of train, of which val has three near copies."""
    folder = fill(tmp_path / "bugs", BUGS)
    original = photo(77)
    original.save(folder / "train/ants/photo.png")
    for quality in (91, 93, 95):
        original.save(folder / f"val/ants/{quality}.jpg", quality=quality)
    return folder


def test_images_that_are_left_out_are_counted_not_pairs(tmp_path: Path) -> None:
    workspace, _ = place(tmp_path)
    result = one(workspace, copies(tmp_path))
    assert len(result.excluded) == 1
    assert sum(leak.left_out for leak in result.leaks) == 3
    assert "3 pairs of near copies on two sides of the split; 1 image left out of training" in drawn(result)
    with pytest.raises(DataError, match=r"^1 image of bugs on two sides"):
        upload(workspace, tmp_path / "bugs", strict=True)


def test_a_page_that_was_chosen_is_no_preview(tmp_path: Path) -> None:
    workspace, _ = place(tmp_path)
    folder = fill(tmp_path / "bugs", BUGS)
    photo(5).save(folder / "train/ants/scan.tif", save_all=True, append_images=[photo(6)])
    photo(7).save(folder / "train/ants/stereo.jpg", "MPO", save_all=True, append_images=[photo(8)])
    (chosen,) = upload(workspace, folder, conversion=Conversion(page=2))
    (none,) = upload(workspace, folder, conversion=Conversion(page=0))
    previews = "Previews beside the picture (MPO) in 1 photo: the picture is used"
    page = "Of several pages one is used, as --page says: 1 image"
    assert {previews, page} <= set(chosen.warnings)
    assert previews in none.warnings
    assert page not in none.warnings


def test_a_fifth_is_said_to_be_val_only_where_there_is_one(tmp_path: Path) -> None:
    for number, label in enumerate(("ants", "bees")):  # each class is one picture, saved several times
        (tmp_path / "alike" / label).mkdir(parents=True)
        for quality in (90, 92, 94):
            photo(number).save(tmp_path / "alike" / label / f"{quality}.jpg", quality=quality)
    result = one(place(tmp_path)[0], tmp_path / "alike")
    assert "val" not in result.counts
    said = "\n".join(result.warnings)
    assert "No image in val: there are too few, or they are too much alike" in said
    assert "a fifth" not in said
    flat = fill(tmp_path / "flat", {"ants": 10, "bees": 10}, start=500)
    said = "\n".join(one(place(tmp_path)[0], flat).warnings)
    assert "a fifth of each class" in said
    assert "No image in val" not in said


def test_a_download_that_misses_a_pack_says_what_to_do(tmp_path: Path) -> None:
    workspace, store = place(tmp_path)
    one(workspace, fill(tmp_path / "bugs", BUGS))
    (pack,) = resolve(workspace, None)[2].packs()
    store.delete(layout.pack_key(pack))
    with pytest.raises(DataError, match=f"Pack {pack[:12]} in the store is damaged: it is missing") as error:
        download(workspace, "bugs", tmp_path / "back")
    assert "tlvm upload --verify DIR" in error.value.next
    one(workspace, tmp_path / "bugs", verify=True)
    assert download(workspace, "bugs", tmp_path / "back").written == 11


def test_what_comes_next_works_also_where_the_store_holds_several_datasets(tmp_path: Path) -> None:
    workspace, _ = place(tmp_path)
    result = one(workspace, fill(tmp_path / "bugs", BUGS))
    assert drawn(result).splitlines()[-1] == "next: tlvm run fixed-extractor --dataset bugs"


def test_a_second_thing_to_compare_with_is_named_when_there_is_none(tmp_path: Path) -> None:
    workspace, _ = place(tmp_path)
    first = one(workspace, fill(tmp_path / "bugs", BUGS)).version
    one(workspace, fill(tmp_path / "trees", BUGS, start=100))
    second = one(workspace, fill(tmp_path / "bugs", {"val/ants": 1}, start=200)).version
    assert diff(workspace, "bugs", first[:8]).removed == ["val/ants/0200.png"]
    assert diff(workspace, first[:8], f"bugs@{second[:8]}").added == ["val/ants/0200.png"]
    with pytest.raises(NotFoundError, match="There is no dataset nothere"):
        diff(workspace, "bugs", "nothere")


def test_a_gc_that_finds_nothing_says_so(tmp_path: Path) -> None:
    workspace, _ = place(tmp_path)
    one(workspace, fill(tmp_path / "bugs", BUGS))
    out = io.StringIO()
    collected(Screen(out, io.StringIO()), gc(workspace))
    assert out.getvalue().splitlines()[1:] == [
        "nothing to delete: every pack is named by a version",
        "next: tlvm datasets",
    ]


def test_what_is_left_out_is_listed_once(tmp_path: Path) -> None:
    workspace, _ = place(tmp_path)
    one(workspace, copies(tmp_path))
    out = io.StringIO()
    shown(Screen(out, io.StringIO()), show(workspace, "bugs"))
    assert out.getvalue().count("near copy of") == 1


def table(path: Path, folder: Path, classes: tuple[str, str], val: str) -> Path:
    """Of images 0000 to 0011: every other one is of the second class."""
    lines = [
        f"{image.relative_to(folder)},{classes[number % 2]},{'val' if image.stem in val else 'train'}"
        for number, image in enumerate(sorted(folder.rglob("*.png")))
    ]
    path.write_text("\n".join(["path,label,split", *lines]) + "\n")
    return path


def test_what_has_another_class_or_split_is_counted(tmp_path: Path) -> None:
    workspace, _ = place(tmp_path)
    folder = fill(tmp_path / "flat", {"all": 12})
    (first,) = upload(
        workspace, folder, labels=table(tmp_path / "a.csv", folder, ("ants", "bees"), "0000 0001")
    )
    assert "train 10 · val 2; given by a.csv" in drawn(first)
    labels = table(tmp_path / "a.csv", folder, ("ants", "bees"), "0000 0003")
    labels.write_text(labels.read_text().replace("0004.png,ants", "0004.png,bees"))
    (second,) = upload(workspace, folder, labels=labels)
    assert (second.relabelled, second.resplit, second.packs_sent) == (1, 2, 0)
    assert "; 1 of another class, 2 of another split; " in drawn(second)
    assert upload(workspace, folder, labels=labels)[0].relabelled == 0
    workspace.records.cache.rename(tmp_path / "forgotten")
    (again,) = upload(workspace, folder, labels=labels)
    assert (again.unchanged, again.relabelled, again.resplit) == (True, 0, 0)


def test_a_move_between_classes_says_that_it_is_one(tmp_path: Path) -> None:
    workspace, _ = place(tmp_path)
    folder = fill(tmp_path / "bugs", BUGS)
    first = one(workspace, folder)
    assert "given by folders" in drawn(first)
    (folder / "train/ants/0000.png").rename(folder / "train/bees/0000.png")
    (folder / "train/ants/0001.png").rename(folder / "train/ants/renamed.png")
    (folder / "val/bees/0010.png").rename(folder / "train/bees/0010.png")
    second = one(workspace, folder)
    assert "; 3 moved, 1 of another class, 1 of another split; " in drawn(second)
    difference = diff(workspace, f"bugs@{first.version[:8]}", "bugs")
    assert (len(difference.moved), difference.relabelled, difference.resplit) == (
        3,
        ["train/bees/0000.png"],
        ["train/bees/0010.png"],
    )
    out = io.StringIO()
    compared(Screen(out, io.StringIO()), difference)
    assert "class   1 image\n        train/bees/0000.png" in out.getvalue()


def test_a_linked_folder_has_the_name_of_the_link_with_a_table_too(tmp_path: Path) -> None:
    workspace, _ = place(tmp_path)
    folder = fill(tmp_path / "disk7", {"ants": 6, "bees": 6})
    (tmp_path / "bugs").symlink_to(folder)
    labels = table(tmp_path / "a.csv", folder, ("ants", "bees"), "0000 0001")
    (by_table,) = upload(workspace, tmp_path / "bugs", labels=labels, check_only=True)
    assert by_table.name == one(workspace, tmp_path / "bugs", check_only=True).name == "bugs"


class Slow(Recorded):
    """Packs stay on their way until somebody looks how far they are."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.looked = threading.Event()

    def upload(self, path: Path, key: str, *, if_generation: int | None = None, way: Way = FREE) -> Blob:
        def on_its_way() -> None:
            way.gate()
            assert self.looked.wait(60)
            way.passed(1000)

        held = replace(way, gate=on_its_way) if key.startswith(layout.PACKS) else way
        return super().upload(path, key, if_generation=if_generation, way=held)


class Watching(Silent):
    """Somebody who looks at the bar of what is sent."""

    def __init__(self, looked: threading.Event) -> None:
        self.totals: list[tuple[int, str]] = []
        self.came: list[int] = []
        self._looked = looked

    @contextmanager
    def bar(self, label: str, total: int, unit: str) -> Iterator[Bar]:
        if label != "send":
            yield self
            return
        self.totals.append((total, unit))
        self._looked.set()
        yield self

    def advance(self, amount: int = 1, size_bytes: int = 0) -> None:
        if self._looked.is_set() and amount:
            self.came.append(amount)


def test_who_waits_for_packs_sees_how_far_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_UNSEEN_S", 0.0)
    workspace, _ = place(tmp_path)
    workspace.store = store = Slow(open_store(StoreRef(str(tmp_path / "store"))))
    workspace.progress = progress = Watching(store.looked)
    result = one(workspace, fill(tmp_path / "bugs", BUGS))
    (pack,) = (blob for blob in store.blobs(layout.PACKS) if blob.key.endswith(".tar"))
    assert result.packs_sent == 1
    assert progress.totals == [(pack.size, "bytes")]
    assert progress.came == [1000, pack.size - 1000]


def test_a_try_that_begins_anew_shows_nothing_until_it_is_further(tmp_path: Path) -> None:
    pack = Pack("a" * 64, tmp_path / "pack", 1000, "", LOCATED.rows())
    progress = Watching(threading.Event())
    sending = Sending()
    sending.passed(pack, 0)
    sending.passed(pack, 200)
    with sending.shown(progress):
        for count in (500, 0, 400, 600, 1000):
            sending.passed(pack, count)
    assert progress.totals == [(800, "bytes")]
    assert progress.came == [300, 100, 400]
