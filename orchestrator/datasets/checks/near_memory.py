"""What this computer remembers of near copies in a folder. Deleting it changes only time."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.datasets.checks.signature import FINGERPRINT
from orchestrator.datasets.columns import kept
from orchestrator.datasets.columns.hashes import Digests, Hashes, digests, is_among

_FORM = f"near copies 6, fingerprint {FINGERPRINT}"


@dataclass(frozen=True)
class Compared:
    contents: Digests  # compared with each other; sorted
    searched: bool  # all of them
    errors: Mapping[tuple[str, str], float]  # of the pairs whose pixels were compared

    def among(self, contents: Digests) -> dict[tuple[str, str], float]:
        """The errors of pairs of these contents."""
        ends = digests(sha256 for pair in self.errors for sha256 in pair)
        held = is_among(ends, contents)
        both = (held[::2] & held[1::2]).tolist()
        return {pair: error for (pair, error), here in zip(self.errors.items(), both, strict=True) if here}


def load(folder: Path | None, root: Path) -> Compared:
    pieces = kept.read(_place(folder, root), form=_FORM)
    if pieces is None:
        return Compared(digests([]), searched=True, errors={})
    contents, searched, errors = pieces
    return Compared(Hashes.again(contents).array(), searched, errors)


def keep(folder: Path | None, root: Path, compared: Compared) -> None:
    place = _place(folder, root)
    if place is not None:
        pieces = (compared.contents.tobytes(), compared.searched, dict(compared.errors))
        kept.write(place, pieces, form=_FORM)


def _place(folder: Path | None, root: Path) -> Path | None:
    return folder / f"near-{hashlib.sha256(os.fsencode(root)).hexdigest()[:32]}" if folder else None
