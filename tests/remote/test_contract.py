"""What both halves exchange: strict when read, the same when written again."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote.contract import dataset_manifest, document, events, layout
from remote.contract.dataset_manifest import DatasetManifest, Image
from remote.contract.document import ContractError
from remote.contract.run_spec import DatasetRef, RunSpec, StoreRef, WeightsRef, new_run_id
from remote.contract.run_status import ResultManifest, RunStatus
from remote.contract.start_request import StartRequest

DIGEST = "ab" * 32


def spec() -> RunSpec:
    return RunSpec(
        run_id="fixed-extractor-20260807-142530-k3qz",
        scenario="fixed-extractor",
        dataset=DatasetRef("trees", DIGEST),
        model="resnet18",
        weights=WeightsRef("ImageNet V1", DIGEST, "weights/resnet18.pth"),
        store=StoreRef("gs://bucket"),
        bundle=DIGEST,
        parameters={"folds": 5, "penalties": [1.0, 0.1], "name": "ü"},
        seed=0,
        owner="ana",
        project="trees",
        machine="tlvm-ana-trees",
        created="2026-08-07T14:25:30+00:00",
        max_hours=4.0,
        tlvm_version="0.1.0",
    )


def image(path: str = "train/oak/1.jpg", **changes: object) -> Image:
    whole = Image(
        path=path, split="train", class_name="oak", label_source="folder", group=None, size=10, sha256=DIGEST,
        mtime_ns=1, width=4, height=3, orientation=1, pages=1, page=0, mode="RGB", pack=DIGEST, offset=512,
    )  # fmt: skip
    return dataclasses.replace(whole, **changes)  # type: ignore[arg-type]


def manifest(*images: Image) -> DatasetManifest:
    return DatasetManifest("trees", ["oak"], "folders", "horizontal", None, list(images))


def test_a_run_spec_comes_back_as_it_was() -> None:
    assert document.decode(RunSpec, document.encode(spec()), what="spec") == spec()


def test_what_came_later_is_written_only_where_it_says_something() -> None:
    """A bundle of before it refuses what it does not know, and has to be told its own run again on another machine."""
    older = document.encode(StartRequest(spec(), 2))
    assert "code" not in older and '"environment": {}' in older
    newer = dataclasses.replace(spec(), code=DIGEST, environment=["LAB_TOKEN"])
    assert document.decode(RunSpec, document.encode(newer), what="spec") == newer
    assert document.decode(StartRequest, older, what="request").spec == spec()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "schema '2' is not the 1"),
        ({"surprise": 1}, "unknown field 'surprise'"),
        ({"seed": "0"}, "seed: expected int, found str"),
        ({"seed": True}, "seed: expected int, found bool"),
        ({"run_id": "../x"}, "is not a run id"),
        ({"bundle": "zz"}, "is not a sha256"),
        ({"job": "mine"}, "'mine' is none of train"),
        ({"max_hours": 0}, "not above 0"),
        ({"weights": {"source": "file", "sha256": DIGEST, "key": "../secret"}}, "not a path inside"),
        ({"dataset": {"name": "Trees", "version": DIGEST}}, "not a dataset name"),
    ],
)
def test_a_run_spec_that_is_not_one_is_refused_by_name(change: dict[str, object], message: str) -> None:
    data = json.loads(document.encode(spec())) | change
    with pytest.raises(ContractError, match=r"runs/x/spec\.json") as error:
        document.decode(RunSpec, json.dumps(data), what="runs/x/spec.json")
    assert message in str(error.value)


def test_a_missing_field_is_named() -> None:
    data = json.loads(document.encode(spec()))
    del data["model"]
    with pytest.raises(ContractError, match="field 'model' is missing"):
        document.decode(RunSpec, json.dumps(data), what="spec")


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000, '{"run_id": 1}'])
def test_what_is_no_document_is_refused(text: str) -> None:
    with pytest.raises(ContractError):
        document.decode(RunStatus, text, what="status")


def test_nested_lists_of_documents_are_read() -> None:
    text = '{"run_id": "r", "state": "SUCCEEDED", "created": "", "files": [{"path": "a", "size": 1, "sha256": "", "crc32c": ""}]}'
    found = document.decode(
        ResultManifest, json.dumps(json.loads(text) | {"schema": 1}), what="MANIFEST.json"
    )
    assert found.files[0].path == "a"


def test_a_document_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    document.write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        document.write_text(path, "\ud800")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["status.json"]


def test_a_run_id_names_scenario_and_time() -> None:
    run_id = new_run_id("fixed-extractor", datetime(2026, 8, 7, 14, 25, 30, tzinfo=UTC))
    assert run_id.startswith("fixed-extractor-20260807-142530-")
    assert layout.checked_run_id(run_id) == run_id


@given(st.text(max_size=40))
def test_no_path_leaves_its_folder(path: str) -> None:
    root = Path("/safe/folder")
    try:
        layout.inside(path)
    except ContractError:
        return
    assert (root / path).resolve().is_relative_to(root)


def test_a_manifest_comes_back_and_its_version_is_its_hash() -> None:
    data, version = dataset_manifest.encode(manifest(image("train/oak/2.jpg"), image("train/oak/1.jpg")))
    found = dataset_manifest.decode_manifest(data, version=version)
    assert [entry.path for entry in found.images] == ["train/oak/1.jpg", "train/oak/2.jpg"]
    assert dataset_manifest.encode(found) == (data, version)


def test_a_manifest_under_another_version_was_damaged() -> None:
    data, _ = dataset_manifest.encode(manifest(image()))
    with pytest.raises(ContractError, match="damaged"):
        dataset_manifest.decode_manifest(data, version=DIGEST)


@pytest.mark.parametrize(
    "hostile",
    [
        image("../../etc/passwd"),
        image("/etc/passwd"),
        image(class_name="elm"),
        image(size=-1),
        image(offset=-1),
    ],
)
def test_a_hostile_manifest_is_refused(hostile: Image) -> None:
    data, version = dataset_manifest.encode(manifest(hostile))
    with pytest.raises(ContractError):
        dataset_manifest.decode_manifest(data, version=version)


@pytest.mark.parametrize("data", [b"", b"no gzip", b"\x1f\x8b\x08\x00"])
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(ContractError):
        dataset_manifest.decode_manifest(data, version=DIGEST)


def test_events_are_lines_and_strangers_are_none(tmp_path: Path) -> None:
    writer = events.EventWriter(tmp_path / "events.jsonl")
    writer.step("extract", "900 of 900 images")
    for done in range(1001):
        writer.progress("extract", done, 1000, "images")
    writer.log("\x1b[31mred [bold]x\n")
    writer.close()
    lines = (tmp_path / "events.jsonl").read_bytes().splitlines()
    found = [event for line in lines if (event := events.parse(line))]
    assert len(found) == len(lines) < 20
    assert found[0]["number"] == 6
    assert found[-2]["done"] == 1000
    assert events.parse(b"[1]") is events.parse(b"{}") is events.parse(b'{"type": 1}') is None
