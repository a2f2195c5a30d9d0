"""What travels: HEIC and AVIF as JPEG, photos made smaller, the page that counts; and labels and groups from tables."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.config import load
from orchestrator.datasets.checks.convert import AS_IT_IS, Conversion, prepared
from orchestrator.datasets.checks.judge import Unusable, Verdict
from orchestrator.datasets.checks.offer import BYTES_MIN, Offer, offer
from orchestrator.datasets.folder.scan import survey
from orchestrator.errors import ConfigError, DataError
from orchestrator.stores import open_store
from orchestrator.workflows.data.datasets import resolve
from orchestrator.workflows.data.upload import UploadResult, upload
from orchestrator.workflows.workspace import Workspace
from remote.contract import layout
from remote.contract.run_spec import StoreRef
from remote.images.decoding import decode
from tests.orchestrator.pictures import fill, picture
from tests.shared_data import unpacked

BUGS = {"train/ants": 3, "train/bees": 3, "val/ants": 1, "val/bees": 1}


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked("data/odd_images.tar.gz", tmp_path_factory.mktemp("odd"))


def made(data: bytes, conversion: Conversion = AS_IT_IS) -> tuple[Image.Image, Verdict]:
    converted, verdict = prepared(data, conversion)
    assert isinstance(verdict, Verdict)
    return Image.open(io.BytesIO(converted)), verdict


@pytest.mark.parametrize("name", ["hopper.heif", "hopper.avif"])
def test_what_no_machine_reads_travels_as_jpeg(odd: Path, name: str) -> None:
    image, verdict = made((odd / name).read_bytes())
    assert (image.format, image.size, verdict.extension) == ("JPEG", (128, 128), "jpg")
    small, _ = made((odd / name).read_bytes(), Conversion(resize_px=40))
    assert small.size == (40, 40)
    cut = prepared((odd / name).read_bytes()[:3000])[1]
    assert isinstance(cut, Unusable)


def test_smaller_photos_are_upright_and_without_metadata(odd: Path) -> None:
    data = (odd / "exif_rot6.jpg").read_bytes()
    image, verdict = made(data, Conversion(resize_px=100))
    assert (image.format, image.size, verdict.orientation) == ("JPEG", (67, 100), 1)
    assert not image.getexif()
    upright = decode(data).resize(image.size, Image.Resampling.LANCZOS)
    assert np.abs(np.asarray(image, float) - np.asarray(upright, float)).mean() < 3
    assert prepared(data, Conversion(resize_px=500))[0] is data  # small enough
    assert prepared(data, Conversion(resize_px=100))[0] == prepared(data, Conversion(resize_px=100))[0]


@pytest.mark.parametrize(
    ("name", "form", "mode"),
    [
        ("gray16_full_range.png", "PNG", "I;16"),
        ("float32.tif", "TIFF", "F"),
        ("rgba_png_named.jpg", "PNG", "RGBA"),
        ("cmyk_adobe.jpg", "JPEG", "RGB"),
        ("bilevel_1bit.png", "PNG", "L"),
    ],
)
def test_what_a_smaller_image_is(odd: Path, name: str, form: str, mode: str) -> None:
    image, verdict = made((odd / name).read_bytes(), Conversion(resize_px=50))
    assert (image.format, verdict.mode, max(image.size)) == (form, mode, 50)
    before = np.asarray(Image.open(odd / name), dtype=float)
    if mode in ("I;16", "F"):  # the values are what they were, not stretched
        assert np.asarray(image, dtype=float).mean() == pytest.approx(before.mean(), rel=0.02)


def test_metadata_goes_and_the_pixels_stay(odd: Path) -> None:
    image, _ = made((odd / "exif_rot6.png").read_bytes(), Conversion(strip_metadata=True))
    assert not image.getexif()
    assert np.array_equal(np.asarray(image), np.asarray(decode((odd / "exif_rot6.png").read_bytes())))


def webp(*, lossless: bool, mode: str = "RGB", frames: int = 1) -> bytes:
    picture = Image.radial_gradient("L").resize((40, 30)).convert(mode)
    if mode == "RGBA":
        picture.putalpha(100)
    exif = Image.Exif()
    exif[0x010E] = "at home"
    out = io.BytesIO()
    others = [picture.rotate(90 * number) for number in range(1, frames)]
    picture.save(
        out, "WEBP", lossless=lossless, quality=60, exif=exif, save_all=frames > 1, append_images=others
    )
    return out.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("conversion", [Conversion(strip_metadata=True), Conversion(resize_px=20)])
def test_what_was_lossless_stays_so(mode: str, conversion: Conversion) -> None:
    image, _ = made(webp(lossless=True, mode=mode), conversion)
    assert (image.format, image.mode) == ("PNG", mode)
    if conversion.strip_metadata:
        before = Image.open(io.BytesIO(webp(lossless=True, mode=mode)))
        assert np.array_equal(np.asarray(image), np.asarray(before)) and not image.getexif()
    assert made(webp(lossless=False), conversion)[0].format == "JPEG"
    assert made(webp(lossless=False, mode="RGBA"), conversion)[0].format == "PNG"


@pytest.mark.parametrize("lossless", [True, False])
def test_the_maximum_over_frames_is_lossless_whatever_they_were(lossless: bool) -> None:
    assert made(webp(lossless=lossless, frames=3), Conversion(page="max"))[0].format == "PNG"


def test_a_change_of_format_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "bugs"
    for number in range(10):
        path = folder / "ab"[number % 2] / f"{number}.{('BMP', 'png', 'jpg', 'jpeg')[number % 4]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number, {"BMP": "BMP", "png": "PNG"}.get(path.suffix[1:], "JPEG"), (60, 40)))
    (folder / "a/a.webp").write_bytes(webp(lossless=True))
    (folder / "b/b.webp").write_bytes(webp(lossless=False))

    def said(strip_metadata: bool) -> list[str]:
        (result,) = upload(place(tmp_path), folder, conversion=Conversion(strip_metadata=strip_metadata))
        return [text for text in result.warnings if text.startswith("Sent as")]

    assert said(strip_metadata=False) == []
    expected = [
        "Sent as JPEG, and downloaded as such: 1 image named .webp",
        "Sent as PNG, and downloaded as such: 3 images named .bmp, 1 image named .webp",
    ]
    assert said(strip_metadata=True) == expected
    assert said(strip_metadata=True) == expected


def pages(*values: int) -> bytes:
    out = io.BytesIO()
    first, *others = (Image.fromarray(np.full((6, 5), value, np.uint16)) for value in values)
    first.putpixel((0, 0), 900)
    first.save(out, "TIFF", save_all=True, append_images=others)
    return out.getvalue()


def test_of_several_pages_one_is_chosen_and_never_the_first_in_silence() -> None:
    data = pages(100, 300, 200)
    found = prepared(data)[1]
    assert isinstance(found, Unusable)
    assert "3 pages: say which one counts" in found.reason
    same, second = prepared(data, Conversion(page=2))
    assert same is data
    assert isinstance(second, Verdict)
    assert (second.page, second.pages) == (1, 3)
    most, verdict = made(data, Conversion(page="max"))
    assert (verdict.pages, verdict.mode) == (1, "I;16")
    assert sorted(set(np.asarray(most).ravel().tolist())) == [300, 900]
    missing = prepared(data, Conversion(page=4))[1]
    assert isinstance(missing, Unusable)
    assert "there is no page 4" in missing.reason
    single = picture(1)
    assert prepared(single, Conversion(page=2))[0] is single


def test_pages_of_several_sizes_have_no_maximum(odd: Path) -> None:
    found = prepared((odd / "multipage.tiff").read_bytes(), Conversion(page="max"))[1]
    assert isinstance(found, Unusable)
    assert "of another size" in found.reason


def place(tmp_path: Path) -> Workspace:
    workspace = Workspace(load({}, environ={"TLVM_DATA_DIR": str(tmp_path / "data")}, folder=tmp_path))
    workspace.store = open_store(StoreRef(str(tmp_path / "store")))
    return workspace


def sizes(workspace: Workspace) -> set[int]:
    """The longer sides of the images, as they are in the packs."""
    images = resolve(workspace, None)[2].images
    found = set()
    for image in images:
        pack = Path(workspace.store.url) / layout.pack_key(image.pack)
        data = pack.read_bytes()[image.offset : image.offset + image.size]
        found.add(max(Image.open(io.BytesIO(data)).size))
    return found


def test_a_dataset_that_was_made_smaller_stays_so(tmp_path: Path) -> None:
    folder = tmp_path / "bugs"
    for number in range(8):
        path = folder / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number, "JPEG", (160, 120)))
    workspace = place(tmp_path)
    upload(workspace, folder, conversion=Conversion(resize_px=64))
    assert sizes(workspace) == {64}
    (again,) = upload(workspace, folder)
    assert again.unchanged
    (folder / "a/8.jpg").write_bytes(picture(8, "JPEG", (160, 120)))
    (more,) = upload(workspace, folder)
    assert (more.added, more.packs_sent, sizes(workspace)) == (1, 1, {64})
    upload(workspace, folder, conversion=Conversion(resize_px=0))
    assert sizes(workspace) == {160}


def test_metadata_that_was_taken_out_stays_out(tmp_path: Path) -> None:
    folder = tmp_path / "bugs"
    place_of = Image.Exif()
    place_of[0x010E] = "at home"
    for number in range(8):
        path = folder / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.open(io.BytesIO(picture(number, "JPEG", (60, 40)))).save(path, exif=place_of)
    workspace = place(tmp_path)
    upload(workspace, folder, conversion=Conversion(strip_metadata=True))
    assert not any(b"at home" in path.read_bytes() for path in (tmp_path / "store/packs").glob("*.tar"))
    shutil.copy(folder / "a/0.jpg", folder / "a/8.jpg")
    upload(workspace, folder)
    assert not any(b"at home" in path.read_bytes() for path in (tmp_path / "store/packs").glob("*.tar"))
    upload(workspace, folder, conversion=Conversion(strip_metadata=False))
    assert any(b"at home" in path.read_bytes() for path in (tmp_path / "store/packs").glob("*.tar"))


def test_images_that_are_made_smaller_later_are_not_lost(tmp_path: Path) -> None:
    folder = tmp_path / "bugs"
    for number in range(30):
        path = folder / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number, "JPEG", (160, 120)))
    workspace = place(tmp_path)
    upload(workspace, folder)
    (smaller,) = upload(workspace, folder, conversion=Conversion(resize_px=64))
    assert (smaller.images, smaller.changed, sizes(workspace)) == (30, 30, {64})


def test_photos_much_larger_than_models_see_are_offered_smaller(tmp_path: Path) -> None:
    for number in range(6):
        path = tmp_path / "bugs" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(
            picture(number, "JPEG", (1200, 900)) + bytes(9_000_000)
        )  # as heavy as of a good camera
    found = offer(survey(tmp_path / "bugs").datasets)
    assert found is not None
    assert found.bytes_now > BYTES_MIN
    assert found.bytes_then < found.bytes_now / 10
    assert offer(survey(fill(tmp_path / "small", {"a": 2, "b": 2})).datasets) is None
    asked: list[Offer] = []

    def yes(offer: Offer) -> bool:
        asked.append(offer)
        return True

    workspace = place(tmp_path)
    upload(workspace, tmp_path / "bugs", ask=yes)
    assert asked == [found]
    assert sizes(workspace) == {512}


def one(
    workspace: Workspace, folder: Path, *, group_by: str | None = None, labels: Path | None = None
) -> UploadResult:
    (result,) = upload(workspace, folder, group_by=group_by, labels=labels)
    return result


def patients(root: Path) -> Path:
    """Twelve patients of three images each, of two classes."""
    for number in range(36):
        path = root / "ab"[number % 2] / f"smith{number // 3:02d}_slice{number % 3}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    return root


def test_patients_stay_on_one_side_and_their_names_at_home(tmp_path: Path) -> None:
    folder = patients(tmp_path / "scans")
    workspace = place(tmp_path)
    hinted = one(workspace, folder)
    assert any("names look grouped, 12 groups" in text and "--group-by" in text for text in hinted.warnings)
    result = one(workspace, folder, group_by=r"(smith\d+)_")
    assert not any("look grouped" in text for text in result.warnings)
    images = resolve(workspace, None)[2].images
    sides: dict[str, set[str]] = {}
    for image in images:
        assert image.group
        assert "smith" not in image.group
        sides.setdefault(image.path[2:9], set()).add(image.split)
    assert all(len(found) == 1 for found in sides.values())
    assert {"train", "val"} == set().union(*sides.values())
    with pytest.raises(ConfigError, match="was made with groups"):
        one(workspace, folder)
    assert one(workspace, folder, group_by="none").images == 36


def test_groups_on_two_given_sides_and_classes_of_few_groups_are_told(tmp_path: Path) -> None:
    folder = fill(tmp_path / "bugs", BUGS)
    table = tmp_path / "patients.csv"
    rows = [f"{path.relative_to(folder)},anna" for path in folder.rglob("*ants/*.png")]
    table.write_text("\ufeffPath;Patient\n".replace(";", ",") + "\n".join(rows) + "\n", encoding="utf-8")
    workspace = place(tmp_path)
    result = one(workspace, folder, group_by=str(table))
    assert [(leak.kind, leak.left_out) for leak in result.leaks] == [("group", False)]
    assert any("ants (1)" in text and "no honest figure" in text for text in result.warnings)
    with pytest.raises(DataError, match="two sides"):
        upload(workspace, folder, group_by=str(table), strict=True)
    for pattern, message in (("(", "not a regular expression"), ("nobody", "fits no path")):
        with pytest.raises(ConfigError, match=message):
            one(workspace, folder, group_by=pattern)


def test_labels_from_a_table(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    fill(folder, {"": 6, "deeper": 2})
    table = folder / "labels.csv"
    lines = ["id;label;split;patient"] + [
        f"{n:04d};{'oak' if n % 2 else 'ash'};{'val' if n > 4 else 'train'};p{n}" for n in range(7)
    ]
    table.write_text("\n".join([*lines, "gone.png;oak;val;p9"]))
    workspace = place(tmp_path)
    result = one(workspace, folder, labels=table)
    assert result.counts == {"train": {"ash": 3, "oak": 2}, "val": {"ash": 1, "oak": 1}}
    assert [(item.path, item.reason) for item in result.foreign] == [("deeper/0007.png", "not in labels.csv")]
    assert any("names files that are not here" in text and "gone.png" in text for text in result.warnings)
    assert {image.label_source for image in resolve(workspace, None)[2].images} == {"labels.csv"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,size\na,1\n", "no column label"),
        ("path,label\n0000.png,\n", "Line 2 of .* says no label"),
        ("path,label\nnowhere.png,oak\n", "No line of .* names an image"),
        ("path,label\n0000.png,oak\n0000.png,ash\n", "says two things"),
        ("path,label\n0000.png,Oak\n0001.png,oak\n", "differ in capitals"),
        ("path,label,split\n0000.png,oak,train\n0001.png,oak,\n", "split of some images only"),
        ("path,label,split\n0000.png,oak,tset\n", "names no split"),
        ("path,label\n", "has no rows"),
    ],
)
def test_tables_that_can_not_be_used(tmp_path: Path, text: str, message: str) -> None:
    fill(tmp_path / "photos", {"": 3})
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        one(place(tmp_path), tmp_path / "photos", labels=tmp_path / "labels.csv")
