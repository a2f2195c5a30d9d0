"""Near copies: found in re-encoded photos, not in digits that merely look alike; left out of training, kept together."""

from __future__ import annotations

import io
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from orchestrator.config import load
from orchestrator.datasets.checks.cache import Cache
from orchestrator.datasets.checks.check import check
from orchestrator.datasets.checks.near import Near, Pair, StandIns, candidates, candidates_of, compare
from orchestrator.datasets.checks.signature import ENOUGH_PX, SIGNATURE_BYTES, pixels, signature
from orchestrator.datasets.columns.hashes import digests
from orchestrator.datasets.folder.scan import Scan, survey
from orchestrator.datasets.splits.together import sets
from orchestrator.errors import DataError
from orchestrator.progress import Silent
from orchestrator.workflows.data.datasets import resolve
from orchestrator.workflows.data.upload import UploadResult, upload
from orchestrator.workflows.workspace import Workspace
from tests.orchestrator.pictures import fill, picture
from tests.orchestrator.splitting import sides_of
from tests.shared_data import shared

EXPECTED = {  # near copies of train in val: confirmed, perhaps, equal
    "flowers12": (23, 0, 0),
    "wbc": (0, 0, 1),
    "dtd10": (0, 2, 0),
}


def looked(tmp_path: Path, folder: Path, *, strict: bool = False) -> UploadResult:
    workspace = Workspace(load({}, environ={"TLVM_DATA_DIR": str(tmp_path / "data")}, folder=tmp_path))
    (result,) = upload(workspace, folder, check_only=True, strict=strict)
    return result


@pytest.mark.parametrize("name", EXPECTED)
def test_what_real_datasets_hold(tmp_path: Path, name: str) -> None:
    result = looked(tmp_path, shared(f"data/{name}"))
    kinds = Counter(leak.kind for leak in result.leaks)
    assert (kinds["near"], kinds["perhaps"], kinds["equal"]) == EXPECTED[name]
    assert len({leak.other for leak in result.leaks if leak.kind == "near"}) == EXPECTED[name][0]
    assert [leak.path for leak in result.leaks if leak.left_out] == [item.path for item in result.excluded]
    assert all(leak.left_out == (leak.kind != "perhaps") for leak in result.leaks)


def test_digits_that_look_alike_are_no_copies() -> None:
    (found,) = survey(shared("data/mnist10k")).datasets
    few = Scan(found.name, found.root, found.files[::3], found.splits, [], [])
    outcome = check(few, Silent())
    accused, _ = candidates(outcome.images.verdicts.columns["near"].table(SIGNATURE_BYTES))
    assert accused  # the hash alone accuses them
    assert outcome.near.pairs == []


def test_strict_refuses_and_names_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 image of wbc on two sides") as error:
        looked(tmp_path, shared("data/wbc"), strict=True)
    assert error.value.detail == "train/lymphocyte/d1_139.png is equal to val/lymphocyte/d1_112.png"
    looked(tmp_path, shared("data/dtd10"), strict=True)  # suspicion is none


def photos(root: Path, count: int) -> Path:
    """A flat dataset of real photos, each of which lies there twice: as it is, and saved again."""
    for place in ("ants", "bees"):
        (root / place).mkdir(parents=True)
        for number, source in enumerate(
            sorted(shared(f"data/hymenoptera/train/{place}").glob("*.jpg"))[:count]
        ):
            shutil.copy(source, root / place / f"{number}.jpg")
            with Image.open(source) as image:
                image.save(root / place / f"{number}-again.jpg", quality=90)
    return root


def test_in_a_flat_dataset_copies_stay_on_one_side_and_stay_put(tmp_path: Path) -> None:
    folder = photos(tmp_path / "bugs", 12)
    workspace = Workspace(load({}, environ={"TLVM_DATA_DIR": str(tmp_path / "data")}, folder=tmp_path))
    (first,) = upload(workspace, folder)
    images = {image.path: image for image in resolve(workspace, None)[2].images}
    for path, image in images.items():
        twin = images[path.replace("-again", "").replace(".jpg", "-again.jpg")]
        assert (twin.split, twin.group) == (image.split, image.group), path
        assert image.group
    assert first.leaks == []
    assert all(4 <= n <= 6 for n in first.counts["val"].values())
    fill(folder, {"ants": 20, "bees": 20})
    upload(workspace, folder)
    after = {image.path: image.split for image in resolve(workspace, None)[2].images}
    assert {path: after[path] for path in images} == {path: image.split for path, image in images.items()}


def test_what_was_found_is_remembered(tmp_path: Path) -> None:
    folder = photos(tmp_path / "bugs", 3)
    (found,) = survey(folder).datasets
    cache = Cache(tmp_path)
    near = check(found, Silent(), cache=cache).near
    assert len(near.confirmed()) == 6
    memory = next(tmp_path.glob("near-*"))
    written = memory.stat().st_mtime_ns
    assert check(found, Silent(), cache=cache).near == near
    assert memory.stat().st_mtime_ns == written
    memory.write_text("{")
    assert check(found, Silent(), cache=cache).near == near
    cache.close()


def test_equal_pixels_in_other_files_are_copies(tmp_path: Path) -> None:
    for split, form in (("train", "png"), ("val", "bmp")):
        for number, label in enumerate("ab"):
            (tmp_path / split / label).mkdir(parents=True)
            image = Image.open(io.BytesIO(picture(number)))
            image.save(tmp_path / split / label / f"x.{form}")
    (tmp_path / "train/a/other.png").write_bytes(picture(7))
    (tmp_path / "train/b/other.png").write_bytes(picture(8))
    result = looked(tmp_path.parent, tmp_path)
    assert [(leak.path, leak.other, leak.kind, leak.error) for leak in result.leaks] == [
        ("train/a/x.png", "val/a/x.bmp", "near", 0.0),
        ("train/b/x.png", "val/b/x.bmp", "near", 0.0),
    ]


def test_pictures_that_differ_in_colour_or_transparency_only_are_no_copies() -> None:
    grey = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)
    flipped = grey[::-1]
    masks = [
        Image.merge("RGBA", [Image.new("L", (64, 64))] * 3 + [Image.fromarray(a)]) for a in (grey, flipped)
    ]
    assert signature(masks[0], 1) != signature(masks[1], 1)
    red = Image.merge("RGB", [Image.fromarray(grey), Image.new("L", (64, 64)), Image.new("L", (64, 64))])
    blue = Image.merge("RGB", list(reversed(red.split())))
    assert compare(pixels(red, 1), pixels(blue, 1)) > 0.5
    assert compare(pixels(red, 1), pixels(red, 1)) == 0


def test_a_turned_photo_is_compared_as_people_see_it() -> None:
    upright = Image.open(io.BytesIO(picture(5, size=(80, 60))))
    assert signature(upright.transpose(Image.Transpose.ROTATE_90), 6) == signature(upright, 1)


@pytest.mark.parametrize("size", [(1023, 1537), (2047, 1151), (641, 515)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_that_is_decoded_smaller_shows_the_same(size: tuple[int, int], orientation: int) -> None:
    with Image.open(next(shared("data/hymenoptera/train/ants").glob("*.jpg"))) as photo:
        large = io.BytesIO()
        photo.convert("RGB").resize(size).save(large, "JPEG", quality=90)
    whole, small = Image.open(large), Image.open(large)
    drafted = small.draft(None, (ENOUGH_PX, ENOUGH_PX))
    assert drafted is not None
    assert small.width < whole.width
    shown = pixels(small, orientation, extent=drafted[1][2:])
    assert compare(shown, pixels(whole, orientation)) < 0.015


def test_copies_of_another_size_are_found(tmp_path: Path) -> None:
    folder = fill(tmp_path / "bugs", {"train/a": 2, "train/b": 2, "val/a": 1, "val/b": 1})
    for number, source in enumerate(sorted(shared("data/hymenoptera/train/ants").glob("*.jpg"))[:4]):
        with Image.open(source) as photo:
            photo.convert("RGB").resize((2051, 1539)).save(folder / f"train/a/{number}.jpg", quality=90)
            photo.convert("RGB").resize((701, 526)).save(folder / f"val/a/{number}.jpg", quality=80)
    leaks = looked(tmp_path, folder).leaks
    assert [(leak.path, leak.kind) for leak in leaks] == [(f"train/a/{n}.jpg", "near") for n in range(4)]
    assert max(leak.error or 0 for leak in leaks) < 0.015


def flipped_bits(base: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], noise: int, seed: int) -> bytes:
    drawn = np.random.default_rng(seed).integers(-noise, noise + 1, base.shape)
    return bytes(np.clip(base.astype(int) + drawn, 0, 255).astype(np.uint8)) + seed.to_bytes(4, "big")


def table(prints: list[bytes]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.frombuffer(b"".join(prints), dtype=np.uint8).reshape(-1, SIGNATURE_BYTES)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 60))
def test_the_search_finds_what_comparing_all_pairs_finds(seed: int, count: int) -> None:
    draw = np.random.default_rng(seed)
    bases = [draw.integers(0, 256, 72, dtype=np.uint8) for _ in range(max(1, count // 3))]
    prints = [flipped_bits(bases[n % len(bases)], 1, n) for n in range(count)]
    found = set(candidates(table(prints))[0])
    last = candidates_of(np.array([count - 1]), table(prints))
    assert last is not None
    assert set(last[0]) == {pair for pair in found if count - 1 in pair}
    bits = [
        ((t := np.frombuffer(p[:72], np.uint8).reshape(8, 9).astype(int))[:, :-1] - t[:, 1:]) > 1
        for p in prints
    ]
    for one in range(count):
        for other in range(one + 1, count):
            near = (bits[one] != bits[other]).sum() < 4 and one % len(bases) == other % len(bases)
            assert not near or (one, other) in found


def test_a_thousand_times_the_same_costs_no_comparison_and_crowds_are_searched_less() -> None:
    hashes = digests(f"{number:064x}" for number in range(1000))
    same = StandIns.found(hashes, table([b"a" * SIGNATURE_BYTES] * 1000), np.arange(1000))
    assert (len(same), set(same.of(hashes).tolist())) == (999, {hashes[0]})
    crowd = table([bytes([128] * 72) + number.to_bytes(4, "big") for number in range(100)])
    assert not candidates(crowd, pairs_max=10)[1]
    assert len(candidates(crowd, pairs_max=500)[0]) < 500
    most_alike, searched = candidates(crowd, found_max=100)
    assert searched  # so few pictures may all be compared with each other
    crowd = table(
        [bytes([128] * 71 + [128 + number % 2]) + number.to_bytes(4, "big") for number in range(1000)]
    )
    most_alike, searched = candidates(crowd, found_max=1000)
    assert not searched
    assert len(most_alike) < 40 * len(crowd)
    assert {at for pair in most_alike for at in pair} == set(range(1000))


def together(groups: dict[str, str | None], pairs: list[Pair]) -> dict[str, str]:
    found = zip(groups, sets(digests(groups), list(groups.values()), Near(pairs)), strict=True)
    return {sha256: label for sha256, label in found if label is not None}


contents = st.lists(st.integers(0, 40), unique=True, min_size=1, max_size=40)


@given(contents, st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=20), st.data())
def test_sets_stay_on_one_side(numbers: list[int], links: list[tuple[int, int]], data: st.DataObject) -> None:
    names = [f"{number:064x}" for number in numbers]
    known = [sorted(link) for link in links if set(link) <= set(numbers)]
    pairs = [Pair(f"{one:064x}", f"{other:064x}", 0.01) for one, other in known]
    groups = {name: data.draw(st.sampled_from((None, "p1", "p2", "p3"))) for name in names}
    labels = together(groups, pairs)
    classes = [(name, data.draw(st.sampled_from("ab"))) for name in names]
    sides = sides_of(classes, {}, labels)
    for pair in pairs:
        assert labels.get(pair.one) == labels.get(pair.other)
        assert sides[pair.one] == sides[pair.other]
    for one in names:
        for other in names:
            if groups[one] is not None and groups[one] == groups[other]:
                assert sides[one] == sides[other]
                assert labels[one].startswith("g")
    for label in "ab":
        found = [sides[name] for name, other in classes if other == label]
        assert not found or "train" in found
    assert sides_of(list(reversed(classes)), {}, together(dict(reversed(groups.items())), pairs)) == sides
    assert sides_of(classes, sides, labels) == sides  # again with nothing new


def deep(root: Path, draw: Callable[[np.random.Generator], np.ndarray], form: str) -> Path:
    """12 pictures of noise in train and val, no two of which have anything in common."""
    numbers = np.random.default_rng(3)
    for split, label, count in (("train", "a", 4), ("train", "b", 4), ("val", "a", 2), ("val", "b", 2)):
        (root / split / label).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(draw(numbers)).save(root / split / label / f"{number}.{form}")
    return root


def saturated(values: np.ndarray, value: float, *, side: int = 64) -> np.ndarray:
    values = values.reshape(side, side)
    values[side // 2, side // 2] = value
    return values


@pytest.mark.parametrize(
    "draw",
    [
        pytest.param(lambda n: saturated(n.integers(0, 4096, 64 * 64, dtype=np.uint16), 65535), id="noise"),
        pytest.param(lambda n: saturated(n.integers(90, 111, 64 * 64, dtype=np.uint16), 65535), id="dark"),
        pytest.param(
            lambda n: saturated(n.integers(90, 111, 256 * 256, dtype=np.uint16), 65535, side=256), id="large"
        ),
        pytest.param(lambda n: n.integers(0, 65536, (64, 64), dtype=np.uint16), id="no outlier"),
        pytest.param(lambda n: saturated(n.random(64 * 64, dtype=np.float32), 1e9), id="float"),
        pytest.param(lambda n: saturated(n.random(64 * 64, dtype=np.float32), np.inf), id="infinite"),
    ],
)
def test_one_outlier_makes_no_copies_of_images_of_more_than_8_bits(
    tmp_path: Path, draw: Callable[[np.random.Generator], np.ndarray]
) -> None:
    result = looked(tmp_path, deep(tmp_path / "deep", draw, "tiff"))
    assert (result.leaks, result.excluded) == ([], [])


def test_copies_of_images_of_more_than_8_bits_are_found(tmp_path: Path) -> None:
    folder = deep(
        tmp_path / "deep", lambda n: saturated(n.integers(90, 111, 64 * 64, dtype=np.uint16), 65535), "png"
    )
    Image.open(folder / "train/a/0.png").save(folder / "val/a/again.tiff")
    result = looked(tmp_path, folder)
    assert [(leak.path, leak.other, leak.kind) for leak in result.leaks] == [
        ("train/a/0.png", "val/a/again.tiff", "near")
    ]


def test_faint_noise_that_averages_to_one_grey_is_no_copy(tmp_path: Path) -> None:
    result = looked(
        tmp_path,
        deep(tmp_path / "faint", lambda n: n.integers(100, 103, (1024, 1024), dtype=np.uint8), "png"),
    )
    assert (result.leaks, result.excluded) == ([], [])


def test_even_pictures_are_copies_when_every_pixel_is_the_same(tmp_path: Path) -> None:
    folder = fill(tmp_path / "bugs", {"train/a": 2, "train/b": 2, "val/a": 1, "val/b": 1})
    white = Image.new("RGB", (300, 200), "white")
    white.save(folder / "train/a/white.png")
    white.save(folder / "val/a/white.bmp")
    white.putpixel((7, 7), (254, 254, 254))
    white.save(folder / "train/b/nearly.png")
    assert [(leak.path, leak.other) for leak in looked(tmp_path, folder).leaks] == [
        ("train/a/white.png", "val/a/white.bmp")
    ]


def test_fingerprints_that_are_equal_at_their_ends_only_stand_for_themselves() -> None:
    prints = [bytes([kind]) * (SIGNATURE_BYTES - 8) + b"the same" for kind in (1, 2, 1, 3, 2)]
    hashes = digests(f"{number:064x}" for number in range(5))
    same = StandIns.found(hashes, table(prints), np.arange(5))
    assert np.array_equal(same.of(hashes), hashes[[0, 1, 0, 3, 1]])
