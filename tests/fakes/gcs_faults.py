"""What goes wrong with the fake Google Cloud Storage, by script."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from tests.fakes.gcs_buckets import Refused

Kind = Literal[
    "401", "403", "408", "410", "429", "500", "503",  # answered instead of doing it
    "503 after",  # done, and then answered with 503
    "reset", "reset after",  # the connection is reset before, or after it was done
    "stall",  # no answer until the client or the server gives up
    "cut", "stall halfway",  # in the middle of the body, of the request or else of the answer: reset, or silence
    "corrupt",  # one bit of the body of a download is wrong
    "corrupt sent",  # one bit of the content of an upload is wrong when it comes
    "other crc32c",  # an upload is answered with a checksum that is not the content's
    "truncate",  # the body ends in the middle, and so does the connection
]  # fmt: skip

_ANSWERS = {
    "401": ("required", "Invalid Credentials"),
    "403": (
        "forbidden",
        "tester@example.org does not have {permission} access. Permission denied on resource.",
    ),
    "408": ("requestTimeout", "Request timeout"),
    "410": ("uploadGone", "The upload session is not known any more."),
    "429": ("rateLimitExceeded", "The object exceeded the rate limit for object mutation operations."),
    "500": ("internalError", "Internal error encountered."),
    "503": ("backendError", "We encountered an internal error. Please try again."),
}


@dataclass
class Fault:
    kind: Kind
    on: str
    path: str
    left: int


class Faults:
    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._faults.append(fault)

    def remove(self, fault: Fault) -> None:
        with self._lock:
            self._faults = [other for other in self._faults if other is not fault]

    def take(self, call: str, path: str) -> Kind | None:
        """The fault that this request meets, which is thereby used up."""
        with self._lock:
            for fault in self._faults:
                if fault.left and fnmatchcase(call, fault.on) and fnmatchcase(path, fault.path):
                    fault.left -= 1
                    return fault.kind
        return None

    def unused(self) -> list[Fault]:
        with self._lock:
            return [fault for fault in self._faults if fault.left]


def answer(kind: str, call: str) -> Refused:
    """The error that stands for "401" ... "503 after"."""
    code = kind.split(maxsplit=1)[0]
    reason, message = _ANSWERS[code]
    return Refused(int(code), reason, message.format(permission=f"storage.{call}"))


def bent(body: bytes) -> bytes:
    """An upload, one bit of whose content is wrong: its last one, before the boundary where there is one."""
    end = body.rfind(b"\r\n--")
    last = (end if end > 0 else len(body)) - 1
    return body[:last] + bytes([body[last] ^ 1]) + body[last + 1 :] if body else body


def misnamed(document: bytes) -> bytes:
    """The resource of an object, with another checksum."""
    return json.dumps(json.loads(document) | {"crc32c": "AAAAAA=="}).encode()
