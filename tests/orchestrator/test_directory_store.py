"""What only a folder can get wrong: other processes, other users, links, hand edits, a full disk."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.errors import AuthError, CloudError, ConfigError, ConflictError, NotFoundError
from orchestrator.stores import open_store
from orchestrator.stores.base import Store
from orchestrator.stores.faults import said
from remote.contract.run_spec import StoreRef
from remote.storage.disk import refused
from remote.store import open_store as open_on_the_machine
from tests.nobody import as_nobody, for_all

ROOT = Path(__file__).resolve().parents[2]
OTHER_USER, GROUP = 54321, 54322


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(StoreRef(str(tmp_path / "store")))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return path


def test_processes_that_race_create_each_blob_once(tmp_path: Path) -> None:
    """Four processes of both halves try to create the same 50 blobs, each with its own content."""
    racer = """
import sys
from pathlib import Path
from remote.contract.run_spec import StoreRef
half, store, number = sys.argv[1:]
if half == "laptop":
    from orchestrator.stores import open_store
    from orchestrator.errors import ConflictError as Changed
else:
    from remote.store import open_store, StoreChanged as Changed
file = Path(store + "-" + number)
file.write_text(number)
opened = open_store(StoreRef(store))
won = []
for key in range(50):
    try:
        opened.upload(file, f"race/{key}", if_generation=0)
        won.append(str(key))
    except Changed:
        pass
print(" ".join(won))
"""
    store = tmp_path / "store"
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", racer, half, str(store), str(number)],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )
        for number, half in enumerate(["laptop", "machine"] * 2)
    ]  # fmt: skip
    won = [racer.communicate()[0].split() for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * 4
    assert sorted(int(key) for keys in won for key in keys) == list(range(50))
    for number, keys in enumerate(won):
        assert all((store / "race" / key).read_text() == str(number) for key in keys)


def test_both_halves_see_the_same_blobs(tmp_path: Path, file: Path) -> None:
    ref = StoreRef(str(tmp_path / "store"))
    ours, theirs = open_store(ref), open_on_the_machine(ref)
    sent = ours.upload(file, "runs/x/spec.json")
    seen = theirs.get("runs/x/spec.json")
    assert seen is not None and vars(seen) == vars(sent)
    back = theirs.upload(file, "runs/x/spec.json", if_generation=sent.generation)
    with pytest.raises(ConflictError):
        ours.upload(file, "runs/x/spec.json", if_generation=sent.generation)
    assert [vars(blob) for blob in ours.blobs("")] == [vars(back)]


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder that other users can get to; those of pytest are closed."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


def test_a_shared_folder_stays_shared(open_to_all: Path, file: Path) -> None:
    """Group and permission bits go from each folder to what is made in it, whatever the umask and the user."""
    shared = open_to_all / "store"
    shared.mkdir()
    if os.geteuid() == 0:
        os.chown(shared, -1, GROUP)
    shared.chmod(0o2770)
    group = shared.stat().st_gid
    before = os.umask(0o077)
    try:
        open_store(StoreRef(str(shared))).upload(file, "runs/x/model/weights")
    finally:
        os.umask(before)
    for folder in ("runs", "runs/x", "runs/x/model", "runs/.tmp"):
        found = (shared / folder).stat()
        assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o2770, group)
    for name in ("runs/x/model/weights", "runs/.tmp/lock"):
        found = (shared / name).stat()
        assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o660, group)
    if os.geteuid() == 0:
        _as_other_user(lambda: _write_as_a_member(shared))
        assert (shared / "runs/x/log/0").read_bytes() == b"from the machine"
        open_store(StoreRef(str(shared))).upload(file, "runs/x/log/0")
        open_store(StoreRef(str(shared))).delete("runs/x/log/0")


def _write_as_a_member(shared: Path) -> None:
    store = open_store(StoreRef(str(shared)))
    source = shared / "runs" / "source"
    source.write_bytes(b"from the machine")
    store.upload(source, "runs/x/log/0")
    store.upload(source, "runs/x/model/weights")  # replaces the file of another user
    source.unlink()


def _as_other_user(act: Callable[[], None]) -> None:
    """Call `act` in a child process that is another user, of the group."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(GROUP)
            os.setuid(OTHER_USER)
            os.chdir("/")
            act()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_links_lead_nowhere(store: Store, tmp_path: Path, file: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    store.upload(file, "runs/x/log")
    root = tmp_path / "store"
    (root / "runs/x/folder").symlink_to(outside)
    (root / "runs/x/linked").symlink_to(outside / "secret")
    os.mkfifo(root / "runs/x/pipe")

    assert [blob.key for blob in store.blobs("")] == ["runs/x/log"]
    for key in ("runs/x/folder/secret", "runs/x/linked", "runs/x/pipe", "runs/x/folder", "runs/x"):
        assert store.get(key) is None
        with pytest.raises(NotFoundError):
            store.download(key, tmp_path / "got")
        store.delete(key)
    with pytest.raises(CloudError, match="in its way"):
        store.upload(file, "runs/x/folder/planted")
    store.upload(file, "runs/x/linked")  # takes the place of the link
    assert [found.name for found in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_bytes() == b"secret"


def test_a_file_is_no_store_before_anything_is_written(tmp_path: Path, file: Path) -> None:
    (tmp_path / "store").write_text("notes")
    store = open_store(StoreRef(str(tmp_path / "store")))
    for ask in (
        lambda: store.get("runs/none"),
        lambda: list(store.blobs("")),
        lambda: list(store.folders("")),
        lambda: store.upload(file, "a"),
        lambda: store.download("a", tmp_path / "got"),
    ):
        with pytest.raises(CloudError, match=r"There is a file where the folder .*store should be"):
            ask()
    assert (tmp_path / "store").read_text() == "notes"


def test_the_store_itself_may_be_a_link(tmp_path: Path, file: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "disk")
    open_store(StoreRef(str(tmp_path / "store"))).upload(file, "a")
    assert (tmp_path / "disk/a").read_bytes() == b"content"


def test_a_hand_edit_is_noticed(store: Store, tmp_path: Path, file: Path) -> None:
    before = store.upload(file, "a")
    (tmp_path / "store/a").write_bytes(b"CONTENT")
    after = store.get("a")
    assert after is not None
    assert (after.generation, after.crc32c) != (before.generation, before.crc32c)
    with pytest.raises(ConflictError):
        store.upload(file, "a", if_generation=before.generation)


def test_a_clock_that_went_back_does_not_repeat_a_generation(
    store: Store, tmp_path: Path, file: Path
) -> None:
    store.upload(file, "a")
    in_an_hour = time.time_ns() + 3600 * 10**9
    os.utime(tmp_path / "store/a", ns=(in_an_hour, in_an_hour))
    assert store.upload(file, "a").generation > in_an_hour


def test_files_of_writers_that_died_are_swept_out(store: Store, tmp_path: Path, file: Path) -> None:
    store.upload(file, "a")
    dead, alive = tmp_path / "store/.tmp/dead", tmp_path / "store/.tmp/alive"
    dead.touch()
    alive.touch()
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(dead, (two_days_ago, two_days_ago))
    os.utime(tmp_path / "store/.tmp/lock", (two_days_ago, two_days_ago))
    store.upload(file, "b")
    assert sorted(found.name for found in dead.parent.iterdir()) == ["alive", "lock"]
    assert [blob.key for blob in store.blobs("")] == ["a", "b"]


def test_deleting_removes_the_folders_that_it_empties_but_not_the_top_ones(
    store: Store, tmp_path: Path, file: Path
) -> None:
    for key in ("checkpoints/x/deep/1", "checkpoints/x/2", "runs/y"):
        store.upload(file, key)
    store.delete("checkpoints/x/deep/1")
    assert [found.name for found in (tmp_path / "store/checkpoints/x").iterdir()] == ["2"]
    store.delete("checkpoints/x/2")
    assert [found.name for found in (tmp_path / "store/checkpoints").iterdir()] == [".tmp"]


def test_a_file_where_a_folder_should_be(store: Store, file: Path) -> None:
    store.upload(file, "a")
    store.upload(file, "b/c")
    with pytest.raises(CloudError, match="a/b can't be in the folder"):
        store.upload(file, "a/b")
    with pytest.raises(CloudError, match="b can't be in the folder"):
        store.upload(file, "b")
    assert store.get("a/b") is None
    store.delete("a/b")
    assert [blob.key for blob in store.blobs("")] == ["a", "b/c"]


@pytest.mark.needs("mount namespaces")
def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    """A disk of one megabyte, in a mount namespace of its own."""
    script = """
import sys
from pathlib import Path
from orchestrator.errors import CloudError
from orchestrator.stores import open_store
from remote.contract.run_spec import StoreRef
disk, elsewhere = Path(sys.argv[1]), Path(sys.argv[2])
large = elsewhere / "large"
large.write_bytes(bytes(3_000_000))
store = open_store(StoreRef(str(disk / "store")))
try:
    store.upload(large, "packs/large")
except CloudError as error:
    assert str(disk / "store") in str(error) and "full" in str(error), error
else:
    raise SystemExit("it fitted")
assert list(store.blobs("")) == [] and list((disk / "store/packs/.tmp").iterdir()) == []
beyond = open_store(StoreRef(str(elsewhere / "store")))
beyond.upload(large, "large")
try:
    beyond.download("large", disk / "got")
except CloudError as error:
    assert f"{disk} is full" in str(error), error
else:
    raise SystemExit("it fitted")
assert [path.name for path in disk.iterdir()] == ["store"]
"""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = [sys.executable, "-c", script, str(disk), str(tmp_path)]
    mounted = f'mount -t tmpfs -o size=1m none "{disk}" && exec "$@"'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mounted, "sh", *command], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_download_that_may_not_read_or_write_names_the_folder_that_forbids_it(file: Path) -> None:
    with for_all() as root:
        store = open_store(StoreRef(str(root / "store")))
        for key in ("open/1", "shut/1"):
            store.upload(file, key)
        (root / "store/shut").chmod(0o700)
        (root / "mine").mkdir(mode=0o777)
        (root / "mine").chmod(0o777)
        with as_nobody():
            with pytest.raises(AuthError, match=rf"ls -ld {root}/store$"):
                store.download("shut/1", root / "mine/1")
            with pytest.raises(AuthError, match=rf"ls -ld {root}$"):
                store.download("open/1", root / "1")
            store.download("open/1", root / "mine/1")


def test_what_the_system_forbids_names_the_folder() -> None:
    error = said(refused(PermissionError(errno.EACCES, "Permission denied"), "a", Path("/shared/store")))
    assert isinstance(error, AuthError)
    assert "ls -ld /shared/store" in str(error)


@pytest.mark.parametrize("url", ["relative/folder", "s3://bucket", "gs://", "gs://UPPER", "gs://b/../c", ""])
def test_an_address_that_is_none_of_ours(url: str) -> None:
    with pytest.raises(ConfigError, match="gs://BUCKET"):
        open_store(StoreRef(url, endpoint="http://127.0.0.1:1"))
