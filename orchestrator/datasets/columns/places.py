"""Where contents are in the store: in which pack, at which byte."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from orchestrator.datasets.columns.column import Indices
from orchestrator.datasets.columns.hashes import Digests, Hashes, Lookup, digests, is_among
from orchestrator.datasets.columns.numbers import Numbers
from orchestrator.datasets.columns.rows import Form, Rows
from orchestrator.datasets.columns.words import Words
from remote.contract.dataset_manifest import Image


class Located(NamedTuple):
    sha256: str
    pack: str
    offset: int


LOCATED = Form(Located, sha256=Hashes, pack=Words, offset=Numbers)


class Places:
    """Found by content hash. Of a content that was given twice, the first place counts."""

    def __init__(self, rows: Rows[Located]) -> None:
        self.rows = rows
        self._by_hash = Lookup(rows.hashes("sha256"))

    @staticmethod
    def of(images: Rows[Image]) -> Places:
        """Those of a version, but for images that are in no pack yet."""
        return Places(Rows(LOCATED, images.columns)).without({""})

    def find(self, hashes: Digests) -> Indices:
        """The row of each content; -1 where it is in no pack."""
        return self._by_hash.find(hashes)

    def __contains__(self, sha256: str) -> bool:
        return bool(len(self.rows) and self.find(digests([sha256]))[0] >= 0)

    def before(self, others: Places) -> Places:
        """These, and what only others know."""
        if not len(others.rows):
            return self
        return Places(self.rows.joined(others.rows)) if len(self.rows) else others

    def without(self, packs: Collection[str]) -> Places:
        codes, names = self.rows.codes("pack")
        gone = [code for code, name in enumerate(names) if name in packs]
        return self._but(np.isin(codes, gone)) if gone else self

    def without_contents(self, hashes: Collection[str]) -> Places:
        return self._but(is_among(self.rows.hashes("sha256"), digests(hashes))) if hashes else self

    def _but(self, gone: NDArray[np.bool_]) -> Places:
        return Places(self.rows.take(np.flatnonzero(~gone)))


NOWHERE = Places(LOCATED.rows())
