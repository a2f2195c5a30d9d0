"""What goes wrong with a store, in plain words. Which error that is, and what to do next, is said by the half that asks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto


class Kind(Enum):
    CHANGED = auto()  # the blob is not of the generation that was expected
    MISSING = auto()  # no such blob
    UNREADY = auto()  # the same request may succeed a moment later
    CUT = auto()  # it may, too: no answer came, or half of one
    REFUSED = auto()  # anything else

    NO_ADDRESS = auto()  # the URL of a store is none
    NO_KEY = auto()  # a key is none
    NO_BUCKET = auto()
    NO_LOGIN = auto()  # no credentials, or none that the service knows
    CREDENTIALS_FILE = auto()  # it is none
    FORBIDDEN = auto()  # these credentials lack a role
    NOT_ENABLED = auto()  # the API, in the project

    NO_FILE = auto()  # the rest is about the disk of this computer: nothing to upload
    DENIED = auto()
    FULL = auto()
    IN_THE_WAY = auto()  # something else lies where a folder or a file should be
    DISK = auto()  # anything else


@dataclass(frozen=True)
class Fault:
    kind: Kind
    what: str  # which thing, as a sentence without its stop
    detail: str = ""  # what the service or the system said of it
    place: str = ""  # the bucket, folder or file that it is about


Say = Callable[[Fault], Exception]


def changed(key: str, url: str) -> Fault:
    return Fault(Kind.CHANGED, f"{key} in {url} was written by somebody else meanwhile")


def missing(key: str, url: str) -> Fault:
    return Fault(Kind.MISSING, f"There is no {key} in {url}")


def no_key(error: Exception, url: str) -> Fault:
    return Fault(Kind.NO_KEY, f"The store {url} takes no such key: {error}")
