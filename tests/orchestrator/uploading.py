"""Uploads in tests: computers that share one store, and a store that tells what was asked of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from orchestrator.config import load
from orchestrator.errors import TransientError
from orchestrator.stores import open_store
from orchestrator.stores.base import FREE, Begun, Blob, Store, Way
from orchestrator.workflows.data.upload import UploadResult, upload
from orchestrator.workflows.workspace import Workspace
from remote.contract.run_spec import StoreRef

BUGS = {"train/ants": 4, "train/bees": 3, "val/ants": 2, "val/bees": 2}


class _Broke(Exception):
    """The wire."""


class Recorded:
    """A store that counts uploads, and breaks before the one it is told to."""

    def __init__(self, store: Store) -> None:
        self.url = store.url
        self._store = store
        self.uploads: list[str] = []
        self.reads: list[str] = []
        self.break_before: int | None = None

    def get(self, key: str) -> Blob | None:
        self.reads.append(key)
        return self._store.get(key)

    def blobs(self, prefix: str, *, delimiter: str | None = None, match: str | None = None) -> Iterator[Blob]:
        self.reads.append(prefix)
        return self._store.blobs(prefix, delimiter=delimiter, match=match)

    def folders(self, prefix: str) -> Iterator[str]:
        self.reads.append(prefix)
        return self._store.folders(prefix)

    def upload(self, path: Path, key: str, *, if_generation: int | None = None, way: Way = FREE) -> Blob:
        def sends() -> None:
            way.gate()
            if len(self.uploads) == self.break_before:
                raise _Broke
            self.uploads.append(key)

        try:
            return self._store.upload(path, key, if_generation=if_generation, way=replace(way, gate=sends))
        except _Broke:  # here, where it is not tried again
            raise TransientError("the wire broke") from None

    def download(self, key: str, path: Path, *, start: int = 0, begun: Begun | None = None) -> None:
        self.reads.append(key)
        self._store.download(key, path, start=start, begun=begun)

    def delete(self, key: str, *, if_generation: int | None = None) -> None:
        self._store.delete(key, if_generation=if_generation)


def place(tmp_path: Path, computer: str = "one") -> tuple[Workspace, Recorded]:
    """A workspace of one computer; all share the store of this test."""
    workspace = Workspace(load({}, environ={"TLVM_DATA_DIR": str(tmp_path / computer)}, folder=tmp_path))
    store = Recorded(open_store(StoreRef(str(tmp_path / "store"))))
    workspace.store = store
    return workspace, store


def one(
    workspace: Workspace,
    folder: Path,
    *,
    check_only: bool = False,
    replace: bool = False,
    verify: bool = False,
    allow_shrink: bool = False,
) -> UploadResult:
    (result,) = upload(
        workspace, folder, check_only=check_only, replace=replace, verify=verify, allow_shrink=allow_shrink
    )
    return result
