"""What the fake Google Cloud Storage holds: buckets, objects, generations, preconditions, listings. In memory."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import google_crc32c

_FIRST_GENERATION = 1_700_000_000_000_000


class Refused(Exception):
    """An error answer of the service."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message


@dataclass(frozen=True)
class StoredObject:
    bucket: str
    name: str
    content: bytes
    generation: int
    crc32c: str
    created: str
    fields: Mapping[str, Any]  # what the client said: contentType, metadata ...
    metageneration: int = 1

    def resource(self, base: str) -> dict[str, Any]:
        """The object as the API describes it. `base` is the address under which the client sees the service."""
        path = f"b/{self.bucket}/o/{quote(self.name, safe='')}"
        return {
            "contentType": "application/octet-stream",
            **self.fields,
            "kind": "storage#object",
            "id": f"{self.bucket}/{self.name}/{self.generation}",
            "selfLink": f"{base}/storage/v1/{path}",
            "mediaLink": f"{base}/download/storage/v1/{path}?generation={self.generation}&alt=media",
            "name": self.name,
            "bucket": self.bucket,
            "generation": str(self.generation),
            "metageneration": str(self.metageneration),
            "storageClass": "STANDARD",
            "size": str(len(self.content)),
            "md5Hash": self.md5,
            "crc32c": self.crc32c,
            "etag": base64.b64encode(str(self.generation).encode()).decode(),
            "timeCreated": self.created,
            "updated": self.created,
        }

    @functools.cached_property
    def md5(self) -> str:
        """Of a large object it takes longer than the rest of a request."""
        return base64.b64encode(hashlib.md5(self.content).digest()).decode()


@dataclass
class _Bucket:
    resource: dict[str, Any]
    objects: dict[str, StoredObject] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    items: list[StoredObject]
    prefixes: list[str]
    next_token: str | None


class Buckets:
    """Every call is atomic; all may be made by many threads."""

    def __init__(self, *, page_size: int) -> None:
        self._page_size = page_size
        self._buckets: dict[str, _Bucket] = {}
        self._lock = threading.RLock()
        self._generation = _FIRST_GENERATION

    def create(self, name: str, fields: Mapping[str, Any] | None = None) -> dict[str, Any]:
        with self._lock:
            if name in self._buckets:
                raise Refused(409, "conflict", "Your previous request to create the named bucket succeeded.")
            resource = {
                "storageClass": "STANDARD",
                **(fields or {}),
                "location": str((fields or {}).get("location", "US")).upper(),
                "kind": "storage#bucket",
                "id": name,
                "name": name,
                "metageneration": "1",
                "timeCreated": _now(),
            }
            self._buckets[name] = _Bucket(resource)
            return resource

    def resource(self, name: str) -> dict[str, Any]:
        return self._bucket(name).resource

    def resources(self) -> list[dict[str, Any]]:
        return [self._buckets[name].resource for name in sorted(self._buckets)]

    def patch(self, name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        with self._lock:
            resource = self._bucket(name).resource
            resource.update(fields, metageneration=str(int(resource["metageneration"]) + 1))
            return resource

    def drop(self, name: str) -> None:
        with self._lock:
            if self._bucket(name).objects:
                raise Refused(409, "conflict", "The bucket you tried to delete is not empty.")
            del self._buckets[name]

    def get(self, bucket: str, name: str, query: Mapping[str, str]) -> StoredObject:
        with self._lock:
            found = self._bucket(bucket).objects.get(name)
            wanted = query.get("generation")
            if found is None or (wanted is not None and int(wanted) != found.generation):
                raise Refused(404, "notFound", f"No such object: {bucket}/{name}")
            _check(found, query)
            return found

    def put(
        self, bucket: str, name: str, content: bytes, fields: Mapping[str, Any], query: Mapping[str, str]
    ) -> StoredObject:
        with self._lock:
            self.check(bucket, name, query)
            checksum = crc32c(content)
            if fields.get("crc32c", checksum) != checksum:
                raise Refused(
                    400,
                    "invalid",
                    f'Provided CRC32C "{fields["crc32c"]}" doesn\'t match calculated CRC32C "{checksum}".',
                )
            self._generation += 1
            kept = {key: value for key, value in fields.items() if key not in {"crc32c", "md5Hash", "name"}}
            stored = StoredObject(bucket, name, content, self._generation, checksum, _now(), kept)
            self._bucket(bucket).objects[name] = stored
            return stored

    def check(self, bucket: str, name: str, query: Mapping[str, str]) -> None:
        """Refuse a write that could not be accepted."""
        _check(self._bucket(bucket).objects.get(name), query)
        if not 0 < len(name.encode()) <= 1024 or "\r" in name or "\n" in name or name in {".", ".."}:
            raise Refused(400, "invalid", f"Invalid object name: {name!r}")

    def annotate(
        self, bucket: str, name: str, fields: Mapping[str, Any], query: Mapping[str, str]
    ) -> StoredObject:
        with self._lock:
            old = self.get(bucket, name, query)
            new = StoredObject(
                bucket,
                name,
                old.content,
                old.generation,
                old.crc32c,
                old.created,
                {**old.fields, **fields},
                old.metageneration + 1,
            )
            self._bucket(bucket).objects[name] = new
            return new

    def delete(self, bucket: str, name: str, query: Mapping[str, str]) -> None:
        with self._lock:
            self.get(bucket, name, query)
            del self._bucket(bucket).objects[name]

    def page(self, bucket: str, query: Mapping[str, str]) -> Page:
        """One page: objects and prefixes together, in the order of their names, at most `maxResults`."""
        with self._lock:
            objects = self._bucket(bucket).objects
            after = base64.urlsafe_b64decode(query["pageToken"]).decode() if query.get("pageToken") else ""
            limit = min(int(query.get("maxResults", self._page_size)), self._page_size)
            page, more = Page([], [], None), False
            last = ""
            for name, is_prefix in _names(sorted(objects), query):
                if name <= after:
                    continue
                if len(page.items) + len(page.prefixes) == limit:
                    more = True
                    break
                last = name
                if is_prefix:
                    page.prefixes.append(name)
                else:
                    page.items.append(objects[name])
            token = base64.urlsafe_b64encode(last.encode()).decode() if more else None
            return Page(page.items, page.prefixes, token)

    def _bucket(self, name: str) -> _Bucket:
        if name not in self._buckets:
            raise Refused(404, "notFound", "The specified bucket does not exist.")
        return self._buckets[name]


def _names(names: list[str], query: Mapping[str, str]) -> Iterator[tuple[str, bool]]:
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
    glob = _glob(query["matchGlob"]) if "matchGlob" in query else None
    seen = set()
    for name in names:
        if not name.startswith(prefix) or name < query.get("startOffset", ""):
            continue
        if ("endOffset" in query and name >= query["endOffset"]) or (glob and not glob.fullmatch(name)):
            continue
        head, found, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
        if not found:
            yield name, False
        elif (folder := prefix + head + found) not in seen:
            seen.add(folder)
            yield folder, True


def _check(found: StoredObject | None, query: Mapping[str, str]) -> None:
    generation = found.generation if found else 0
    metageneration = found.metageneration if found else 0
    failed = (
        int(query.get("ifGenerationMatch", generation)) != generation
        or int(query.get("ifMetagenerationMatch", metageneration)) != metageneration
        or query.get("ifGenerationNotMatch") == str(generation)
        or query.get("ifMetagenerationNotMatch") == str(metageneration)
    )
    if failed:
        raise Refused(
            412, "conditionNotMet", "At least one of the pre-conditions you specified did not hold."
        )


def _glob(pattern: str) -> re.Pattern[str]:
    parts = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile(
        "".join(parts.get(part, re.escape(part)) for part in re.split(r"(\*\*|\*|\?)", pattern)), re.DOTALL
    )


def crc32c(content: bytes) -> str:
    """As the service writes it."""
    return base64.b64encode(google_crc32c.Checksum(content).digest()).decode()


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
