"""A manifest comes back as it was; whatever else is in the bucket under its name is refused, with one kind of error."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remote.contract.dataset_manifest import DatasetManifest, Image, decode_manifest, encode
from remote.contract.document import ContractError

HASHES = st.integers(0, 2**64).map(lambda number: hashlib.sha256(str(number).encode()).hexdigest())
LABELS = st.sampled_from(["ants", "Blüten & co", "new\nline", "\u202etrick"])
IMAGES = st.builds(
    Image,
    path=st.integers(0, 2**40).map(lambda number: f"train/{number}.jpg"),
    split=st.sampled_from(["train", "val", "test"]),
    class_name=LABELS,
    label_source=st.just("folder"),
    group=st.none() | st.text(st.characters(codec="utf-8"), max_size=5),
    size=st.integers(0, 2**40),
    sha256=HASHES,
    mtime_ns=st.integers(-(2**62), 2**62),
    width=st.integers(1, 10**5),
    height=st.integers(1, 10**5),
    orientation=st.integers(1, 8),
    pages=st.just(1),
    page=st.just(0),
    mode=st.sampled_from(["RGB", "I;16"]),
    pack=HASHES,
    offset=st.integers(0, 2**40),
    excluded=st.none() | st.just("equal to val/1.jpg"),
)
PLAIN = st.lists(IMAGES, max_size=8, unique_by=lambda image: image.path).map(
    lambda images: DatasetManifest(
        "bugs",
        sorted({image.class_name for image in images}),
        "folders",
        "none",
        [0.5, 4095.0],
        sorted(images, key=lambda image: image.path),
    )
)


def summed(manifest: DatasetManifest) -> DatasetManifest:
    least = manifest.least_bytes()
    return dataclasses.replace(manifest, pack_bytes=least, pack_crc32c=dict.fromkeys(least, "AAAAAA=="))


MANIFESTS = PLAIN | PLAIN.map(summed)


@settings(max_examples=60, deadline=None)
@given(MANIFESTS)
def test_each_line_is_canonical_json(manifest: DatasetManifest) -> None:
    lines = gzip.decompress(encode(manifest)[0]).decode().splitlines()
    rows = [dataclasses.asdict(image) for image in manifest.images]
    assert lines[1:] == [json.dumps(row, sort_keys=True, separators=(",", ":")) for row in rows]


@settings(max_examples=60, deadline=None)
@given(MANIFESTS)
def test_a_manifest_comes_back_as_it_was(manifest: DatasetManifest) -> None:
    data, version = encode(manifest)
    assert decode_manifest(data, version=version) == manifest
    assert encode(decode_manifest(data, version=version)) == (data, version)


@settings(max_examples=60, deadline=None)
@given(MANIFESTS, st.data())
def test_any_changed_byte_is_noticed(manifest: DatasetManifest, draw: st.DataObject) -> None:
    data, version = encode(manifest)
    place = draw.draw(st.integers(0, len(data) - 1))
    bent = data[:place] + bytes([data[place] ^ draw.draw(st.integers(1, 255))]) + data[place + 1 :]
    with contextlib.suppress(ContractError):  # or it was a byte that says nothing, as gzip has some
        assert decode_manifest(bent, version=version) == manifest


def hostile(header: Any, *rows: Any) -> tuple[bytes, str]:
    text = b"".join(json.dumps(line).encode() + b"\n" for line in (header, *rows))
    return gzip.compress(text), hashlib.sha256(text).hexdigest()


HEADER: dict[str, Any] = {
    "schema": 1,
    "dataset": "bugs",
    "classes": ["ants", "bees"],
    "split_source": "folders",
    "flips": "none",
    "intensity_window": None,
}
SUMS: dict[str, Any] = {"pack_bytes": {"cd" * 32: 2048}, "pack_crc32c": {"cd" * 32: "yZRlqg=="}}
ROW: dict[str, Any] = {
    "path": "train/ants/1.jpg", "split": "train", "class_name": "ants", "label_source": "folder", "group": None, "size": 1,
    "sha256": "ab" * 32, "mtime_ns": 0, "width": 1, "height": 1, "orientation": 1, "pages": 1, "page": 0, "mode": "RGB",
    "pack": "cd" * 32, "offset": 512, "excluded": None,
}  # fmt: skip


def test_the_plain_one_is_taken() -> None:
    data, version = hostile(HEADER, ROW)
    assert decode_manifest(data, version=version).images[0].offset == 512


@pytest.mark.parametrize(
    "change",
    [
        {"path": "../../etc/passwd"},
        {"path": "/etc/passwd"},
        {"path": "a/../../b"},
        {"path": ""},
        {"path": "a\\b"},
        {"path": "a\x00b"},
        {"sha256": "../x"},
        {"pack": "../../weights/x"},
        {"pack": ""},
        {"offset": -1},
        {"size": -1},
        {"size": 1.5},
        {"width": -1},
        {"page": 1},
        {"pages": 0},
        {"orientation": 9},
        {"class_name": "wasps"},
        {"split": "secret"},
        {"surprise": 1},
    ],
)
def test_a_hostile_row_is_refused(change: dict[str, Any]) -> None:
    data, version = hostile(HEADER, {**ROW, **change})
    with pytest.raises(ContractError):
        decode_manifest(data, version=version)


def test_one_that_was_written_before_there_were_checksums_keeps_its_version() -> None:
    data, version = hostile(HEADER, ROW)
    manifest = decode_manifest(data, version=version)
    assert manifest.sums() == {}
    text = gzip.decompress(encode(manifest)[0]).decode()
    assert json.loads(text.splitlines()[0]) == HEADER


def test_size_and_checksum_of_packs_are_told() -> None:
    data, version = hostile({**HEADER, **SUMS}, ROW)
    assert decode_manifest(data, version=version).sums() == {"cd" * 32: (2048, "yZRlqg==")}


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"dataset": "../x"},
        {"classes": ["bees", "ants"]},
        {"classes": ["ants", "ants"]},
        {"classes": "ants"},
        {"flips": "often"},
        {"intensity_window": [1.0]},
        {"intensity_window": [2.0, 1.0]},
        {"intensity_window": [0.0, float("inf")]},
        {"intensity_window": [float("nan"), 1.0]},
        {"images": [ROW]},
        {"pack_bytes": {}},
        {"pack_crc32c": {}},
        {"pack_bytes": {"cd" * 32: 512}},  # it ends before its image does
        {"pack_bytes": {"cd" * 32: -1}},
        {"pack_bytes": {"cd" * 32: "2048"}},
        {
            "pack_bytes": {"cd" * 32: 2048, "ab" * 32: 1},
            "pack_crc32c": {"cd" * 32: "yZRlqg==", "ab" * 32: "yZRlqg=="},
        },
        {"pack_crc32c": {"ab" * 32: "yZRlqg=="}},
        {"pack_crc32c": {"cd" * 32: "no"}},
        {"pack_crc32c": {"cd" * 32: None}},
    ],
)
def test_a_hostile_header_is_refused(change: dict[str, Any]) -> None:
    data, version = hostile({**HEADER, **SUMS, **change}, ROW)
    with pytest.raises(ContractError):
        decode_manifest(data, version=version)


@pytest.mark.parametrize("rows", [(ROW, ROW), ([],), ("x",), (None,)])
def test_rows_that_are_none_or_twice_are_refused(rows: tuple[Any, ...]) -> None:
    data, version = hostile(HEADER, *rows)
    with pytest.raises(ContractError):
        decode_manifest(data, version=version)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_text_is_refused_with_our_error(text: bytes) -> None:
    with pytest.raises(ContractError):
        decode_manifest(gzip.compress(text), version=hashlib.sha256(text).hexdigest())
    with pytest.raises(ContractError):
        decode_manifest(text, version=hashlib.sha256(text).hexdigest())


def test_deeply_nested_text_is_refused() -> None:
    text = b"[" * 100_000
    with pytest.raises(ContractError):
        decode_manifest(gzip.compress(text), version=hashlib.sha256(text).hexdigest())
