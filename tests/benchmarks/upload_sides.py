"""The sides of the benchmark of uploads: ours, and other ways to send, read or decode the same images."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from orchestrator.config import load
from orchestrator.stores.faults import said
from orchestrator.workflows.data.upload import upload
from orchestrator.workflows.workspace import Workspace
from remote.contract.run_spec import StoreRef
from remote.storage.gcs import GcsStore
from tests.benchmarks.upload_decoding import decoded

THREADS = 32
_LOOK_S = 0.1


def ours(folder: str, data: str, bucket: str, endpoint: str) -> Mapping[str, Any]:
    """`tlvm upload`, with the memory that lies in `data`."""
    flags = {"store.url": f"gs://{bucket}", "store.endpoint": endpoint}
    workspace = Workspace(load(flags, environ={"TLVM_DATA_DIR": data}, folder=Path(data).parent))
    with _watched() as peaks:
        (result,) = upload(workspace, Path(folder))
    return {
        "unchanged": result.unchanged,
        "images": result.images,
        "packs": result.packs_sent,
        "peak_bytes": sum(peaks.values()),
    }


@contextmanager
def _watched() -> Iterator[Mapping[str, int]]:
    """The most memory that this process and each of its workers had, bytes by process id, with all that they imported.

    Not `ru_maxrss`: of a process that was started by a large one it says how large that one was.
    """
    peaks: dict[str, int] = {}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_LOOK_S):
            look()

    def look() -> None:
        for process in ("self", *_below("self")):
            peaks[process] = max(peaks.get(process, 0), _peak_bytes(process))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peaks
    finally:
        done.set()
        watcher.join()
        look()


def _below(process: str) -> Iterator[str]:
    """The processes that this one has begun, and those that they have."""
    for tasks in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):  # it has ended
            for child in tasks.read_text().split():
                yield child
                yield from _below(child)


def _peak_bytes(process: str) -> int:
    """0 when it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def single(folder: str, bucket: str, endpoint: str, most: str) -> Mapping[str, Any]:
    """Each file by itself, by many threads."""
    store = GcsStore(StoreRef(f"gs://{bucket}", endpoint), said, connections=THREADS)
    paths = files(folder)[: int(most)]
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda path: store.upload(path, str(path.relative_to(folder))), paths))
    return {"images": len(paths)}


def stream(folder: str, bucket: str, endpoint: str) -> Mapping[str, Any]:
    """Read the files, hash each, and send all of it as one."""
    store = GcsStore(StoreRef(f"gs://{bucket}", endpoint), said)
    content = io.BytesIO()
    paths = files(folder)
    for path in paths:
        data = path.read_bytes()
        hashlib.sha256(data).hexdigest()
        content.write(data)
    one = Path(folder).parent / "one"
    one.write_bytes(content.getbuffer())
    store.upload(one, "one")
    one.unlink()
    return {"images": len(paths)}


def decode(folder: str) -> Mapping[str, Any]:
    """Read and decode every file, on all cores."""
    paths = [str(path) for path in files(folder)]
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        pool.map(decoded, paths, chunksize=256)
    return {"images": len(paths)}


def walk(folder: str) -> Mapping[str, Any]:
    """A plain walk with `stat`."""
    count = 0
    for place, _, names in os.walk(folder):
        for name in names:
            os.stat(os.path.join(place, name))  # noqa: PTH116, PTH118  # the plainest there is
            count += 1
    return {"images": count}


def files(folder: str) -> Sequence[Path]:
    return sorted(Path(folder).rglob("*.jpg"))


SIDES: Mapping[str, Callable[..., Mapping[str, Any]]] = {
    "ours": ours,
    "single": single,
    "stream": stream,
    "decode": decode,
    "walk": walk,
}
