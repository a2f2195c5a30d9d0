"""The calls of the fake Google Cloud Storage: one function a method of the API, from a request to an answer."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.fakes.discovery import Call, Unexpected, discovery
from tests.fakes.gcs_buckets import Buckets, Refused, StoredObject
from tests.fakes.gcs_uploads import Session, Sessions, split_multipart
from tests.fakes.http_service import Answer


@dataclass(frozen=True)
class Request:
    verb: str
    area: str  # "json", "upload" or "download"
    path: str  # below the area, still encoded
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    base: str  # the address under which the client sees us


class Api:
    def __init__(self, *, page_size: int) -> None:
        self.buckets = Buckets(page_size=page_size)
        self.refused_permissions: set[str] = set()
        self.policies: dict[str, dict[str, Any]] = {}  # of buckets
        self._sessions = Sessions()
        self._discovery = discovery("storage.v1")
        self._methods: dict[str, Callable[[Call, Request], Answer]] = {
            "buckets.insert": self._insert_bucket,
            "buckets.list": self._list_buckets,
            "buckets.get": self._get_bucket,
            "buckets.patch": self._patch_bucket,
            "buckets.delete": self._delete_bucket,
            "buckets.getStorageLayout": self._layout,
            "buckets.testIamPermissions": self._test_permissions,
            "buckets.getIamPolicy": self._get_policy,
            "buckets.setIamPolicy": self._set_policy,
            "objects.list": self._list,
            "objects.get": self._get,
            "objects.download": self._download,
            "objects.patch": self._patch,
            "objects.delete": self._delete,
            "objects.compose": self._compose,
            "objects.rewrite": self._rewrite,
            "objects.insert": self._insert,
            "objects.insert.start": self._start,
            "objects.insert.chunk": self._chunk,
        }

    def recognise(self, request: Request) -> Call:
        """Which call it is. `objects.download`, `objects.insert.start` and `.chunk` are names of ours."""
        upload = request.area == "upload"
        verb = "POST" if upload and request.verb == "PUT" else request.verb
        more = {"upload_id"} if upload else set()
        call = self._discovery.call(verb, request.path, request.query, more=more)
        if upload and "upload_id" in call.query:
            return Call("objects.insert.chunk", call.path, call.query)
        if upload and call.query.get("uploadType") == "resumable":
            return Call("objects.insert.start", call.path, call.query)
        if call.name == "objects.get" and call.query.get("alt") == "media":
            return Call("objects.download", call.path, call.query)
        return call

    def perform(self, call: Call, request: Request) -> Answer:
        method = self._methods.get(call.name)
        if method is None:
            raise Unexpected(501, f"this fake does not know {call.name}")
        answer = method(call, request)
        if "fields" in call.query and answer.body and call.name != "objects.download":
            body = _select(json.loads(answer.body), call.query["fields"])
            return Answer(answer.code, answer.headers, json.dumps(body).encode())
        return answer

    def _insert_bucket(self, call: Call, request: Request) -> Answer:
        fields = self._document(call, request.body)
        return _json(self.buckets.create(fields["name"], fields))

    def _list_buckets(self, call: Call, request: Request) -> Answer:
        return _json({"kind": "storage#buckets", "items": self.buckets.resources()})

    def _get_bucket(self, call: Call, request: Request) -> Answer:
        return _json(self.buckets.resource(call.path["bucket"]))

    def _patch_bucket(self, call: Call, request: Request) -> Answer:
        return _json(self.buckets.patch(call.path["bucket"], self._document(call, request.body)))

    def _delete_bucket(self, call: Call, request: Request) -> Answer:
        self.buckets.drop(call.path["bucket"])
        return Answer(204)

    def _layout(self, call: Call, request: Request) -> Answer:
        resource = self.buckets.resource(call.path["bucket"])
        layout = {"bucket": call.path["bucket"], "location": resource["location"]}
        return _json({"kind": "storage#storageLayout", "hierarchicalNamespace": {"enabled": False}, **layout})

    def _test_permissions(self, call: Call, request: Request) -> Answer:
        self.buckets.resource(call.path["bucket"])
        held = [name for name in request.query["permissions"] if name not in self.refused_permissions]
        return _json({"kind": "storage#testIamPermissionsResponse", "permissions": held})

    def _get_policy(self, call: Call, request: Request) -> Answer:
        self.buckets.resource(call.path["bucket"])
        if "storage.buckets.getIamPolicy" in self.refused_permissions:
            raise Refused(
                403, "forbidden", "tester@example.org does not have storage.buckets.getIamPolicy access."
            )
        empty = {"kind": "storage#policy", "version": 1, "etag": "CAE="}
        return _json(self.policies.get(call.path["bucket"], empty))

    def _set_policy(self, call: Call, request: Request) -> Answer:
        sent = self._document(call, request.body)
        current = json.loads(self._get_policy(call, request).body)
        if sent.get("etag", current["etag"]) != current["etag"]:
            raise Refused(
                412, "conditionNotMet", "At least one of the pre-conditions you specified did not hold."
            )
        conditions = any("condition" in binding for binding in sent.get("bindings", []))
        if conditions and sent.get("version") != 3:
            raise Refused(400, "invalid", "Policies with conditions must have version 3.")
        sent["etag"] = hashlib.sha256(str(current).encode()).hexdigest()[:8]  # hex is base64, too
        self.policies[call.path["bucket"]] = {"kind": "storage#policy", **sent}
        return _json(self.policies[call.path["bucket"]])

    def _list(self, call: Call, request: Request) -> Answer:
        page = self.buckets.page(call.path["bucket"], call.query)
        body: dict[str, Any] = {"kind": "storage#objects"}
        if page.items:
            body["items"] = [found.resource(request.base) for found in page.items]
        if page.prefixes:
            body["prefixes"] = page.prefixes
        if page.next_token:
            body["nextPageToken"] = page.next_token
        return _json(body)

    def _get(self, call: Call, request: Request) -> Answer:
        return _json(self._found(call).resource(request.base))

    def _download(self, call: Call, request: Request) -> Answer:
        found = self._found(call)
        size = len(found.content)
        resource = found.resource(request.base)
        headers = {
            "Content-Type": str(resource["contentType"]),
            "X-Goog-Hash": f"crc32c={found.crc32c},md5={resource['md5Hash']}",
            "X-Goog-Generation": str(found.generation),
            "X-Goog-Metageneration": str(found.metageneration),
            "X-Goog-Stored-Content-Length": str(size),
            "X-Goog-Stored-Content-Encoding": "identity",
            "Accept-Ranges": "bytes",
        }
        if "range" not in request.headers:
            return Answer(200, headers, found.content)
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers["range"])
        if match is None or int(match[1]) >= size:
            raise Refused(416, "requestedRangeNotSatisfiable", "Request range not satisfiable")
        first, last = int(match[1]), min(int(match[2] or size - 1), size - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        return Answer(206, headers, found.content[first : last + 1])

    def _patch(self, call: Call, request: Request) -> Answer:
        fields = self._document(call, request.body)
        patched = self.buckets.annotate(call.path["bucket"], call.path["object"], fields, call.query)
        return _json(patched.resource(request.base))

    def _delete(self, call: Call, request: Request) -> Answer:
        self.buckets.delete(call.path["bucket"], call.path["object"], call.query)
        return Answer(204)

    def _compose(self, call: Call, request: Request) -> Answer:
        document = self._document(call, request.body)
        bucket = call.path["destinationBucket"]
        content = b"".join(
            self.buckets.get(bucket, source["name"], {}).content for source in document["sourceObjects"]
        )
        fields = document.get("destination", {})
        made = self.buckets.put(bucket, call.path["destinationObject"], content, fields, call.query)
        return _json(made.resource(request.base))

    def _rewrite(self, call: Call, request: Request) -> Answer:
        source = self.buckets.get(call.path["sourceBucket"], call.path["sourceObject"], {})
        target = call.path["destinationBucket"], call.path["destinationObject"]
        made = self.buckets.put(*target, source.content, source.fields, call.query)
        size = str(len(source.content))
        return _json(
            {
                "kind": "storage#rewriteResponse",
                "done": True,
                "objectSize": size,
                "totalBytesRewritten": size,
                "resource": made.resource(request.base),
            }
        )

    def _insert(self, call: Call, request: Request) -> Answer:
        content_type = request.headers.get("content-type", "")
        if call.query.get("uploadType") == "multipart":
            fields, part_type, content = split_multipart(content_type, request.body)
            self._discovery.check_body(call, fields)
            fields.setdefault("contentType", part_type)
        elif call.query.get("uploadType") == "media":
            fields, content = {"name": call.query.get("name"), "contentType": content_type}, request.body
        else:
            raise Unexpected(400, "objects.insert without a usable uploadType")
        return self._stored(call.path["bucket"], content, fields, call.query, request)

    def _start(self, call: Call, request: Request) -> Answer:
        fields = self._document(call, request.body, method="objects.insert") if request.body else {}
        fields.setdefault("name", call.query.get("name"))
        fields.setdefault("contentType", request.headers.get("x-upload-content-type", ""))
        bucket = call.path["bucket"]
        self.buckets.check(bucket, fields["name"], call.query)
        identifier = self._sessions.open(Session(bucket, fields, call.query))
        address = f"{request.base}/upload/storage/v1/b/{bucket}/o"
        return Answer(200, {"Location": f"{address}?uploadType=resumable&upload_id={identifier}"})

    def _chunk(self, call: Call, request: Request) -> Answer:
        session = self._sessions.get(call.query["upload_id"])
        if isinstance(session.made, Answer):  # asked again, since the answer was lost
            return session.made
        if not session.take(request.headers.get("content-range"), request.body):
            received = len(session.received)
            return Answer(308, {"Range": f"bytes=0-{received - 1}"} if received else {})
        answer = self._stored(session.bucket, bytes(session.received), session.fields, session.query, request)
        session.made = answer
        return answer

    def keep(self, call: Call, body: bytes) -> None:
        """What came of a request that broke off."""
        if call.name == "objects.insert.chunk":
            self._sessions.get(call.query["upload_id"]).keep(body)

    def _stored(
        self,
        bucket: str,
        content: bytes,
        fields: Mapping[str, Any],
        query: Mapping[str, str],
        request: Request,
    ) -> Answer:
        name = fields.get("name") or query.get("name")
        if not name:
            raise Refused(400, "required", "Required")
        made = self.buckets.put(bucket, name, content, fields, query)
        return _json(made.resource(request.base))

    def _found(self, call: Call) -> StoredObject:
        return self.buckets.get(call.path["bucket"], call.path["object"], call.query)

    def _document(self, call: Call, body: bytes, *, method: str | None = None) -> dict[str, Any]:
        try:
            document = json.loads(body)
        except ValueError:
            raise Refused(400, "parseError", "Parse Error") from None
        self._discovery.check_body(Call(method or call.name, {}, {}), document)
        assert isinstance(document, dict)
        return document


def _json(document: Mapping[str, Any]) -> Answer:
    return Answer(200, {"Content-Type": "application/json; charset=UTF-8"}, json.dumps(document).encode())


def _select(document: Any, fields: str) -> Any:
    """The partial response that `fields` asks for: "items(name,size),nextPageToken"; "a/b" is "a(b)"."""
    if isinstance(document, list):
        return [_select(entry, fields) for entry in document]
    if not isinstance(document, dict) or fields == "*":
        return document
    wanted: dict[str, list[str]] = {}
    for name, below in _split(fields):
        wanted.setdefault(name, []).append(below or "*")
    if "*" in wanted:
        return document
    return {
        name: _select(document[name], "*" if "*" in below else ",".join(below))
        for name, below in wanted.items()
        if name in document
    }


def _split(fields: str) -> list[tuple[str, str]]:
    """ "a,b(c,d),e/f,e/g" as [("a", ""), ("b", "c,d"), ("e", "f"), ("e", "g")]."""
    parts: list[tuple[str, str]] = []
    depth, part = 0, ""
    for character in [*fields, ","]:
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            name, _, below = re.sub(r"\((.*)\)$", r"/\1", part.strip(), flags=re.DOTALL).partition("/")
            parts.append((name, below))
            part = ""
        else:
            part += character
    return parts
