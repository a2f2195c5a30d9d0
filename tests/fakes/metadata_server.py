"""The metadata server of one machine of the fake Compute Engine: what it is told, and where it answers.

On an address of its own (GCE_METADATA_HOST), as nobody can be asked to bind 169.254.169.254. It refuses requests
without `Metadata-Flavor: Google`, and `wait_for_change=true` is answered when something changed.
"""

from __future__ import annotations

import json
import time
import zlib
from typing import Any
from urllib.parse import parse_qs, unquote

from tests.fakes.compute_cloud import NUMBER, Cloud, items
from tests.fakes.compute_instances import Instances
from tests.fakes.credentials import TOKEN
from tests.fakes.http_service import Answer, Drop, HttpService, Incoming, whole

_ROOT = "/computeMetadata/v1/"
_FLAVOUR = {"Metadata-Flavor": "Google", "Server": "Metadata Server for VM"}

Tree = dict[str, Any]  # of texts


class MetadataServer:
    """Running from `start` to `stop`; `host` is what GCE_METADATA_HOST is set to."""

    def __init__(self, cloud: Cloud, instances: Instances, id: str, address: str = "127.0.0.1") -> None:
        self.cloud = cloud
        self.instances = instances
        self.id = id
        self.requests: list[str] = []
        self._service = HttpService(whole(self._serve), (address,))
        self.errors = self._service.errors
        self.host = f"{address}:{self._service.port}"

    def start(self) -> None:
        self._service.start()

    def stop(self) -> None:
        self._service.stop()

    def _serve(self, request: Incoming) -> Answer:
        self.requests.append(f"{request.method} {request.path}")
        if request.path == "/":  # how google-auth finds out that it is on a machine of Google's
            return Answer(200, _FLAVOUR, b"computeMetadata/\n")
        if request.headers.get("metadata-flavor") != "Google" or "x-forwarded-for" in request.headers:
            return _said(403, "Missing required header: Metadata-Flavor")
        if not request.path.startswith(_ROOT):
            return _said(404, f"no such address: {request.path}")
        path = unquote(request.path.removeprefix(_ROOT))
        if request.method == "PUT":
            return self._put(path, request.body.decode())
        if request.method != "GET":
            return _said(405, f"{request.method} is not allowed")
        query = {name: values[-1] for name, values in parse_qs(request.query).items()}
        return self._wait(path, query) if query.get("wait_for_change") == "true" else self._get(path, query)

    def _get(self, path: str, query: dict[str, str]) -> Answer:
        with self.cloud.lock:
            self.cloud.settle()
            found: Any = self._tree()
        for part in path.strip("/").split("/"):
            found = found.get(part) if isinstance(found, dict) else None
        if found is None or (path.endswith("/") and not isinstance(found, dict)):
            return _said(404, f"The requested URL {_ROOT}{path} was not found on this server.")
        if query.get("recursive") == "true" or query.get("alt") == "json":
            return _said(200, json.dumps(found), "application/json")
        if isinstance(found, dict):
            kind = "application/json" if "access_token" in found else "application/text"
            names = "".join(
                f"{name}/\n" if isinstance(value, dict) else f"{name}\n" for name, value in found.items()
            )
            return _said(200, json.dumps(found) if "access_token" in found else names, kind)
        return _said(200, found)

    def _wait(self, path: str, query: dict[str, str]) -> Answer:
        first = self._get(path, query)
        etag = query.get("last_etag") or first.headers["ETag"]
        deadline = time.monotonic() + float(query.get("timeout_sec", "3600"))
        while True:
            now = self._get(path, query)
            if now.headers["ETag"] != etag or time.monotonic() > deadline:
                return now
            if self._service.stopping.is_set():
                raise Drop("reset")
            with self.cloud.lock:
                self.cloud.changed.wait(0.1)

    def _put(self, path: str, value: str) -> Answer:
        root, _, key = path.partition("guest-attributes/")
        if root != "instance/" or key.count("/") != 1 or not all(key.split("/")):
            return _said(404, f"{path} can't be written")
        if len(value) > 32 * 1024 or len(key) > 256:
            return _said(413, "the entry is too large")
        with self.cloud.lock:
            if self._attributes().get("enable-guest-attributes", "").upper() != "TRUE":
                return _said(403, "Guest attributes endpoint access is disabled.")
        self.instances.publish(self.id, key, value)
        return _said(200, "")

    def _attributes(self) -> dict[str, str]:
        return items(self._instance()["metadata"])

    def _instance(self) -> Tree:
        for instance in self.cloud.resources["instances"].values():
            if instance["id"] == self.id:
                return instance
        raise Drop("reset")  # the machine is gone: nothing answers

    def _tree(self) -> Tree:
        instance = self._instance()
        project = self.cloud.project
        guest = self.cloud.guests[self.id]
        attributes: Tree = {}
        for key, value in guest.attributes.items():
            namespace, _, name = key.partition("/")
            attributes.setdefault(namespace, {})[name] = value
        zone = instance["zone"].rpartition("/")[2]
        kind = instance["machineType"].rpartition("/")[2]
        scheduling = instance["scheduling"]
        return {
            "instance": {
                "attributes": self._attributes(),
                "guest-attributes": attributes,
                "hostname": f"{instance['name']}.{zone}.c.{project}.internal",
                "id": self.id,
                "machine-type": f"projects/{NUMBER}/machineTypes/{kind}",
                "maintenance-event": "NONE",
                "name": instance["name"],
                "preempted": "TRUE" if guest.preempted else "FALSE",
                "scheduling": {
                    "automatic-restart": str(scheduling["automaticRestart"]).upper(),
                    "on-host-maintenance": scheduling["onHostMaintenance"],
                    "preemptible": str(scheduling["preemptible"]).upper(),
                },
                "service-accounts": _accounts(instance),
                "zone": f"projects/{NUMBER}/zones/{zone}",
            },
            "project": {
                "project-id": project,
                "numeric-project-id": NUMBER,
                "attributes": dict(self.cloud.metadata),
            },
            "universe": {"universe-domain": "googleapis.com"},
        }


def _accounts(instance: Tree) -> Tree:
    found: Tree = {}
    for account in instance.get("serviceAccounts", []):
        entry = {
            "aliases": "default",
            "email": account["email"],
            "scopes": "\n".join(account["scopes"]),
            "token": {"access_token": TOKEN, "expires_in": 3599, "token_type": "Bearer"},
        }
        found |= {"default": entry, account["email"]: entry}
    return found


def _said(code: int, text: str, kind: str = "application/text") -> Answer:
    body = text.encode()
    return Answer(code, {**_FLAVOUR, "Content-Type": kind, "ETag": f"{zlib.crc32(body):016x}"}, body)
