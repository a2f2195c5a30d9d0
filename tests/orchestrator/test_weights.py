"""Weights are what their hash says, wherever they come from, or they are not used."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import socket
import threading
import zipfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator.config import load
from orchestrator.errors import CloudError, ConfigError, NotFoundError
from orchestrator.progress import Bar, Progress, Silent
from orchestrator.stores import open_store
from orchestrator.stores.base import Store
from orchestrator.weights import mirror, push, resolve
from orchestrator.weights.files import NotWeights, kind_of
from orchestrator.workflows.data.weights import push_weights
from orchestrator.workflows.workspace import Workspace
from remote.contract import document, layout
from remote.contract.models import MODELS, ModelFile
from remote.contract.run_spec import StoreRef, WeightsRef
from remote.contract.run_status import ResultFile, ResultManifest
from tests.documents import run_spec
from tests.fakes.file_server import FileServer, serving
from tests.shared_data import shared

CONTENT = hashlib.shake_256(b"weights").digest(700_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
MODEL = "squeezenet1_1"
RUN = "from-scratch-20260807-142530-k3qz"


@dataclass
class Heard:
    """Progress that remembers."""

    said: list[str] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)

    def say(self, label: str, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warned.append(text)

    def bar(self, label: str, total: int, unit: str) -> AbstractContextManager[Bar]:
        return nullcontext(_Nothing())


class _Nothing:
    def advance(self, amount: int = 1, size_bytes: int = 0) -> None: ...


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(StoreRef(str(tmp_path / "store")))


@pytest.fixture(autouse=True)
def torch_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty torch home; returns where torch would keep its files."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path))
    checkpoints = tmp_path / "torch" / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    return checkpoints


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving(CONTENT) as running:
        yield running


@pytest.fixture
def models(server: FileServer) -> dict[str, ModelFile]:
    """The contract's table with one model, whose file our server has."""
    return {
        MODEL: dataclasses.replace(
            MODELS[MODEL], file="net-1.pth", url=f"{server.url}/net-1.pth", sha256=DIGEST[:8]
        )
    }


def imagenet(
    store: Store, tmp_path: Path, models: dict[str, ModelFile], progress: Progress | None = None
) -> WeightsRef:
    return resolve(
        store,
        MODEL,
        "imagenet",
        progress=progress or Silent(),
        cache_folder=tmp_path / "cache",
        models=models,
    )


def test_imagenet_weights_are_downloaded_verified_mirrored_and_named(
    store: Store, tmp_path: Path, server: FileServer, models: dict[str, ModelFile]
) -> None:
    ref = imagenet(store, tmp_path, models)
    assert (ref.sha256, ref.key) == (DIGEST, "weights/net-1.pth")
    store.download(ref.key, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == CONTENT
    store.download(layout.WEIGHTS_INDEX, tmp_path / "index.json")
    (entry,) = json.loads((tmp_path / "index.json").read_text())["files"]
    assert (entry["file"], entry["sha256"], entry["size"]) == ("net-1.pth", DIGEST, len(CONTENT))
    assert not list((tmp_path / "cache").rglob("*.part"))


def test_what_the_store_has_is_not_fetched_again(
    store: Store, tmp_path: Path, server: FileServer, models: dict[str, ModelFile]
) -> None:
    first = imagenet(store, tmp_path, models)
    shutil.rmtree(tmp_path / "cache")
    assert imagenet(store, tmp_path, models) == first
    assert len(server.asked) == 1


def test_a_mirrored_file_that_changed_is_replaced(
    store: Store, tmp_path: Path, models: dict[str, ModelFile]
) -> None:
    ref = imagenet(store, tmp_path, models)
    (tmp_path / "other").write_bytes(b"something else")
    store.upload(tmp_path / "other", ref.key)
    assert imagenet(store, tmp_path, models) == ref
    store.download(ref.key, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == CONTENT


def test_an_upload_that_was_cut_before_the_index_is_taken_over(
    store: Store, tmp_path: Path, models: dict[str, ModelFile]
) -> None:
    (tmp_path / "whole").write_bytes(CONTENT)
    before = store.upload(tmp_path / "whole", "weights/net-1.pth")
    imagenet(store, tmp_path, models)
    after = store.get("weights/net-1.pth")
    assert after and after.generation == before.generation


def test_a_damaged_index_is_said_and_written_anew(
    store: Store, tmp_path: Path, models: dict[str, ModelFile]
) -> None:
    (tmp_path / "index").write_text('{"files": 3}')
    store.upload(tmp_path / "index", layout.WEIGHTS_INDEX)
    heard = Heard()
    imagenet(store, tmp_path, models, heard)
    assert any("index.json" in line for line in heard.warned)
    assert imagenet(store, tmp_path, models).sha256 == DIGEST


def test_two_computers_add_to_the_index_at_once_and_neither_is_lost(store: Store, tmp_path: Path) -> None:
    def add(number: int) -> None:
        path = tmp_path / f"{number}"
        path.write_bytes(b"%d" % number)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        mirror.add(store, path, f"net-{number}.pth", digest, "here", Silent())

    threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        digest = hashlib.sha256(b"%d" % number).hexdigest()
        assert mirror.find(store, f"net-{number}.pth", digest[:8], Silent()) == digest


def test_a_file_in_the_cache_of_torch_is_used_when_its_hash_is_right(
    store: Store, tmp_path: Path, server: FileServer, models: dict[str, ModelFile], torch_cache: Path
) -> None:
    (torch_cache / "net-1.pth").write_bytes(CONTENT)
    assert imagenet(store, tmp_path, models).sha256 == DIGEST
    assert server.asked == []


def test_a_wrong_file_in_the_cache_of_torch_is_named_left_alone_and_not_used(
    store: Store, tmp_path: Path, server: FileServer, models: dict[str, ModelFile], torch_cache: Path
) -> None:
    (torch_cache / "net-1.pth").write_bytes(b"poisoned")
    heard = Heard()
    assert imagenet(store, tmp_path, models, heard).sha256 == DIGEST
    assert any(str(torch_cache / "net-1.pth") in line for line in heard.warned)
    assert (torch_cache / "net-1.pth").read_bytes() == b"poisoned"
    assert len(server.asked) == 1


def test_a_cut_download_goes_on_where_it_stopped(
    store: Store, tmp_path: Path, server: FileServer, models: dict[str, ModelFile]
) -> None:
    server.cut_after = [400_000]
    assert imagenet(store, tmp_path, models).sha256 == DIGEST
    first, second = server.asked
    assert first == "" and 0 < int(second.removeprefix("bytes=").removesuffix("-")) <= 400_000


def test_a_download_cut_every_time_goes_on_at_the_next_command(
    store: Store, tmp_path: Path, server: FileServer, models: dict[str, ModelFile]
) -> None:
    server.cut_after = [200_000, 10, 10]
    fails(store, tmp_path, models, "cut")
    assert store.get("weights/net-1.pth") is None
    assert imagenet(store, tmp_path, models).sha256 == DIGEST
    assert int(server.asked[-1].removeprefix("bytes=").removesuffix("-")) > 0


def test_a_server_that_cannot_begin_in_the_middle_is_asked_for_all(
    store: Store, tmp_path: Path, server: FileServer, models: dict[str, ModelFile]
) -> None:
    server.cut_after, server.ranges = [400_000], False
    assert imagenet(store, tmp_path, models).sha256 == DIGEST


@pytest.mark.parametrize("older", [b"of another file", CONTENT + b"longer"])
def test_a_left_over_part_of_another_file_costs_one_more_download(
    store: Store, tmp_path: Path, models: dict[str, ModelFile], older: bytes
) -> None:
    part = tmp_path / "cache" / "weights" / "net-1.pth.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(older)
    assert imagenet(store, tmp_path, models).sha256 == DIGEST


def test_a_file_with_the_wrong_hash_is_not_kept(
    store: Store, tmp_path: Path, server: FileServer, models: dict[str, ModelFile]
) -> None:
    server.content = b"<html>please log in</html>"
    fails(store, tmp_path, models, "not that file")
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.stat().st_size] == []
    assert list(store.blobs("")) == []


@pytest.mark.parametrize("status", [403, 404, 503])
def test_a_server_that_has_no_such_file(
    store: Store, tmp_path: Path, server: FileServer, models: dict[str, ModelFile], status: int
) -> None:
    server.status = status
    fails(store, tmp_path, models, str(status))
    assert len(server.asked) == 1


def test_a_refused_connection(store: Store, tmp_path: Path, models: dict[str, ModelFile]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/net-1.pth"
        fails(store, tmp_path, {MODEL: dataclasses.replace(models[MODEL], url=address)}, "refused")


def test_a_download_that_takes_too_long_stops(
    store: Store, tmp_path: Path, server: FileServer, models: dict[str, ModelFile]
) -> None:
    with pytest.raises(CloudError, match="too long"):
        resolve(
            store,
            MODEL,
            "imagenet",
            progress=Silent(),
            cache_folder=tmp_path / "cache",
            models=models,
            limit_s=0,
        )


def test_two_commands_at_once_download_once(
    store: Store, tmp_path: Path, server: FileServer, models: dict[str, ModelFile]
) -> None:
    server.gate = threading.Event()
    found: list[str] = []
    first = threading.Thread(target=lambda: found.append(imagenet(store, tmp_path, models).sha256))
    first.start()
    assert server.half_sent.wait(10)

    class Waiting(Silent):
        def say(self, label: str, text: str) -> None:
            if "waiting" in text:
                assert server.gate
                server.gate.set()

    assert imagenet(store, tmp_path, models, Waiting()).sha256 == DIGEST
    first.join()
    assert found == [DIGEST] and len(server.asked) == 1


def test_another_address_may_have_the_same_files(
    store: Store, tmp_path: Path, server: FileServer, models: dict[str, ModelFile]
) -> None:
    unreachable = {MODEL: dataclasses.replace(models[MODEL], url="http://127.0.0.1:9/net-1.pth")}
    ref = resolve(
        store,
        MODEL,
        "imagenet",
        progress=Silent(),
        cache_folder=tmp_path,
        models=unreachable,
        base_url=server.url,
    )
    assert ref.sha256 == DIGEST


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


def fails(store: Store, tmp_path: Path, models: dict[str, ModelFile], says: str) -> None:
    """The download fails for that reason, and the error names the ways out."""
    with pytest.raises(CloudError) as error:
        imagenet(store, tmp_path, models)
    assert says in str(error.value)
    assert all(way in error.value.next for way in ("--weights FILE", "--weights run:ID", "--weights none"))


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
