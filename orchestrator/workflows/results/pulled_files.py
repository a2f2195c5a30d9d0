"""What a MANIFEST.json becomes on this computer: somebody else's word, of which only what a result can be is taken."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from remote.contract import layout
from remote.contract.document import ContractError
from remote.contract.run_status import ResultFile, ResultManifest

FILES_MAX = 10_000
DEPTH_MAX = 8
NAME_BYTES_MAX = 200  # file systems take 255, and a name may become longer while it is written
STREAMS = {"log": "log.txt", "events": "events.jsonl"}  # segments in the store, one file here
_SEGMENT = re.compile(r"(log|events)/([0-9]{16})")


@dataclass(frozen=True)
class LocalFile:
    """One file of the result here, made of one blob, or of the segments of a stream in order."""

    path: str  # below the folder
    parts: list[ResultFile]

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)


def local_files(manifest: ResultManifest, run_id: str) -> list[LocalFile]:
    """What the manifest becomes here. ContractError when it asks for anything that a result never is."""
    if manifest.run_id != run_id:
        raise ContractError(f"MANIFEST.json is of the run {manifest.run_id[:80]!r}")
    if len(manifest.files) > FILES_MAX:
        raise ContractError(f"MANIFEST.json names {len(manifest.files)} files, more than {FILES_MAX}")
    parts: dict[str, list[ResultFile]] = {}
    for file in manifest.files:
        layout.inside(file.path)
        layout.sha256(file.sha256)
        if file.size < 0 or not _is_plain(file.path):
            raise ContractError(f"MANIFEST.json: {file.path[:80]!r} is no file of a result")
        parts.setdefault(_local_path(file.path), []).append(file)
    files = [LocalFile(path, _in_order(path, segments)) for path, segments in sorted(parts.items())]
    _refuse_collisions([file.path for file in files])
    return files


def _is_plain(path: str) -> bool:
    """A name that any file system takes, that hides nothing, and that no terminal obeys."""
    names = path.split("/")
    return (
        path.isprintable()  # which halves of characters, controls and marks that reorder a line are not
        and len(names) <= DEPTH_MAX
        and all(not name.startswith(".") and len(name.encode()) <= NAME_BYTES_MAX for name in names)
    )


def _local_path(path: str) -> str:
    segment = _SEGMENT.fullmatch(path)
    return STREAMS[segment[1]] if segment else path


def _in_order(path: str, parts: list[ResultFile]) -> list[ResultFile]:
    ordered = sorted(parts, key=lambda part: part.path)
    if path not in STREAMS.values():
        if len(parts) > 1:
            raise ContractError(f"MANIFEST.json names {path[:80]!r} twice")
        return ordered
    position = 0
    for part in ordered:
        segment = _SEGMENT.fullmatch(part.path)
        if segment is None or int(segment[2]) != position:
            raise ContractError(f"MANIFEST.json: {part.path[:80]!r} does not begin where the one before ends")
        position += part.size
    return ordered


def _refuse_collisions(paths: list[str]) -> None:
    """Two names that a file system may take for one, or a file where another needs a folder."""
    names = {_folded(path) for path in paths}
    if len(names) < len(paths):
        raise ContractError("MANIFEST.json names two files that a file system may take for one")
    for name in names:
        above = name.split("/")[:-1]
        if any("/".join(above[:depth]) in names for depth in range(1, len(above) + 1)):
            raise ContractError(f"MANIFEST.json: {name[:80]!r} lies below a file")


def _folded(path: str) -> str:
    """Without what some file systems do not see: large letters, and how an accent is written."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
