"""Packs that come before a run: as they are named, only as such, and never at the cost of a run."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from remote.contract import layout
from remote.contract.document import ContractError
from remote.contract.layout import MachineHome
from remote.contract.run_spec import RunSpec
from remote.job import fetch, line
from remote.job.evict import make_room, packs_in_peace
from remote.job.prefetch import LINE_BYTES_MAX, NoRoom, prefetch
from remote.store import StoreError, open_store
from tests.remote.machine import ROOT, eventually
from tests.remote.test_fetch import Counted, bring, content, here, published, say, used

OTHER = "0" * 64


@pytest.fixture
def home(tmp_path: Path) -> MachineHome:
    return MachineHome(tmp_path / "home/.tlvm")


def stored(
    tmp_path: Path, home: MachineHome, packs: int, *, start: int = 0, run: str = "aaaa"
) -> tuple[RunSpec, list[str]]:
    """A run, not begun, and the packs of its dataset."""
    spec = published(tmp_path, home, packs, start=start, run=run)
    return spec, [hashlib.sha256(content(number)).hexdigest() for number in range(start, start + packs)]


def told(tmp_path: Path, packs: list[str]) -> io.BytesIO:
    lines = [json.dumps({"url": str(tmp_path / "store")}), *packs]
    return io.BytesIO("".join(f"{text}\n" for text in lines).encode())


def test_each_pack_comes_when_it_is_named_and_the_run_fetches_none(tmp_path: Path, home: MachineHome) -> None:
    spec, packs = stored(tmp_path, home, 3)
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as source, os.fdopen(writing, "wb", buffering=0) as sink:
        working = threading.Thread(target=prefetch, args=(source, home))
        working.start()
        sink.write(told(tmp_path, []).getvalue())
        for pack in packs:
            assert not home.pack(pack).exists()
            sink.write(f"{pack}\n{pack}\n".encode())
            eventually(home.pack(pack).exists)
        sink.close()
        working.join()
    assert here(home) == {f"{pack}.tar" for pack in packs}
    assert [*home.locks.glob("fetch-*")] == []
    assert bring(spec, home) == [layout.manifest_key("bugs", spec.dataset.version)]


@pytest.mark.parametrize(
    "lines",
    [
        b"", b"\n", b"no json\n", b'{"url": 1}\n', b'{"url": "/store", "more": 1}\n', b'{"url": "/store"}',
        b"STORE\n\n", b"STORE\n../../x\n", b"STORE\n" + b"A" * 64 + b"\n", b"STORE\n" + b"a" * 63 + b"\n",
        b"STORE\nPACK", b"STORE\n" + b"PACK" * LINE_BYTES_MAX, b"STORE\nPACK \n", b"STORE\nPACK\r\n",
        b"STORE\n\xff\xfe\0\n", b"STORE\n\xd9\xa1" + b"a" * 63 + b"\n",
    ],
)  # fmt: skip
def test_a_line_that_names_no_pack_ends_it_and_leaves_nothing(
    tmp_path: Path, home: MachineHome, lines: bytes
) -> None:
    _, (pack,) = stored(tmp_path, home, 1)
    store = json.dumps({"url": str(tmp_path / "store")}).encode()
    with pytest.raises(ContractError):
        prefetch(io.BytesIO(lines.replace(b"STORE", store).replace(b"PACK", pack.encode())), home)
    assert not (home.root / "packs").exists()
    assert {place.name for place in tmp_path.iterdir()} <= {"home", "store", "pack", "manifest"}


def test_on_the_command_line_every_mishap_is_one_line(tmp_path: Path, home: MachineHome) -> None:
    _, (pack,) = stored(tmp_path, home, 1)
    environment = {**os.environ, "HOME": str(home.root.parent), "PYTHONPATH": str(ROOT)}

    def said(lines: bytes) -> tuple[int, bytes]:
        command = [sys.executable, "-m", "remote", "prefetch"]
        done = subprocess.run(command, input=lines, env=environment, capture_output=True, timeout=60)
        assert done.stdout == b""
        return done.returncode, done.stderr

    assert said(told(tmp_path, [pack, OTHER]).getvalue()) == (0, b"")  # a run that needs the other says so
    assert home.pack(pack).read_bytes() == content(0)
    code, text = said(b'{"url": "ftp://x"}\n' + pack.encode() + b"\n")
    assert (code, text.count(b"\n")) == (7, 1)
    code, text = said(told(tmp_path, ["/etc/passwd"]).getvalue())
    assert (code, text.count(b"\n")) == (2, 1)


def test_a_damaged_pack_does_not_stay_and_nothing_follows_it(tmp_path: Path, home: MachineHome) -> None:
    _, packs = stored(tmp_path, home, 2)
    (tmp_path / "store/packs" / f"{packs[0]}.tar").write_bytes(content(7))
    with pytest.raises(ContractError, match=rf"packs/{packs[0]}.tar .*was damaged"):
        prefetch(told(tmp_path, packs), home)
    assert here(home) <= {f"{packs[1]}.tar"}


def test_what_an_unfinished_run_needs_is_not_driven_out(tmp_path: Path, home: MachineHome) -> None:
    running = published(tmp_path, home, 2)
    bring(running, home)
    say(home, running, "RUNNING")
    over = published(tmp_path, home, 2, start=10, run="bbbb")
    bring(over, home)
    say(home, over, "SUCCEEDED")
    needed, spare = used(home, running, 1000.0), used(home, over, 2000.0)
    _, packs = stored(tmp_path, home, 4, start=20, run="cccc")
    limit = sum(path.stat().st_size for path in (home.root / "packs").iterdir())
    with pytest.raises(NoRoom, match="no room for packs/"):
        prefetch(told(tmp_path, packs), home, limit_bytes=limit)
    came = here(home) & {f"{pack}.tar" for pack in packs}
    assert here(home) - came == {f"{pack}.tar" for pack in needed}
    assert 1 <= len(came) <= len(spare)
    assert sum(path.stat().st_size for path in (home.root / "packs").iterdir()) <= limit


def test_what_another_process_is_fetching_is_waited_for(tmp_path: Path, home: MachineHome) -> None:
    spec, (pack,) = stored(tmp_path, home, 1)
    store = Counted(open_store(spec.store))
    want = fetch.Wanted(layout.pack_key(pack), home.pack(pack), pack, 1)
    held = line.try_hold(home.locks / f"fetch-{pack}.tar")
    assert held is not None
    waiting = threading.Thread(target=fetch.bring, args=(want, home, store), kwargs={"by": "b"})
    waiting.start()
    home.pack(pack).parent.mkdir(parents=True, exist_ok=True)
    home.pack(pack).write_bytes(content(0))
    os.close(held)
    waiting.join()
    assert store.downloads == []


def test_one_that_hangs_is_not_waited_for_for_ever(tmp_path: Path, home: MachineHome) -> None:
    spec, (pack,) = stored(tmp_path, home, 1)
    want = fetch.Wanted(layout.pack_key(pack), home.pack(pack), pack, 1)
    held = line.try_hold(home.locks / f"fetch-{pack}.tar")
    assert held is not None
    fetch.bring(want, home, open_store(spec.store), by="b", patience_s=0)
    assert home.pack(pack).read_bytes() == content(0)
    assert line.is_held(home.locks / f"fetch-{pack}.tar")  # still theirs
    os.close(held)


def test_nobody_makes_room_while_a_run_looks_what_is_here(tmp_path: Path, home: MachineHome) -> None:
    spec, _ = stored(tmp_path, home, 1)
    bring(spec, home)
    evicting = threading.Thread(
        target=make_room, args=(home, 0), kwargs={"keep": set(), "limit_bytes": 0}
    )  # of a run that has not said yet that it needs them
    with packs_in_peace(home):
        evicting.start()
        say(home, spec, "STARTING")
        evicting.join(0.1)
        assert evicting.is_alive()
    evicting.join()
    assert len(here(home)) == 1


def test_a_store_that_refuses_is_said(home: MachineHome) -> None:
    lines = json.dumps({"url": "relative"}) + f"\n{OTHER}\n"
    with pytest.raises(StoreError, match="neither a bucket"):
        prefetch(io.BytesIO(lines.encode()), home)


def test_what_a_killed_fetch_left_is_swept_when_it_is_old(tmp_path: Path, home: MachineHome) -> None:
    bring(published(tmp_path, home, 1), home)
    packs = home.root / "packs"
    old, young = packs / ".0123456789abcdef.part", packs / ".fedcba9876543210.part"
    for part in (old, young):
        part.write_bytes(b"cut short")
    os.utime(old, (0, 0))
    make_room(home, 0, keep=set())
    assert not old.exists()
    assert young.exists()
