"""Images that can be used: the file and what it is, in columns where they are many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

import numpy as np

from orchestrator.datasets.checks.judge import Verdict
from orchestrator.datasets.columns.column import Indices
from orchestrator.datasets.columns.hashes import Hashes
from orchestrator.datasets.columns.rows import Form, Rows
from orchestrator.datasets.columns.texts import Blobs
from orchestrator.datasets.columns.words import Words
from orchestrator.datasets.folder.scan import LABELLED, Labelled

VERDICTS = Form(
    Verdict,
    sha256=Hashes,
    extension=Words,
    width=Words,
    height=Words,
    mode=Words,
    orientation=Words,
    pages=Words,
    sample=Words,
    near=Blobs,
    page=Words,
    size=Words,
)


class Checked(NamedTuple):
    """A usable image."""

    file: Labelled
    verdict: Verdict

    @property
    def size(self) -> int:
        """Bytes that travel."""
        return self.verdict.size or self.file.size


@dataclass(frozen=True, eq=False)
class Images(Sequence[Checked]):
    files: Rows[Labelled]
    verdicts: Rows[Verdict]

    @staticmethod
    def of(images: Sequence[Checked]) -> Images:
        """Kept in columns; what already is, stays as it is."""
        if isinstance(images, Images):
            return images
        return Images(
            LABELLED.rows(image.file for image in images), VERDICTS.rows(image.verdict for image in images)
        )

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, at: int) -> Checked: ...
    @overload
    def __getitem__(self, at: slice) -> Images: ...
    def __getitem__(self, at: int | slice) -> Checked | Images:
        if isinstance(at, slice):
            return Images(self.files[at], self.verdicts[at])
        return Checked(self.files[at], self.verdicts[at])

    def __iter__(self) -> Iterator[Checked]:
        return map(Checked, self.files, self.verdicts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def __hash__(self) -> int:
        return len(self)

    def take(self, at: Indices) -> Images:
        """These images, in this order."""
        return Images(self.files.take(at), self.verdicts.take(at))

    def without_fingerprints(self) -> Images:
        """The same images, of which near copies were looked for."""
        return Images(self.files, self.verdicts.but(near=Words.repeated(b"", len(self))))

    def sizes(self) -> Indices:
        """Bytes that travel."""
        codes, sizes = self.verdicts.codes("size")  # 0: not converted
        converted = np.array(sizes, dtype=np.int64)[codes]
        return np.where(converted > 0, converted, self.files.numbers("size"))
