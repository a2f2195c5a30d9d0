"""The versions that an upload builds on: the newest, and the one that this folder held before."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.datasets.columns.images import IMAGES
from orchestrator.datasets.folder.remembered import Remembered
from orchestrator.datasets.publishing import versions
from orchestrator.datasets.publishing.merge import Held, same_images
from orchestrator.datasets.publishing.plan import Base
from orchestrator.datasets.publishing.versions import Head
from orchestrator.errors import DataError, NotFoundError
from orchestrator.progress import Progress
from orchestrator.stores.base import Store
from remote.contract.dataset_manifest import DatasetManifest


@dataclass(frozen=True)
class Seen:
    """What this folder held when it was last uploaded."""

    version: str
    differing: Mapping[str, str | None]  # by path: the hash of what it held instead


class Basis:
    """Of one dataset.

    seen            what the folder held; None: it was never uploaded from here
    replace         what can't be read counts as nothing, and the user is told; else DataError, NotFoundError
    """

    def __init__(
        self,
        store: Store,
        dataset: str,
        seen: Seen | None,
        remembered: Remembered,
        progress: Progress,
        *,
        replace: bool,
    ) -> None:
        self._store = store
        self._dataset = dataset
        self._seen = seen
        self._remembered = remembered
        self._progress = progress
        self._replace = replace

    def remembered_head(self) -> Head:
        """HEAD, with one request where nobody published since the last upload."""
        last = self._remembered.last()
        return self.head(last.head if last else None)

    def head(self, known: Head | None = None) -> Head:
        """As `versions.read_head`."""
        head = versions.read_head(self._store, self._dataset, known=known, may_be_damaged=self._replace)
        if head.is_damaged:
            self._progress.warn(f"HEAD of {self._dataset} can't be read: replaced by what this folder holds")
        return head

    def base(self, version: str) -> Base | None:
        """What an upload adds to, where `version` is the newest; None where there is nothing."""
        if not version:
            return None
        try:
            newest = self._load(version)
        except (DataError, NotFoundError) as error:
            if not self._replace:
                raise
            self._progress.warn(f"{error.what}: replaced by what this folder holds")
            return None
        if self._seen is None:
            return Base(newest, None, moved=True)
        if self._seen.version == version:
            return Base(newest, Held(IMAGES.rows(newest.images), self._seen.differing), moved=False)
        try:
            before = self._load(self._seen.version)
        except (DataError, NotFoundError):  # that version is gone: this folder is a stranger
            return Base(newest, None, moved=True)
        held = Held(IMAGES.rows(before.images), self._seen.differing)
        return Base(newest, held, moved=not same_images(before, newest))

    def _load(self, version: str) -> DatasetManifest:
        """From the copy that is here, else from the store."""
        copy = self._remembered.manifest(version)
        if copy is not None:
            return copy
        found = versions.load_manifest(self._store, self._dataset, version)
        in_order = sorted(found.images, key=operator.attrgetter("path"))
        return dataclasses.replace(found, images=IMAGES.rows(in_order))
