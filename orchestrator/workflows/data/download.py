"""`tlvm download NAME DIR`: the files of a dataset version, as they were uploaded."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from orchestrator.datasets.packs import unpack
from orchestrator.datasets.packs.scratch import spool
from orchestrator.errors import CloudError, NotFoundError
from orchestrator.stores.base import Store
from orchestrator.workflows.data.datasets import resolve
from orchestrator.workflows.workspace import Workspace
from remote.contract import layout
from remote.contract.dataset_manifest import Image

_THREADS = 4  # so many packs are on the disk at a time


@dataclass(frozen=True)
class DownloadResult:
    name: str
    version: str
    folder: str  # absolute path
    images: int
    image_bytes: int
    written: int  # images; the others were there
    packs: int  # fetched
    seconds: float


def download(
    workspace: Workspace, name: str | None, folder: Path, *, version: str | None = None
) -> DownloadResult:
    """Write the files of a dataset version into `folder`; those that are there already are left.

    version         default: the newest
    ConflictError   the folder holds other files at their paths, or images of another version; nothing was written
    DataError       the manifest or a pack is damaged, or hostile: nothing is ever written outside `folder`
    """
    began = time.monotonic()
    name, version, manifest = resolve(workspace, name, version)
    unpack.require_safe(manifest.images)
    place = folder.absolute()
    try:
        place.mkdir(parents=True, exist_ok=True)
        unpack.require_no_others(manifest.images, place)
        wanted = unpack.missing(manifest.images, place)
        packs = _fetch(workspace, wanted, place)
    except OSError as error:
        raise CloudError(
            f"The files can't be written to {place}",
            detail=str(error),
            next="Check the disk and the permissions there; then run it again: it goes on.",
        ) from None
    return DownloadResult(
        name=name,
        version=version,
        folder=str(place),
        images=len(manifest.images),
        image_bytes=sum(image.size for image in manifest.images),
        written=len(wanted),
        packs=packs,
        seconds=time.monotonic() - began,
    )


def _fetch(workspace: Workspace, images: Sequence[Image], folder: Path) -> int:
    """How many packs were needed."""
    if not images:
        return 0
    by_pack: dict[str, list[Image]] = defaultdict(list)
    for image in images:
        by_pack[image.pack].append(image)
    total = sum(image.size for image in images)
    with (
        spool(workspace.records.cache) as scratch,
        workspace.progress.bar("fetch", total, "bytes") as bar,
        ThreadPoolExecutor(_THREADS, thread_name_prefix="download") as pool,
    ):
        store = workspace.store
        todo = {
            pool.submit(_one, store, pack, members, scratch, folder): members
            for pack, members in by_pack.items()
        }
        try:
            for done in as_completed(todo):
                done.result()
                bar.advance(sum(image.size for image in todo[done]))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return len(by_pack)


def _one(store: Store, pack: str, images: Sequence[Image], scratch: Path, folder: Path) -> None:
    path = scratch / pack
    try:
        store.download(layout.pack_key(pack), path)
    except NotFoundError:
        raise unpack.damaged(pack, "it is missing") from None
    unpack.unpack(path, pack, images, folder)
    path.unlink()
