"""Google's other APIs that a project is looked at with: the same login, another host each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from remote.contract.run_spec import StoreRef

from .rest import Rest

Query = Mapping[str, str] | Sequence[tuple[str, str]]


class Services:
    def __init__(self, rest: Rest) -> None:
        self._rest = rest

    def get(self, service: str, path: str, query: Query = (), *, doing: str) -> dict[str, Any]:
        """service     "serviceusage"; `path` below its address: "v1/projects/trees-4711/services:batchGet" """
        return self._rest.outside("GET", self._url(service, path, query), doing=doing)

    def post(self, service: str, path: str, body: Mapping[str, Any], *, doing: str) -> dict[str, Any]:
        return self._rest.outside("POST", self._url(service, path, ()), body=body, doing=doing)

    def patch(
        self, service: str, path: str, query: Query, body: Mapping[str, Any], *, doing: str
    ) -> dict[str, Any]:
        return self._rest.outside("PATCH", self._url(service, path, query), body=body, doing=doing)

    def _url(self, service: str, path: str, query: Query) -> str:
        """A test's server stands for all of them."""
        host = self._rest.endpoint if self._rest.is_elsewhere else f"https://{service}.googleapis.com"
        return f"{host}/{path}" + (f"?{urlencode(query)}" if query else "")


def bucket_of(store: StoreRef) -> str:
    """The bucket's name; "" for a store that is none."""
    return store.url.removeprefix("gs://").partition("/")[0] if store.url.startswith("gs://") else ""


def storage_url(store: StoreRef, path: str, query: Query = ()) -> str:
    host = (store.endpoint or "https://storage.googleapis.com").rstrip("/")
    return f"{host}/storage/v1/{path}" + (f"?{urlencode(query)}" if query else "")
