"""Weights of one's own: a file, a run's model, what was pushed before; each is what it says, or it is not used."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from orchestrator.config import load
from orchestrator.errors import ConfigError, NotFoundError
from orchestrator.progress import Silent
from orchestrator.stores import open_store
from orchestrator.stores.base import Store
from orchestrator.weights import mirror, push, resolve
from orchestrator.weights.files import NotWeights, kind_of
from orchestrator.workflows.data.weights import push_weights
from orchestrator.workflows.workspace import Workspace
from remote.contract import document, layout
from remote.contract.run_spec import StoreRef, WeightsRef
from remote.contract.run_status import ResultFile, ResultManifest
from tests.documents import run_spec
from tests.orchestrator.heard import Heard
from tests.shared_data import shared

DIGEST = hashlib.sha256(b"weights").hexdigest()
MODEL = "squeezenet1_1"
RUN = "from-scratch-20260807-142530-k3qz"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(StoreRef(str(tmp_path / "store")))


def test_none_is_none(store: Store, tmp_path: Path) -> None:
    ref = resolve(store, MODEL, "none", progress=Silent(), cache_folder=tmp_path)
    assert ref == WeightsRef("none")


@pytest.mark.parametrize("weights", ["imagenet", "none", "net.pth"])
def test_an_unknown_model_gets_the_nearest_name(store: Store, tmp_path: Path, weights: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolve(store, "resnet81", weights, progress=Silent(), cache_folder=tmp_path)
    assert "resnet18" in str(error.value)
    other = resolve(store, "timm:resnet81", "none", progress=Silent(), cache_folder=tmp_path)
    assert other == WeightsRef("none")  # which models another source has is known to the machine


def test_a_file_of_the_user_is_uploaded_once_and_listed(store: Store, tmp_path: Path) -> None:
    file = shared("weights/squeezenet1_1-onnxzoo-fp32.pth")
    ref = resolve(store, MODEL, str(file), progress=Silent(), cache_folder=tmp_path)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert (ref.sha256, ref.key) == (digest, f"weights/{digest[:16]}-{file.name}")
    first, index = store.get(ref.key), store.get(layout.WEIGHTS_INDEX)
    assert resolve(store, MODEL, str(file), progress=Silent(), cache_folder=tmp_path) == ref
    assert (store.get(ref.key), store.get(layout.WEIGHTS_INDEX)) == (first, index)
    [entry] = mirror.entries(store, Silent())  # which is what `tlvm weights list` shows
    assert (layout.weights_key(entry.file), entry.sha256, entry.origin) == (
        ref.key,
        digest,
        f"file {file.name}",
    )


def test_a_file_with_an_awkward_name_gets_a_plain_key(store: Store, tmp_path: Path) -> None:
    odd = tmp_path / "mein \u00dcbungs\\netz\n.safetensors"
    odd.write_bytes(safetensors(4))
    ref = resolve(store, MODEL, str(odd), progress=Silent(), cache_folder=tmp_path)
    assert ref.key.endswith("-mein-bungs-netz-.safetensors") and store.get(ref.key)


def test_a_legacy_pickle_is_recognised_without_unpickling_and_said(store: Store, tmp_path: Path) -> None:
    heard = Heard()
    file = shared("weights/resnet20-12fca82f.th")
    resolve(store, MODEL, str(file), progress=heard, cache_folder=tmp_path)
    assert kind_of(file) == "legacy pickle"
    assert any("old pickle format" in line for line in heard.warned)


def safetensors(bytes_of_data: int) -> bytes:
    header = json.dumps({"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(bytes_of_data)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"root:x:0:0:root:/root:/bin/bash", "neither"),
        (b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix", "any program"),
        (b"PK\x03\x04 and no end", "damaged or cut"),
        (safetensors(3), "damaged or cut"),
        ((10**6).to_bytes(8, "little") + b"{", "cut"),
        ((2).to_bytes(8, "little") + b"{]", "can't be read"),
    ],
)
def test_a_file_that_holds_no_weights_is_refused(
    store: Store, tmp_path: Path, content: bytes, says: str
) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(ConfigError, match=says) as caught:
        resolve(store, MODEL, str(tmp_path / "w.pth"), progress=Silent(), cache_folder=tmp_path)
    assert "root:" not in str(caught.value)  # a secret named by mistake would end in logs
    assert list(store.blobs("")) == []


@pytest.mark.parametrize(
    ("member", "says"), [("a/data.txt", "no data.pkl"), ("a/constants.pkl", "TorchScript")]
)
def test_a_zip_that_is_not_weights(tmp_path: Path, member: str, says: str) -> None:
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr(member, "")
        if "constants" in member:
            archive.writestr("a/data.pkl", "")
    with pytest.raises(NotWeights, match=says):
        kind_of(tmp_path / "w.pth")


def test_a_file_that_is_not_there(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        resolve(store, MODEL, str(tmp_path / "missing.pth"), progress=Silent(), cache_folder=tmp_path)
    with pytest.raises(ConfigError) as caught:
        resolve(store, MODEL, "imagnet", progress=Silent(), cache_folder=tmp_path)
    assert "Did you mean 'imagenet'?" in caught.value.next


def test_the_model_of_a_run_is_pinned_by_its_manifest(store: Store, tmp_path: Path) -> None:
    publish_run(store, tmp_path, files=[ResultFile("model/model.safetensors", 4, DIGEST, "AAAAAA==")])
    ref = resolve(store, MODEL, f"run:{RUN}", progress=Silent(), cache_folder=tmp_path)
    assert ref == WeightsRef(f"run {RUN}", DIGEST, f"runs/{RUN}/model/model.safetensors")


def test_a_run_of_another_model_is_refused(store: Store, tmp_path: Path) -> None:
    publish_run(store, tmp_path, files=[])
    with pytest.raises(ConfigError, match=f"those of a {MODEL}"):
        resolve(store, "resnet18", f"run:{RUN}", progress=Silent(), cache_folder=tmp_path)


def test_a_run_without_a_model_is_refused(store: Store, tmp_path: Path) -> None:
    publish_run(store, tmp_path, files=[])
    with pytest.raises(NotFoundError, match="has no model"):
        resolve(store, MODEL, f"run:{RUN}", progress=Silent(), cache_folder=tmp_path)


def test_a_run_that_does_not_exist(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no finished run"):
        resolve(store, MODEL, f"run:{RUN}", progress=Silent(), cache_folder=tmp_path)
    with pytest.raises(ConfigError, match="not a run id"):
        resolve(store, MODEL, "run:../../etc", progress=Silent(), cache_folder=tmp_path)


def publish_run(store: Store, tmp_path: Path, *, files: list[ResultFile]) -> None:
    spec = run_spec(run_id=RUN, scenario="from-scratch", model=MODEL, store=StoreRef(store.url))
    manifest = ResultManifest(RUN, "SUCCEEDED", "2026-08-07T14:25:30+00:00", files)
    for name, content in (("spec.json", spec), ("MANIFEST.json", manifest)):
        document.write(tmp_path / name, content)
        store.upload(tmp_path / name, layout.run_key(RUN, name))


def test_a_file_is_pushed_once_and_found_by_its_name(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    pushed = push(store, str(file), Silent())
    assert push(store, str(file), Silent()) == pushed
    [entry] = mirror.entries(store, Silent())
    assert (entry.sha256, entry.origin) == (pushed.sha256, "file mine.safetensors")
    file.unlink()
    for name in ("mine.safetensors", entry.file):
        found = resolve(store, "resnet18", name, progress=Silent(), cache_folder=tmp_path)
        assert (found.sha256, found.key) == (pushed.sha256, pushed.key)
    with pytest.raises(ConfigError, match="no such file"):
        resolve(store, "resnet18", "other.safetensors", progress=Silent(), cache_folder=tmp_path)


def test_two_pushed_files_of_one_name_need_the_whole_name(store: Store, tmp_path: Path) -> None:
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
        (folder / "mine.safetensors").write_bytes(
            len(header).to_bytes(8, "little") + header + bytes([number, 0, 0, 0])
        )
        push(store, str(folder / "mine.safetensors"), Silent())
    with pytest.raises(ConfigError, match="several files of this name"):
        resolve(store, "resnet18", "mine.safetensors", progress=Silent(), cache_folder=tmp_path)


def test_what_is_neither_a_file_nor_a_model_is_not_pushed(tmp_path: Path) -> None:
    workspace = Workspace(load({}, environ={"TLVM_DATA_DIR": str(tmp_path)}, folder=tmp_path), Silent())
    for what, next in (("resnet81", "'resnet18'"), ("net.pth", "Check the path.")):
        with pytest.raises(ConfigError, match="neither a file nor a model") as error:
            push_weights(workspace, what)
        assert next in error.value.next
