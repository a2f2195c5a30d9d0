"""Images come out as people see them, and as torchvision prepares them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image

from remote.errors import CannotRun
from remote.images import data, preprocessing
from remote.images.decoding import Unreadable, decode
from remote.torchvision_guard import models
from tests.remote import fixtures
from tests.shared_data import shared


def _file(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def _photo() -> Image.Image:
    """Smooth, so that JPEG keeps it; every corner of another colour."""
    y, x = np.mgrid[0:48, 0:64].astype(np.float32)
    return Image.fromarray(
        np.stack([x * 4, y * 5, 255 - x * 2 - y * 2], axis=-1).clip(0, 255).astype(np.uint8)
    )


def _array(image: Image.Image) -> NDArray[np.int16]:
    return np.asarray(image).astype(np.int16)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_its_exif_says(orientation: int) -> None:
    turns = {
        1: [],
        2: [0],
        3: [3],
        4: [1],
        5: [5],
        6: [2],
        7: [6],
        8: [4],
    }  # stored = the inverse of what is shown
    stored = _photo()
    for turn in turns[orientation]:
        stored = stored.transpose(Image.Transpose(turn))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    shown = decode(_file(stored, "PNG", exif=exif))
    assert np.array_equal(_array(shown), _array(_photo()))


def test_a_turned_tiff_is_turned_once() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    assert decode(_file(_photo(), "TIFF", exif=exif)).size == (48, 64)


@pytest.mark.parametrize("mode", ["P", "L", "1", "CMYK", "LA", "RGBA", "YCbCr"])
def test_every_mode_looks_like_its_photo(mode: str) -> None:
    format = {"CMYK": "TIFF", "YCbCr": "JPEG"}.get(mode, "PNG")
    stored = _photo().quantize(256) if mode == "P" else _photo().convert(mode)
    shown = decode(_file(stored, format))
    expected = _photo().convert("L").convert("RGB") if mode in ("L", "LA", "1") else _photo()
    assert shown.mode == "RGB"
    assert np.abs(_array(shown) - _array(expected)).mean() < (130 if mode == "1" else 12)


def test_transparent_parts_are_white_whatever_colour_they_hide() -> None:
    hidden = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    half = Image.new("RGBA", (8, 8), (0, 0, 0, 128))
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([255, 0, 0, 0, 255, 0])
    assert (_array(decode(_file(hidden))) == 255).all()
    assert np.abs(_array(decode(_file(half))) - 127).max() <= 1
    assert (_array(decode(_file(palette, transparency=0))) == 255).all()


@pytest.mark.parametrize(("dtype", "format"), [(np.uint16, "PNG"), (np.uint16, "TIFF"), (np.float32, "TIFF")])
def test_deep_images_share_the_window_of_their_dataset(dtype: type, format: str) -> None:
    values: NDArray[np.generic] = np.array([[0, 100, 600, 1100, 4000]], dtype=dtype)
    shown = _array(decode(_file(Image.fromarray(values), format), window=[100, 1100]))
    assert shown[0, :, 0].tolist() == [0, 0, 128, 255, 255]
    assert (shown[..., 0] == shown[..., 2]).all()


def test_a_deep_image_without_a_window_is_refused() -> None:
    with pytest.raises(Unreadable, match="more than 8 bits"):
        decode(_file(Image.fromarray(np.array([[0, 4000]], dtype=np.uint16))))


def test_what_is_no_image_is_said_without_the_address_of_a_buffer() -> None:
    with pytest.raises(Unreadable) as caught:
        decode(b"<html>not found</html>")
    assert str(caught.value) == "not an image, or one of a kind that can't be read"


def test_the_awkward_files_come_out_as_rgb_or_are_refused(tmp_path: Path) -> None:
    refused = 0
    with tarfile.open(shared("data/odd_images.tar.gz")) as tar:
        for member in tar.getmembers():
            file = tar.extractfile(member) if member.isfile() else None
            if file is None or "bomb" in member.name:
                continue
            try:
                image = decode(file.read(), window=[0, 65535])
            except Unreadable:
                refused += 1
            else:
                assert image.mode == "RGB"
                pixels = preprocessing.pixels(preprocessing.of_weights("resnet18"), image)
                assert pixels.shape == (224, 224, 3) and pixels.dtype == np.uint8, member.name
    assert refused > 10


@pytest.mark.parametrize(
    "model", ["resnet18", "efficientnet_b0", "convnext_tiny", "inception_v3", "maxvit_t"]
)
def test_preprocessing_is_torchvisions_own(model: str) -> None:
    transform = models.get_model_weights(model)["IMAGENET1K_V1"].transforms()
    spec = preprocessing.of_weights(model)
    photos = sorted(shared("data/hymenoptera/val/ants").iterdir())[:3]
    sizes = [(300, 301), (257, 256), (100, 640), (256, 256)]
    images = [Image.open(path).convert("RGB") for path in photos]
    for image in [*images, *(images[0].resize(size) for size in sizes)]:
        batch = np.stack([preprocessing.pixels(spec, image)])
        ours = preprocessing.network_input(spec, batch, torch.device("cpu"))
        assert torch.equal(ours[0], transform(image)), image.size
        assert ours.is_contiguous(memory_format=torch.channels_last)


def test_every_model_names_a_preprocessing_that_we_can_do() -> None:
    for model in models.list_models(module=models):
        spec = preprocessing.of_weights(model)
        assert spec.crop <= spec.resize


def test_a_strip_needs_no_more_memory_than_a_photo() -> None:
    spec = preprocessing.of_weights("resnet18")
    assert preprocessing.pixels(spec, Image.new("RGB", (1, 60_000), "red")).shape == (224, 224, 3)


def test_images_are_read_out_of_packs_and_counted(tmp_path: Path) -> None:
    machine = fixtures.home(tmp_path / "home")
    for index in range(5):
        path = tmp_path / "images" / "train" / "a b" / f"ö {index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (index, 0, 0)).save(path)
    dataset = fixtures.pack_folder(machine, tmp_path / "images")
    packs = data.Packs(machine.pack)
    reader = data.Reader(dataset.manifest, packs)
    images = dataset.manifest.images
    batches = list(data.batches(images, reader.rgb, batch_size=2, workers=3))
    assert [len(batch.items) for batch in batches] == [2, 2, 1]
    assert [rgb.getpixel((0, 0)) for batch in batches for rgb in batch.loaded] == [
        (i, 0, 0) for i in range(5)
    ]
    assert reader.decoded == 5
    packs.close()


def test_a_damaged_image_or_pack_is_named(tmp_path: Path) -> None:
    machine = fixtures.home(tmp_path / "home")
    path = tmp_path / "images" / "train" / "a" / "one.png"
    path.parent.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(path)
    dataset = fixtures.pack_folder(machine, tmp_path / "images")
    image = dataset.manifest.images[0]
    pack = machine.pack(image.pack)
    whole = pack.read_bytes()
    for content, says in (
        (whole[: image.offset + 10], "train/a/one.png: pack .* ends"),
        (whole[: image.offset] + bytes(image.size), "train/a/one.png can't be read"),
    ):
        pack.write_bytes(content)
        packs = data.Packs(machine.pack)
        with pytest.raises(CannotRun, match=says):
            data.Reader(dataset.manifest, packs).rgb(image)
        packs.close()
    pack.unlink()
    with pytest.raises(CannotRun, match="is not on this machine"):
        data.Reader(dataset.manifest, data.Packs(machine.pack)).rgb(image)
