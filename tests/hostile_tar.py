"""Tar files as somebody hostile may write them: names that lead elsewhere, links, devices, sizes that lie, overlaps."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

_OUTSIDE = "OUTSIDE"  # stands for a folder that exists
_NAMES = (
    "../out",
    "a/../../out",
    "/OUTSIDE/out",
    "OUTSIDE/out",
    "train/a",
    "train/a/0.png",
    ".",
    "..",
    "a\nb",
)
_KINDS = (
    *(tarfile.REGTYPE, tarfile.CONTTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE),
    *(tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.GNUTYPE_SPARSE, tarfile.GNUTYPE_LONGNAME),
)


@dataclass(frozen=True)
class Entry:
    name: str
    kind: bytes
    link: str
    content: bytes
    said_bytes: int  # that the header claims


ENTRIES = st.lists(
    st.builds(
        Entry,
        name=st.sampled_from(_NAMES),
        kind=st.sampled_from(_KINDS),
        link=st.sampled_from(_NAMES),
        content=st.binary(max_size=700),
        said_bytes=st.integers(0, 700) | st.integers(0, 2**40),
    ),
    min_size=1,
    max_size=4,
)
PLACES = st.lists(  # (offset, size) of what a manifest takes out of it
    st.tuples(st.integers(0, 2500), st.integers(0, 1200)), min_size=1, max_size=4
)


def hostile_tar(entries: Sequence[Entry], outside: Path) -> bytes:
    """`outside` is what names and links lead to, besides what is above the folder that it may be unpacked in."""
    packed = b""
    for entry in entries:
        info = tarfile.TarInfo(entry.name.replace(_OUTSIDE, str(outside)))
        info.type, info.size, info.mode = entry.kind, entry.said_bytes, 0o6777
        info.linkname = entry.link.replace(_OUTSIDE, str(outside))
        packed += info.tobuf(tarfile.GNU_FORMAT) + entry.content + bytes(-len(entry.content) % 512)
    return packed
