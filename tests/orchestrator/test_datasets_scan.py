"""What a folder means, without reading a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.datasets.folder import names
from orchestrator.datasets.folder.labels import survey_by_table
from orchestrator.datasets.folder.meanwhile import is_touched
from orchestrator.datasets.folder.scan import survey
from orchestrator.errors import ConfigError, DataError, NotFoundError
from remote.contract import layout
from tests.nobody import as_nobody, for_all
from tests.orchestrator.pictures import fill
from tests.shared_data import shared

TWO = {"ants": 1, "bees": 1}
SPLIT = {"train/ants": 2, "train/bees": 2, "train/bees/deeper": 1, "val/ants": 1, "val/bees": 1, "more": 0}


def labels(folder: Path) -> set[tuple[str, str | None, str]]:
    (found,) = survey(folder).datasets
    return {(names.encode(file.path), file.split, file.class_name) for file in found.files}


def reasons(folder: Path) -> dict[str, str]:
    (found,) = survey(folder).datasets
    return {item.path: item.reason for item in found.set_aside}


def test_class_folders_are_a_dataset_without_splits(tmp_path: Path) -> None:
    fill(tmp_path, TWO)
    assert labels(tmp_path) == {("ants/0000.png", None, "ants"), ("bees/0001.png", None, "bees")}


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val"])
def test_split_folders_in_every_spelling(tmp_path: Path, name: str) -> None:
    fill(tmp_path, {"train/ants": 1, f"{name}/ants": 1, "test/ants": 1})
    assert {split for _, split, _ in labels(tmp_path)} == {"train", "val", "test"}


def test_two_folders_for_one_split_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, {"train/ants": 1, "val/ants": 1, "valid/ants": 1})
    with pytest.raises(DataError, match="two folders for val: val and valid"):
        survey(tmp_path)


def test_a_class_may_be_named_train(tmp_path: Path) -> None:
    fill(tmp_path, {"car": 1, "plane": 1, "train": 1})
    assert {label for _, _, label in labels(tmp_path)} == {"car", "plane", "train"}


def test_each_child_that_fits_is_a_dataset(tmp_path: Path) -> None:
    fill(tmp_path, {"Trees 1/train/oak": 1, "bugs/ants": 1, "bugs/bees": 1, "notes/deep/down/there": 0})
    (tmp_path / "README.md").write_text("x")
    found = survey(tmp_path)
    assert [scan.name for scan in found.datasets] == ["trees-1", "bugs"]
    assert {item.path for item in found.ignored} == {"notes", "README.md"}
    assert [names.encode(file.path) for file in found.datasets[0].files] == ["train/oak/0000.png"]
    with pytest.raises(ConfigError, match="given for 2 datasets"):
        survey(tmp_path, name="x")


def test_two_datasets_of_one_name_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, {"my bugs/a": 1, "my bugs/b": 1, "my-bugs/a": 1, "my-bugs/b": 1})
    with pytest.raises(DataError, match="Two folders would be the dataset my-bugs"):
        survey(tmp_path)


def test_a_dataset_among_classes_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, {"ants": 1, "bees": 1, "other/train/x": 1})
    with pytest.raises(DataError, match=r"other in .* is a dataset"):
        survey(tmp_path)


@pytest.mark.parametrize("counts", [{}, {".": 1}, {".": 2}, {"train": 2, "test": 2}, {"a/b/c": 2}])
def test_what_is_no_dataset_shows_the_tree_beside_the_expected_one(
    tmp_path: Path, counts: dict[str, int]
) -> None:
    with pytest.raises(DataError, match="holds no dataset") as error:
        survey(fill(tmp_path / "photos", counts or {"": 0}))
    assert "found:" in error.value.detail
    assert "expected:" in error.value.detail
    assert error.value.exit_code == 11
    assert "1 images" not in error.value.detail and "1 other files" not in error.value.detail


def test_a_dataset_is_called_as_the_user_calls_its_folder(tmp_path: Path) -> None:
    fill(tmp_path / "2024-x7", TWO)
    (tmp_path / "trees").symlink_to("2024-x7")
    assert survey(tmp_path / "trees").datasets[0].name == "trees"
    assert survey(tmp_path / "2024-x7/ants/..").datasets[0].name == "2024-x7"
    assert survey(tmp_path / "trees", name="forest").datasets[0].name == "forest"


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no folder"):
        survey(tmp_path / "none")


def test_images_below_a_class_folder_belong_to_it(tmp_path: Path) -> None:
    fill(tmp_path, {"ants/red": 2, "ants": 1, "bees": 1})
    (found,) = survey(tmp_path).datasets
    assert [file.class_name for file in found.files].count("ants") == 3
    assert found.warnings == ["In folders below ants, of that class: 2 images"]


def test_what_is_no_image_is_listed_with_its_reason(tmp_path: Path) -> None:
    fill(tmp_path, {"train/ants": 1, "train/bees": 1, "extra": 1, "train/ants/.ipynb_checkpoints": 1})
    for name in ("._a.jpg", ".DS_Store", "Thumbs.db", "a.gif", "noname", "jpg", ".hidden.png"):
        (tmp_path / "train/ants" / name).write_bytes(b"x")
    (tmp_path / "train" / "stray.png").write_bytes(b"x")
    os.mkfifo(tmp_path / "train/ants/pipe.jpg")
    (tmp_path / "train/empty.jpg").mkdir()
    assert reasons(tmp_path) == {
        "extra/0002.png": "not in a class folder of train, val or test",
        "train/ants/._a.jpg": "a side file of macOS",
        "train/ants/.DS_Store": "a file of the operating system",
        "train/ants/.hidden.png": "a hidden file",
        "train/ants/.ipynb_checkpoints": "a folder of another program",
        "train/ants/Thumbs.db": "a file of the operating system",
        "train/ants/a.gif": "GIF is not taken as a photo",
        "train/ants/jpg": "not an image, by its name",
        "train/ants/noname": "not an image, by its name",
        "train/ants/pipe.jpg": "not a plain file",
        "train/stray.png": "not in a class folder",
    }
    (found,) = survey(tmp_path).datasets
    assert found.warnings == ["The folder train/empty.jpg holds no image and is not a class"]


def test_a_class_with_a_leading_dot_is_an_error_and_never_dropped(tmp_path: Path) -> None:
    fill(tmp_path, {"ants": 1, "bees": 1, ".wasps": 1})
    with pytest.raises(DataError, match=r"\.wasps holds images, but its name begins with a dot"):
        survey(tmp_path)


def test_names_of_every_kind(tmp_path: Path) -> None:
    root = os.fsencode(tmp_path)
    for folder in ("Blüten & co".encode(), b"plain"):
        Path(os.fsdecode(root + b"/" + folder)).mkdir()
    odd = [
        b"a\nb.png",
        b"latin1_\xe9.png",
        b"100%.png",
        b"-dash.png",
        b"back\\slash.png",
        b"q'\".png",
        b"a" * 251 + b".png",
    ]
    for name in odd:
        Path(os.fsdecode(root + b"/plain/" + name)).write_bytes(b"x")
    Path(os.fsdecode(root + "/Blüten & co/名前.png".encode())).write_bytes(b"x")
    (found,) = survey(tmp_path).datasets
    assert {file.class_name for file in found.files} == {"plain", "Blüten & co"}
    for file in found.files:
        encoded = layout.inside(names.encode(file.path))
        assert encoded.isascii()
        assert names.decode(encoded) == file.path


def test_a_class_is_the_same_in_both_unicode_forms(tmp_path: Path) -> None:
    fill(tmp_path, {"train/caf\u00e9": 1, "val/cafe\u0301": 1, "train/tea": 1})
    assert {label for _, _, label in labels(tmp_path)} == {"caf\u00e9", "tea"}


@pytest.mark.parametrize(
    ("one", "other"),
    [("train/Ants", "train/ants"), ("train/Ants", "val/ants"), ("train/caf\u00e9", "train/cafe\u0301")],
)
def test_classes_that_are_one_on_other_systems_are_refused(tmp_path: Path, one: str, other: str) -> None:
    fill(tmp_path, {one: 1, other: 1, "train/bees": 1})
    with pytest.raises(DataError, match="same on other systems") as error:
        survey(tmp_path)
    assert {Path(line).parts[0] for line in error.value.detail.splitlines()} <= {"train", "val"}


def test_files_that_differ_only_by_case_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, TWO)
    for name in ("x.PNG", "X.png"):
        (tmp_path / "ants" / name).write_bytes(b"x")
    with pytest.raises(DataError) as error:
        survey(tmp_path)
    assert error.value.detail == "ants/X.png\nants/x.PNG"


def test_links(tmp_path: Path) -> None:
    fill(tmp_path / "real", {"wasps": 1, "more": 1})
    fill(tmp_path / "data", TWO)
    ants = tmp_path / "data/ants"
    (ants / "good.png").symlink_to(tmp_path / "data/bees/0001.png")
    (ants / "dangling.png").symlink_to(tmp_path / "none.png")
    (ants / "self.png").symlink_to("self.png")
    (ants / "loop").symlink_to(tmp_path / "data")
    (tmp_path / "data/wasps").symlink_to(tmp_path / "real/wasps")
    (found,) = survey(tmp_path / "data").datasets
    assert [names.encode(file.path) for file in found.files] == [
        "ants/0000.png",
        "ants/good.png",
        "bees/0001.png",
        "wasps/0000.png",
    ]
    aside = {item.path: item.reason for item in found.set_aside}
    assert aside["ants/dangling.png"].startswith("a link that leads nowhere")
    assert aside["ants/self.png"].startswith("a link that leads nowhere")
    assert aside["ants/loop"] == "a link back to a folder that holds it"


def test_ants_and_bees() -> None:
    (found,) = survey(shared("data/hymenoptera")).datasets
    train = [file for file in found.files if file.split == "train"]
    assert (len(train), len(found.files)) == (244, 397)
    assert {item.path: item.reason for item in found.set_aside} == {
        "SOURCE.txt": "not an image, by its name",
        "train/ants/imageNotFound.gif": "GIF is not taken as a photo",
    }


@given(st.binary(min_size=1, max_size=80))
def test_every_folder_gives_a_valid_dataset_name(folder: bytes) -> None:
    layout.dataset_name(names.dataset_name(folder))


@given(st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=4))
def test_every_path_is_encoded_reversibly(parts: list[bytes]) -> None:
    clean = [part.replace(b"/", b"_").replace(b"\0", b"_") for part in parts]
    path = b"/".join(b"x" if part in (b".", b"..") else part for part in clean)
    assert names.decode(layout.inside(names.encode(path))) == path
    assert names.shown(path).isprintable()


@pytest.mark.parametrize("place", ["train/bees", "train/bees/deeper", "val", "more"])
def test_a_folder_that_can_not_be_listed_is_refused_and_named(place: str) -> None:
    with for_all() as root:
        folder = fill(root / "bugs", SPLIT)
        (folder / place).chmod(0)
        with as_nobody(), pytest.raises(DataError, match=r"1 folder in .*bugs can't be looked into") as error:
            survey(folder)
        (folder / place).chmod(0o755)
    assert error.value.detail == f"{place}: can't be listed (Permission denied)"


@pytest.mark.parametrize("place", ["train/bees", "train"])
def test_a_folder_whose_files_can_be_named_but_not_looked_at_is_refused(place: str) -> None:
    with for_all() as root:
        folder = fill(root / "bugs", SPLIT)
        (folder / "notes").mkdir()
        (folder / "notes/of-mine.txt").touch()
        (folder / "notes").chmod(0o444)  # holds nothing that could be an image
        (folder / place).chmod(0o444)
        with as_nobody(), pytest.raises(DataError, match=r"1 folder in .*bugs can't be looked into") as error:
            survey(folder)
        (folder / place).chmod(0o755)
        with as_nobody():
            (found,) = survey(folder).datasets
        (folder / "notes").chmod(0o755)
    assert error.value.detail == f"{place}: what it holds can't be looked at (Permission denied)"
    assert [item.path for item in found.set_aside] == ["notes/of-mine.txt"]


def test_a_folder_that_is_none_of_the_users_is_set_aside() -> None:
    with for_all() as root:
        folder = fill(root / "bugs", SPLIT)
        for name in (".secret", "lost+found"):
            (folder / name).mkdir(mode=0)
        with as_nobody():
            (found,) = survey(folder).datasets
    assert {item.path: item.reason for item in found.set_aside} == {
        ".secret": "can't be listed (Permission denied)",
        "lost+found": "a folder of another program",
    }


def test_the_folder_of_a_table_that_can_not_be_listed_is_refused() -> None:
    with for_all() as root:
        folder = fill(root / "bugs", SPLIT)
        (folder / "val").chmod(0)
        (root / "labels.csv").write_text("path,label\ntrain/ants/0000.png,ants\n")
        with as_nobody(), pytest.raises(DataError, match="can't be looked into"):
            survey_by_table(folder, root / "labels.csv")
        (folder / "val").chmod(0o755)


def test_a_folder_that_was_just_written_is_not_touched_until_a_name_comes_or_goes(tmp_path: Path) -> None:
    """Its time may not tell what came since: its names do, and no second walk is needed for what was there."""
    data = fill(tmp_path / "data", {"a": 3, "b": 3})
    (data / "notes.txt").write_text("of mine")
    (data / "a/.hidden").mkdir()
    (data / "a/.git").mkdir()
    (data / "b/again").symlink_to(data / "b")
    (scan,) = survey(data).datasets
    assert not is_touched(scan)
    (data / "a/late.jpg").touch()
    assert is_touched(scan)
    (data / "a/late.jpg").unlink()
    assert not is_touched(scan)
    (first, *_) = (data / "b").glob("*.png")
    first.rename(data / "b/moved.png")
    assert is_touched(scan)
    (data / "b/moved.png").rename(first)
    (data / "c").mkdir()
    assert is_touched(scan)
