"""The weights of torchvision are what their hash says, wherever they come from, or they are not used."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.errors import CloudError
from orchestrator.progress import Progress, Silent
from orchestrator.stores import open_store
from orchestrator.stores.base import Store
from orchestrator.weights import mirror, resolve
from remote.contract import layout
from remote.contract.models import MODELS, ModelFile
from remote.contract.run_spec import StoreRef, WeightsRef
from tests.fakes.file_server import FileServer, serving
from tests.orchestrator.heard import Heard

CONTENT = hashlib.shake_256(b"weights").digest(700_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
MODEL = "squeezenet1_1"


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


def fails(store: Store, tmp_path: Path, models: dict[str, ModelFile], says: str) -> None:
    """The download fails for that reason, and the error names the ways out."""
    with pytest.raises(CloudError) as error:
        imagenet(store, tmp_path, models)
    assert says in str(error.value)
    assert all(way in error.value.next for way in ("--weights FILE", "--weights run:ID", "--weights none"))
