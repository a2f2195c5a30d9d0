"""Uploads to the fake Google Cloud Storage: bodies of several parts, and bodies that come in several requests."""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.gcs_buckets import Refused

CHUNK_UNIT_BYTES = 256 * 1024


def split_multipart(content_type: str, body: bytes) -> tuple[dict[str, Any], str, bytes]:
    """Metadata, content type and content of a multipart/related upload.

    gcloud ends its lines with a bare LF and puts the boundary in single quotes; the service takes both, so do we.
    """
    match = re.search(r"""boundary=(?:"([^"]+)"|'([^']+)'|([^;\s]+))""", content_type)
    if match is None:
        raise Refused(400, "badContent", "Missing multipart boundary")
    boundary = b"--" + next(group for group in match.groups() if group).encode()
    newline = b"\r\n" if body.startswith(boundary + b"\r\n") else b"\n"
    if not body.startswith(boundary + newline):
        raise Refused(400, "badContent", "Malformed multipart body.")
    # The content may hold anything, the boundary aside: cut at the first two and at the last one.
    _, metadata, rest = body.split(boundary + newline, 2)
    content = rest[: rest.rindex(newline + boundary + b"--")]
    _, document = _part(metadata, newline)
    headers, data = _part(content, newline)
    try:
        fields = json.loads(document)
    except ValueError:
        raise Refused(400, "parseError", "The metadata is not JSON.") from None
    return fields, headers.get("content-type", "application/octet-stream"), data


def _part(part: bytes, newline: bytes) -> tuple[dict[str, str], bytes]:
    head, _, data = part.partition(newline * 2)
    pairs = (line.split(":", 1) for line in head.decode().splitlines() if ":" in line)
    return {name.strip().lower(): value.strip() for name, value in pairs}, data


@dataclass
class Session:
    """One resumable upload."""

    bucket: str
    fields: Mapping[str, Any]
    query: Mapping[str, str]
    received: bytearray = field(default_factory=bytearray)
    made: Any = None  # the answer that ended it

    def take(self, content_range: str | None, body: bytes) -> bool:
        """Keep what a request brought; True when that was the last of it."""
        if content_range is None:
            self.received += body
            return True
        match = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", content_range)
        if match is None:
            raise Refused(400, "badRequest", f"Bad Content-Range: {content_range}")
        first, last, total = match.groups()
        if first is not None:
            if int(first) != len(self.received) or int(last) - int(first) + 1 != len(body):
                raise Refused(
                    400, "badRequest", f"{content_range} does not follow {len(self.received)} bytes"
                )
            is_end = total != "*" and int(last) + 1 == int(total)
            if not is_end and len(body) % CHUNK_UNIT_BYTES:
                raise Refused(400, "badRequest", f"a chunk of {len(body)} bytes is no multiple of 256 KiB")
            self.received += body
        return total != "*" and len(self.received) == int(total)

    def keep(self, body: bytes) -> None:
        """Of a request that broke off: as much as the service keeps."""
        self.received += body[: len(body) // CHUNK_UNIT_BYTES * CHUNK_UNIT_BYTES]


class Sessions:
    """The resumable uploads that are under way, and what became of those that ended."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def open(self, session: Session) -> str:
        identifier = secrets.token_hex(16)
        with self._lock:
            self._sessions[identifier] = session
        return identifier

    def get(self, identifier: str) -> Session:
        with self._lock:
            if identifier not in self._sessions:
                raise Refused(404, "notFound", "No such upload.")
            return self._sessions[identifier]
