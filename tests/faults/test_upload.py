"""Uploads that are killed, cut, refused, overtaken: nothing is lost, nothing half is visible, no pack is sent twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.errors import ConflictError, PartialError, TlvmError
from orchestrator.stores import checksum_of, open_store
from orchestrator.stores.base import Blob, Store
from orchestrator.stores.faults import said
from orchestrator.workflows.data.download import download
from orchestrator.workflows.data.upload import require_all, upload
from remote.contract.attempts import Attempts
from remote.contract.dataset_manifest import decode_manifest
from remote.contract.run_spec import StoreRef
from remote.contract.store import Retrying
from remote.storage.gcs import GcsStore
from tests.fakes.gcs_faults import Kind
from tests.fakes.gcs_server import GcsServer
from tests.faults.uploading import PACK_BYTES, once, workspace_of

ROOT = Path(__file__).resolve().parents[2]
COUNTS = {"train/ants": 40, "train/bees": 36, "val/ants": 10, "val/bees": 10}
SOAK_KILLS = 50


@pytest.fixture
def server() -> Iterator[GcsServer]:
    with GcsServer() as server:
        server.create_bucket("bugs")
        yield server
    assert server.errors == []


def noise(root: Path, counts: Mapping[str, int], *, seed: int = 0) -> Path:
    """Photos of nothing, no two alike, of about 2 KB."""
    numbers = np.random.default_rng(seed)
    for label, count in counts.items():
        (root / label).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = numbers.integers(0, 256, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / label / f"{seed}-{number:03d}.png")
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noise(tmp_path_factory.mktemp("photos") / "bugs", COUNTS)


@pytest.fixture(scope="module")
def undisturbed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, tuple[int, str]]:
    """What the bucket holds after an upload that nothing disturbed: size and checksum by key."""
    with GcsServer() as server:
        url = server.create_bucket("bugs")
        once(folder, tmp_path_factory.mktemp("undisturbed"), url, server.endpoint)
        return {blob.key: (blob.size, blob.crc32c) for blob in held(server)}


def held(server: GcsServer) -> list[Blob]:
    return list(open_store(StoreRef("gs://bugs", server.endpoint)).blobs(""))


def whole(server: GcsServer) -> None:
    """HEAD, if there is one, names a version all of whose packs are there."""
    keys = {blob.key for blob in held(server)}
    content = {
        key: server.api.buckets.get("bugs", key, {}).content for key in keys if key.startswith("datasets/")
    }
    for key in (key for key in keys if key.endswith("/HEAD")):
        version = content[key].decode().strip()
        manifest = decode_manifest(
            content[f"{key.removesuffix('HEAD')}manifests/{version}.jsonl.gz"], version=version
        )
        assert {f"packs/{pack}.tar" for pack in manifest.packs()} <= keys


def begun(
    folder: Path, data: Path, server: GcsServer, processes: int, pack_bytes: int = PACK_BYTES
) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "tests.faults.uploading",
        str(folder),
        str(data),
        "gs://bugs",
        server.endpoint,
    ]
    return subprocess.Popen(
        [*command, str(processes), str(pack_bytes)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def kill_at(process: subprocess.Popen[bytes], server: GcsServer, request: int, later_s: float) -> None:
    """Kill it when it has sent so many requests, and a moment later."""
    while process.poll() is None and sum(server.requests.values()) < request:
        time.sleep(0.001)
    time.sleep(later_s)
    process.kill()
    process.communicate()


def killed_and_again(
    seed: int, folder: Path, tmp_path: Path, expected: Mapping[str, tuple[int, str]]
) -> None:
    chance = random.Random(seed)
    with GcsServer(latency_s=0.004) as server:
        server.create_bucket("bugs")
        requests = 2 * len(expected) + 3
        for _ in range(chance.choice((1, 1, 2))):
            server.requests.clear()
            process = begun(folder, tmp_path / "data", server, chance.choice((0, 2)))
            kill_at(process, server, chance.randrange(1, requests), chance.random() * 0.02)
        server.wait_until_left()
        before = held(server)
        whole(server)
        server.requests.clear()
        result = once(folder, tmp_path / "data", "gs://bugs", server.endpoint)
        after = held(server)
        assert {blob.key: (blob.size, blob.crc32c) for blob in after} == expected
        assert result.images == sum(COUNTS.values())
        assert set(before) <= set(after)  # with their generations: nothing was written twice
        assert server.requests["objects.insert"] == len(after) - len(before)
        assert not list((tmp_path / "data/records/cache").glob("packs-*"))


@pytest.mark.parametrize("seed", range(3))
def test_killed_and_again_is_as_if_undisturbed(
    seed: int, folder: Path, tmp_path: Path, undisturbed: Mapping[str, tuple[int, str]]
) -> None:
    killed_and_again(seed, folder, tmp_path, undisturbed)


UNIT = 256 * 1024  # of what the service keeps of an upload that broke off


def large(root: Path) -> Path:
    """One pack of about 5 MB: what is smaller goes in one request."""
    numbers = np.random.default_rng(4)
    for label, count in {"train/ants": 8, "train/bees": 8, "val/ants": 2, "val/bees": 2}.items():
        (root / label).mkdir(parents=True)
        for number in range(count):
            pixels = numbers.integers(0, 256, (300, 300, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / label / f"{number}.png")
    return root


def typed(folder: Path, data: Path, server: GcsServer) -> subprocess.Popen[bytes]:
    """`tlvm upload FOLDER`."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("TLVM_")}
    variables |= {"TLVM_DATA_DIR": str(data), "TLVM_STORE_URL": "gs://bugs", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "upload", str(folder)],
        cwd=folder.parent,
        env=variables | {"TLVM_STORE_ENDPOINT": server.endpoint},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def killed_inside_a_pack(folder: Path, data: Path, server: GcsServer) -> int:
    """How many of its bytes the service has kept: it took half of them and waits for no more."""
    server.fail("stall halfway", on="objects.insert.chunk")
    process = typed(folder, data, server)
    while process.poll() is None and not server.requests["objects.insert.chunk"]:
        time.sleep(0.002)
    process.kill()
    process.communicate()
    return server.received["objects.insert.chunk"] // UNIT * UNIT


def test_killed_inside_a_large_pack_it_goes_on_at_the_byte(tmp_path: Path, server: GcsServer) -> None:
    folder = large(tmp_path / "bugs")
    kept = killed_inside_a_pack(folder, tmp_path / "data", server)
    came = server.received["objects.insert.chunk"]
    again = typed(folder, tmp_path / "data", server)
    output, _ = again.communicate()
    assert again.returncode == 0, output.decode()
    whole(server)
    (pack,) = (blob.size for blob in held(server) if blob.key.startswith("packs/"))
    assert 1_000_000 < kept < pack
    assert server.requests["objects.insert.start"] == 1
    assert server.received["objects.insert.chunk"] - came == pack - kept
    assert not list((tmp_path / "data/records/cache/sessions").iterdir())


@pytest.mark.parametrize("damage", ["forgotten", "refused", "junk", "elsewhere", "empty", "another store"])
def test_where_it_can_not_go_on_a_large_pack_is_sent_anew(
    tmp_path: Path, server: GcsServer, damage: str
) -> None:
    folder = large(tmp_path / "bugs")
    killed_inside_a_pack(folder, tmp_path / "data", server)
    (session,) = (tmp_path / "data/records/cache/sessions").iterdir()
    assert session.stat().st_mode & 0o777 == 0o600
    if damage == "forgotten":
        server.fail("410", on="objects.insert.chunk")
    elif damage == "another store":
        server.create_bucket("others")
    else:
        words = {"refused": f"{server.endpoint}/upload/storage/v1/b/bugs/o?uploadType=resumable&upload_id=x"}
        words |= {"junk": "junk", "elsewhere": "http://127.0.0.1:1/upload", "empty": ""}
        session.write_text(words[damage])
    url = "gs://others" if damage == "another store" else "gs://bugs"
    assert once(folder, tmp_path / "data", url, server.endpoint, pack_bytes=2**26).images == 20
    assert server.requests["objects.insert.start"] == 2


def test_ctrl_c_does_not_wait_for_a_silent_store(tmp_path: Path, server: GcsServer) -> None:
    server.fail("stall", on="objects.get", path="*/packs/*.tar")
    process = typed(large(tmp_path / "bugs"), tmp_path / "data", server)
    while process.poll() is None and server.faults.unused():
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=50)  # the store is given up after 60 s
    assert process.returncode == 130, output.decode()
    assert b"Interrupted" in output and b"Traceback" not in output


@pytest.mark.parametrize("damaged", [False, True])
def test_a_large_pack_that_another_dataset_has_is_taken_or_healed(
    tmp_path: Path, server: GcsServer, damaged: bool
) -> None:
    first = typed(large(tmp_path / "bugs"), tmp_path / "one", server)
    assert (first.communicate(), first.returncode)[1] == 0
    (pack,) = (blob for blob in held(server) if blob.key.startswith("packs/"))
    if damaged:
        (tmp_path / "zeros").write_bytes(bytes(pack.size))
        open_store(StoreRef("gs://bugs", server.endpoint)).upload(tmp_path / "zeros", pack.key)
    came = server.received["objects.insert.chunk"]
    other = typed(large(tmp_path / "more/others"), tmp_path / "two", server)
    output, _ = other.communicate()
    assert other.returncode == 0, output.decode()
    whole(server)
    (now,) = (blob for blob in held(server) if blob.key.startswith("packs/"))
    assert (now.size, now.crc32c) == (pack.size, pack.crc32c)
    assert server.received["objects.insert.chunk"] - came == (pack.size if damaged else 0)
    assert not list((tmp_path / "two/records/cache/sessions").iterdir())


def test_two_that_send_the_same_large_pack_do_not_share_what_was_begun(
    tmp_path: Path, server: GcsServer
) -> None:
    folder = large(tmp_path / "bugs")
    killed_inside_a_pack(folder, tmp_path / "data", server)
    both = [begun(folder, tmp_path / "data", server, 0, 2**26) for _ in range(2)]
    assert [(process.communicate(), process.returncode)[1] for process in both] == [0, 0]
    whole(server)


def test_what_is_known_is_sent_to_another_bucket_without_being_decoded_again(
    folder: Path, tmp_path: Path, server: GcsServer, undisturbed: Mapping[str, tuple[int, str]]
) -> None:
    server.create_bucket("more")
    workspace = workspace_of(tmp_path / "data", "gs://more", server.endpoint)
    upload(workspace, folder, pack_bytes=PACK_BYTES)
    workspace = workspace_of(tmp_path / "data", "gs://bugs", server.endpoint)
    upload(workspace, folder, pack_bytes=PACK_BYTES)
    assert {blob.key: (blob.size, blob.crc32c) for blob in held(server)} == undisturbed


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 100 + SOAK_KILLS))
def test_killed_at_any_moment(
    seed: int, folder: Path, tmp_path: Path, undisturbed: Mapping[str, tuple[int, str]]
) -> None:
    killed_and_again(seed, folder, tmp_path, undisturbed)


@pytest.mark.parametrize("kind", ["429", "500", "503", "503 after", "reset", "reset after", "408"])
def test_a_bucket_that_fails_for_a_while_gets_the_same(
    kind: Kind, folder: Path, tmp_path: Path, server: GcsServer, undisturbed: Mapping[str, tuple[int, str]]
) -> None:
    server.fail(kind, on="objects.insert*", times=4)
    server.fail(kind, on="objects.get", times=4)
    once(folder, tmp_path / "data", "gs://bugs", server.endpoint)
    assert {blob.key: (blob.size, blob.crc32c) for blob in held(server)} == undisturbed
    assert server.faults.unused() == []


STUMBLES: dict[str, tuple[Kind, str]] = {
    "no answer": ("stall", "objects.insert*"),
    "silence in the middle of a pack": ("stall halfway", "objects.insert*"),
    "a reset in the middle of a pack": ("cut", "objects.insert*"),
    "bent on its way up": ("corrupt sent", "objects.insert{}"),
    "another checksum in the answer": ("other crc32c", "objects.insert{}"),
    "no answer to a question": ("stall", "objects.get"),
    "half an answer": ("truncate", "objects.get"),
}


@pytest.mark.parametrize("stumble", STUMBLES)
@pytest.mark.parametrize("packs", ["small", "large"])
def test_silence_halves_and_bent_bytes_do_not_change_what_arrives(
    tmp_path: Path, server: GcsServer, stumble: str, packs: str
) -> None:
    kind, on = STUMBLES[stumble]
    folder = large(tmp_path / "bugs")
    sizes = {"small": 600_000, "large": 2**26}
    for url in ("gs://bugs", server.create_bucket("undisturbed")):
        if url == "gs://bugs":
            server.fail(kind, on=on.format("" if packs == "small" else ".chunk"), times=2)
        workspace = workspace_of(tmp_path / url[5:], url, server.endpoint)
        workspace.store = impatient(url, server)
        (result,) = upload(workspace, folder, processes=0, pack_bytes=sizes[packs])
        assert (result.images, result.missed) == (20, [])
    assert server.faults.unused() == []
    found, expected = (
        {(blob.key, blob.size, blob.crc32c) for blob in open_store(StoreRef(url, server.endpoint)).blobs("")}
        for url in ("gs://bugs", "gs://undisturbed")
    )
    assert found == expected
    whole(server)


def impatient(url: str, server: GcsServer) -> Store:
    """Gives a silent server up after a moment: where a loaded computer was silent only, once more than it had to."""
    store = GcsStore(StoreRef(url, server.endpoint), said, timeout_s=0.3)
    attempts = Attempts(count=100, sleep=lambda _: None)
    return Retrying(store, attempts, changed=ConflictError, checksum_of=checksum_of)


@pytest.mark.parametrize("kind", ["corrupt", "truncate", "cut", "stall halfway", "503", "reset"])
def test_what_comes_down_bent_or_cut_is_fetched_again(tmp_path: Path, server: GcsServer, kind: Kind) -> None:
    folder = large(tmp_path / "bugs")
    once(folder, tmp_path / "data", "gs://bugs", server.endpoint)
    server.fail(kind, on="objects.download", path="*/packs/*", times=3)
    server.fail(kind, on="objects.download", path="*/manifests/*")
    workspace = workspace_of(tmp_path / "else", "gs://bugs", server.endpoint)
    workspace.store = impatient("gs://bugs", server)
    assert download(workspace, "bugs", tmp_path / "back").written == 20
    assert server.faults.unused() == []
    for path in folder.rglob("*.png"):
        assert (tmp_path / "back" / path.relative_to(folder)).read_bytes() == path.read_bytes()


def test_two_at_once_are_both_right(
    folder: Path, tmp_path: Path, server: GcsServer, undisturbed: Mapping[str, tuple[int, str]]
) -> None:
    both = [begun(folder, tmp_path / name, server, 0) for name in ("one", "two")]
    versions = [process.communicate()[0].strip() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert versions[0] == versions[1]
    assert {blob.key: (blob.size, blob.crc32c) for blob in held(server)} == undisturbed


def test_two_different_ones_at_once_never_mix(folder: Path, tmp_path: Path, server: GcsServer) -> None:
    more = tmp_path / "other/bugs"
    more.mkdir(parents=True)
    for path in folder.rglob("*.png"):
        (more / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
        os.link(path, more / path.relative_to(folder))
    noise(more, {"train/ants": 5}, seed=1)
    both = [begun(source, tmp_path / name, server, 0) for name, source in (("one", folder), ("two", more))]
    codes = [process.wait() for process in both]
    for process in both:
        process.communicate()
    assert set(codes) <= {0, 10}
    assert 0 in codes
    whole(server)
    images = once(more, tmp_path / "two", "gs://bugs", server.endpoint).images
    assert images == sum(COUNTS.values()) + 5


def test_a_bucket_that_keeps_failing_is_one_error_and_no_version(
    folder: Path, tmp_path: Path, server: GcsServer
) -> None:
    server.fail("503", on="objects.insert*", times=1000)
    with pytest.raises(TlvmError):
        once(folder, tmp_path / "data", "gs://bugs", server.endpoint)
    assert held(server) == []
    assert not list((tmp_path / "data/records/cache").glob("packs-*"))


class Meddling(GcsServer):
    """Somebody works in the folder before the request of a given number, which is after the scan."""

    def __init__(self, act: Callable[[], object], at: int = 0) -> None:
        super().__init__()
        self._act = act
        self._at = at

    def count(self, call: str) -> None:
        if sum(self.requests.values()) == self._at:
            self._at = -1
            self._act()
        super().count(call)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Made long ago: their folders' times tell of every change."""
    root = noise(tmp_path / "bugs", {"train/ants": 9, "train/bees": 9, "val/ants": 2, "val/bees": 2})
    for path in [root, *root.rglob("*")]:
        os.utime(path, (1_700_000_000, 1_700_000_000.123456789))
    return root


def test_files_that_change_vanish_or_appear_meanwhile(tmp_path: Path, photos: Path) -> None:
    def meddle() -> None:
        (photos / "train/ants/0-000.png").unlink()
        path = photos / "train/ants/0-001.png"
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        noise(photos, {"train/bees": 1}, seed=7)

    with Meddling(meddle) as server:
        server.create_bucket("bugs")
        result = once(photos, tmp_path / "data", "gs://bugs", server.endpoint)
        assert {item.path: item.reason for item in result.missed} == {
            "train/ants/0-000.png": "it vanished meanwhile",
            "train/ants/0-001.png": "it changed meanwhile",
            "train/bees/7-000.png": "it appeared meanwhile",
        }
        with pytest.raises(PartialError) as error:
            require_all([result])
        assert error.value.exit_code == 3
        whole(server)
        again = once(photos, tmp_path / "data", "gs://bugs", server.endpoint)
        assert (again.missed, again.images, again.added) == ([], 21, 1)


@pytest.mark.parametrize("at", range(1, 9))
def test_a_file_that_appears_while_packs_travel_is_named(tmp_path: Path, photos: Path, at: int) -> None:
    with Meddling(lambda: noise(photos, {"val/bees": 1}, seed=8), at) as server:
        server.create_bucket("bugs")
        result = once(photos, tmp_path / "data", "gs://bugs", server.endpoint)
        assert [item.path for item in result.missed] == ["val/bees/8-000.png"]
        assert once(photos, tmp_path / "data", "gs://bugs", server.endpoint).images == 23


def test_a_class_that_appears_and_a_folder_that_goes_meanwhile_are_named(
    tmp_path: Path, photos: Path
) -> None:
    with Meddling(lambda: noise(photos, {"train/wasps": 2}, seed=9), 3) as server:
        server.create_bucket("bugs")
        result = once(photos, tmp_path / "data", "gs://bugs", server.endpoint)
        assert {item.path for item in result.missed} == {"train/wasps/9-000.png", "train/wasps/9-001.png"}
    with Meddling(lambda: photos.rename(photos.with_name("away")), 5) as server:
        server.create_bucket("bugs")
        result = once(photos, tmp_path / "more", "gs://bugs", server.endpoint)
        assert [item.path for item in result.missed] == ["."]
        assert "There is no folder" in result.missed[0].reason


def test_ten_thousand_classes(tmp_path: Path, server: GcsServer) -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (10_000, 4, 4), dtype=np.uint8)
    for number in range(10_000):
        place = tmp_path / f"bugs/train/{number:05d}"
        place.mkdir(parents=True)
        Image.fromarray(pixels[number]).save(place / "1.pgm")
        if number % 1000 == 0:
            (tmp_path / f"bugs/val/{number:05d}").mkdir(parents=True)
            Image.fromarray(pixels[number - 1][::-1].copy()).save(tmp_path / f"bugs/val/{number:05d}/1.pgm")
    result = once(tmp_path / "bugs", tmp_path / "data", "gs://bugs", server.endpoint)
    assert len(result.counts["train"]) == 10_000


def test_folders_of_a_killed_process_are_removed_by_the_next_and_no_others(
    folder: Path, tmp_path: Path, server: GcsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    once(folder, tmp_path / "of another", "gs://bugs", server.endpoint)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    server.fail("stall", on="objects.download", path="*/manifests/*")
    process = begun(folder, tmp_path / "data", server, 0)
    while process.poll() is None and server.faults.unused():
        time.sleep(0.005)
    (temporary / "tlvm-else").mkdir()
    (mine,) = [path.parent.name for path in temporary.glob("tlvm-scratch-*/lock")]
    again = begun(folder, tmp_path / "data", server, 0)
    again.communicate()
    assert again.returncode == 0
    assert {path.name for path in temporary.iterdir() if not path.name.startswith("pymp-")} == {
        mine,
        "tlvm-else",
    }
    process.kill()
    process.communicate()
    again = begun(noise(tmp_path / "more/bugs", COUNTS, seed=3), tmp_path / "data", server, 0)
    again.communicate()
    assert {path.name for path in temporary.iterdir()} == {"tlvm-else"}
