"""A file from the web: whole and with the right hash, or not at all; a cut one goes on where it stopped."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

from orchestrator.progress import Progress
from orchestrator.weights.files import sha256_of

_TRIES = 3
_SILENCE_S = 30
_CHUNK_BYTES = 64 * 1024  # what a cut may lose
_BYTES_MAX = 8 * 1024**3  # the largest of torchvision has 2.6 GB


class DownloadFailed(Exception):
    """Why, for people."""


class _Cut(Exception):
    """The connection ended or fell silent in the middle: what has come is kept, the rest may be asked for."""


def download(
    url: str,
    path: Path,
    *,
    sha256_prefix: str,
    progress: Progress,
    connect_timeout_s: float,
    limit_s: float | None = None,
) -> str:
    """Fetch `url` into `path`, which appears with its hash verified; returns the whole sha256.

    limit_s           give up after this time; what has come stays beside `path` for the next attempt
    DownloadFailed    refused, not there, cut again and again, too slow, or not the file it should be
    """
    ends = time.monotonic() + limit_s if limit_s is not None else float("inf")
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path.with_name(f".{path.name}.lock"), progress):
            if path.is_file() and sha256_of(path).startswith(sha256_prefix):
                return sha256_of(path)  # another process brought it while this one waited
            went_on = part.exists()
            digest = _complete(url, part, progress, connect_timeout_s, ends)
            if went_on and not digest.startswith(sha256_prefix):  # the older part was of another file
                part.unlink()
                digest = _complete(url, part, progress, connect_timeout_s, ends)
            if not digest.startswith(sha256_prefix):
                part.unlink()
                raise DownloadFailed(
                    f"What came is not that file: sha256 {digest[:8]}, not {sha256_prefix[:8]}."
                )
            part.replace(path)
    except OSError as error:
        raise DownloadFailed(f"It can't be kept in {path.parent}: {error.strerror or error}.") from None
    return digest


@contextlib.contextmanager
def _alone(lock: Path, progress: Progress) -> Iterator[None]:
    """One process at a time; a crash frees the lock."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.say("weights", "another tlvm is downloading this file: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _complete(url: str, part: Path, progress: Progress, connect_timeout_s: float, ends: float) -> str:
    """Bring `part` to its full length; returns its sha256."""
    for left in reversed(range(_TRIES)):
        try:
            _append(url, part, progress, connect_timeout_s, ends)
            break
        except _Cut as cut:
            if not left:
                raise DownloadFailed(f"Cut {_TRIES} times, the last time: {cut}.") from None
    return sha256_of(part)


def _append(url: str, part: Path, progress: Progress, connect_timeout_s: float, ends: float) -> None:
    import requests  # brings its own certificates, which urllib lacks on some Macs

    start = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        answer = requests.get(url, headers=headers, stream=True, timeout=(connect_timeout_s, _SILENCE_S))
    except requests.RequestException as error:
        raise DownloadFailed(_reason(error)) from None
    with answer:
        if start and answer.status_code == requests.codes.requested_range_not_satisfiable:
            return  # nothing is left to fetch; the hash tells whether that is true
        if answer.status_code not in (requests.codes.ok, requests.codes.partial):
            raise DownloadFailed(f"The server answered {answer.status_code} {answer.reason}.")
        if answer.status_code == requests.codes.ok:
            start = 0  # a server that can't begin in the middle
        total = start + int(answer.headers.get("Content-Length", 0))
        try:
            with part.open("ab" if start else "wb") as file, progress.bar("weights", total, "bytes") as bar:
                bar.advance(start)
                for chunk in answer.iter_content(_CHUNK_BYTES):
                    file.write(chunk)
                    bar.advance(len(chunk))
                    if file.tell() > _BYTES_MAX:
                        raise DownloadFailed(f"More than {_BYTES_MAX} bytes came.")
                    if time.monotonic() > ends:
                        raise DownloadFailed(
                            "It took too long; the next attempt goes on where this one stopped."
                        )
        except requests.RequestException as error:
            raise _Cut(_reason(error)) from None


def _reason(error: Exception) -> str:
    """The innermost cause: what requests itself says is a chain of representations."""
    text = str(error)
    for known, plain in (
        ("resolve", "the name of the server is unknown: no internet access here?"),
        ("refused", "the connection was refused"),
        ("timed out", "no answer came in time"),
        ("CERTIFICATE", "the server's certificate is not trusted"),
        ("IncompleteRead", "the connection was cut"),
    ):
        if known in text:
            return plain
    return text[:300]
