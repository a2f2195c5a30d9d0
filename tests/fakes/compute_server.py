"""A fake Compute Engine on loopback, for Google's real client library, our own requests, and `gcloud compute`.

    with ComputeServer() as server:
        InstancesClient(credentials=AnonymousCredentials(), client_options={"api_endpoint": server.url})

Written for tests: Google's discovery document refuses what the real one would (and checks our own answers), the rules
of `compute_rules` refuse what it does not know, faults are scripted, time is under control. Nothing is forgiven.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

from tests.fakes.cloud_services import Project, Services
from tests.fakes.compute_api import Api
from tests.fakes.compute_cloud import USER, Clock, Cloud
from tests.fakes.compute_faults import OPERATION_KINDS, Faults, Refused, disabled, refusal
from tests.fakes.compute_hardware import Hardware, NoHardware
from tests.fakes.compute_instance_calls import InstanceCalls
from tests.fakes.compute_instances import Instances
from tests.fakes.credentials import token_for, write_credentials
from tests.fakes.discovery import Call, Unexpected
from tests.fakes.http_service import Answer, Drop, HttpService, Incoming, whole
from tests.fakes.metadata_server import MetadataServer

PROJECT = "trees-4711"
_COMPUTE = "/compute/v1/"
_STATUS = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 409: "ALREADY_EXISTS",
    412: "FAILED_PRECONDITION", 429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 503: "UNAVAILABLE",
}  # fmt: skip


@dataclass(frozen=True)
class Logged:
    """One request, as it came."""

    method: str
    path: str
    query: dict[str, list[str]]
    body: Any
    call: str  # "instances.insert"; "" for one that was not understood


class ComputeServer:
    """Running while it is entered as a context.

    url             for `client_options={"api_endpoint": url}`, and for REST: url + "/compute/v1/projects/..."
    clock           `advance(seconds)`; rate=0 holds it
    requests        all that came, in order
    errors          the fake's own mistakes, and requests that the real service would not understand: [] at the end
    faults          `add("stock-out", "instances.insert", path="*/us-central1-a/*", times=1, skip=0)`
    cloud           the state: quotas, metadata of the project, service accounts, how long operations take
    project         what other services know: APIs enabled, billing, permissions that the caller lacks, policies
    instances       `preempt(name)`, `host_keys`
    machines        what stands behind the instances
    is_open         False: requests need a bearer token
    is_current      whether a request with this Authorization is served
    """

    def __init__(
        self,
        machines: Hardware | None = None,
        *,
        project: str = PROJECT,
        clock: Clock | None = None,
        addresses: Sequence[str] = ("127.0.0.1",),
        page_size: int = 500,
        wait_s: float = 2.0,
        is_open: bool = True,
    ) -> None:
        self.clock = clock or Clock()
        self.machines: Hardware = machines or NoHardware()
        self.cloud = Cloud(project, self.clock)
        self.instances = Instances(self.cloud, self.machines, self.metadata_host)
        self.faults = Faults()
        self.metadata: dict[str, MetadataServer] = {}  # by the machine's id
        self.requests: list[Logged] = []
        self.project = Project()
        self.services = Services(self.cloud, self.project, page_size)
        calls = InstanceCalls(self.cloud, self.instances)
        self.api = Api(self.cloud, calls, self.project.refused_permissions, page_size, wait_s)
        self.is_open = is_open
        self.is_current: Callable[[str], bool] = lambda header: True
        self.frozen = threading.Event()  # set when `stop_at` has struck
        self._stop_at: tuple[int, bool] | None = None
        self._go_on = threading.Event()
        self._counting = threading.Lock()
        self._service = HttpService(whole(self._serve), addresses)
        self.errors = self._service.errors
        self.url = self._service.url_at(addresses[0])

    def __enter__(self) -> ComputeServer:
        self._service.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._go_on.set()
        self._service.stop()
        self.machines.close()
        for server in self.metadata.values():
            server.stop()
            self.errors += server.errors

    def url_at(self, address: str) -> str:
        """As seen from elsewhere: a container uses the address of the Docker bridge."""
        return self._service.url_at(address)

    def credentials_file(self, folder: Path) -> Path:
        """A service account's key file, made for this server, whose token address is this server."""
        return write_credentials(folder, self.url)

    def stop_at(self, number: int, *, performed: bool = False) -> None:
        """Freeze at the request of this number (from now, the first is 1): it and all later ones get no answer.

        performed   whether that request is done before; `frozen` is set then, and `resume` ends it
        """
        with self._counting:
            self._stop_at = (len(self.requests) + number, performed)
            self._go_on.clear()
            self.frozen.clear()

    def resume(self) -> None:
        """Drop what waits, without an answer, and serve again."""
        with self._counting:
            self._stop_at = None
        self._go_on.set()
        self.frozen.clear()

    def count(self, call: str) -> int:
        """How often a call came."""
        return sum(1 for request in self.requests if request.call == call)

    def metadata_host(self, id: str, address: str = "127.0.0.1") -> str:
        """Where the metadata server of a machine is ("HOST:PORT"), the same at each of its boots."""
        if id not in self.metadata:
            server = MetadataServer(self.cloud, self.instances, id, address)
            self.metadata[id] = server
            server.start()
        return self.metadata[id].host

    # One request

    def _serve(self, request: Incoming) -> Answer:
        if request.path == "/token":  # neither this nor the next is of the API: they are not counted
            return token_for(request.body)
        if request.path == "/tokeninfo":
            return _account()
        body = json.loads(request.body) if request.body else None
        query = parse_qs(request.query, keep_blank_values=True)
        call, problem = self._recognise(request, query, body)
        with self._counting:
            name = call.name if call else ""
            self.requests.append(Logged(request.method, request.path, query, body, name))
            stop = self._stop_at
            number = len(self.requests)
        if stop and (number > stop[0] or (number == stop[0] and not stop[1])):
            self._freeze()
        try:
            if problem or call is None:
                raise problem or Unexpected(404, request.path)
            answer = self._answer(request, call, query, body)
        except Refused as refused:
            answer = _refusal(refused)
        except Unexpected as unexpected:
            if unexpected.code != 404:
                self.errors.append(str(unexpected))
            answer = _refusal(Refused(unexpected.code, "invalid", str(unexpected)))
        if stop and number == stop[0]:
            self._freeze()
        return answer

    def _recognise(
        self, request: Incoming, query: dict[str, list[str]], body: Any
    ) -> tuple[Call | None, Unexpected | None]:
        try:
            if request.path.startswith(_COMPUTE):
                path = request.path.removeprefix(_COMPUTE)
                return self.api.recognise(request.method, path, query, body), None
            return self.services.recognise(request.method, request.path[1:], query, body), None
        except Unexpected as unexpected:
            return None, unexpected

    def _answer(self, request: Incoming, call: Call, query: dict[str, list[str]], body: Any) -> Answer:
        is_compute = request.path.startswith(_COMPUTE)
        target = unquote(request.path.removeprefix(_COMPUTE).removeprefix("/"))
        fault = self.faults.take(call.name, target)
        if fault in {"reset", "stall"}:
            raise Drop(fault)
        if fault[:3].isdecimal() and not fault.endswith("after"):
            raise refusal(fault, call.name, target, self.cloud.project)
        if not self.is_open and not request.headers.get("authorization", "").startswith("Bearer "):
            raise refusal("401", call.name, target, self.cloud.project)
        if not self.is_current(request.headers.get("authorization", "")):
            raise refusal("401", call.name, target, self.cloud.project)
        if is_compute and "compute.googleapis.com" not in self.project.enabled:
            raise disabled("compute.googleapis.com", "Compute Engine API", self.cloud.project)
        with self.cloud.lock:
            self.cloud.settle()
            self.instances.look()
            if fault == "collected":
                self._collect(call)
            self.cloud.fault = fault if fault in OPERATION_KINDS else ""
            if is_compute:
                document = self.api.perform(call, body)
            else:
                document = self.services.perform(call, query, body or {})
            if fault == "unfinished":
                document = _unfinished(document)
            text = json.dumps(document)
        sent = json.loads(text)
        mistake = self.api.mistake(call, sent) if is_compute else self.services.mistake(call, target, sent)
        if mistake:
            self.errors.append(mistake)
        if fault == "503 after":
            raise refusal(fault, call.name, target, self.cloud.project)
        if fault in {"reset after", "stall after"}:
            raise Drop(fault.removesuffix(" after"))
        return Answer(200, {"Content-Type": "application/json; charset=UTF-8"}, text.encode())

    def _collect(self, call: Call) -> None:
        for operation in list(self.cloud.resources["operations"].values()):
            if operation["name"] == call.path.get("operation"):
                self.cloud.collect(operation)

    def _freeze(self) -> None:
        self.frozen.set()
        self._go_on.wait()
        raise Drop("reset")


def _account() -> Answer:
    """Whose token it is, as the OAuth service says."""
    scope = "https://www.googleapis.com/auth/cloud-platform"
    document = {"email": USER, "expires_in": "3599", "scope": scope}
    return Answer(200, {"Content-Type": "application/json"}, json.dumps(document).encode())


def _unfinished(operation: dict[str, Any]) -> dict[str, Any]:
    hidden = {"endTime", "error", "httpErrorStatusCode", "httpErrorMessage"}
    kept = {name: value for name, value in operation.items() if name not in hidden}
    return kept | {"status": "RUNNING", "progress": 0}


def _refusal(refused: Refused) -> Answer:
    error: dict[str, Any] = {
        "code": refused.code,
        "message": refused.message,
        "errors": [{"message": refused.message, "domain": "global", "reason": refused.reason}],
    }
    if refused.code in _STATUS:
        error["status"] = _STATUS[refused.code]
    if refused.details:
        error["details"] = refused.details
    body = json.dumps({"error": error}).encode()
    return Answer(refused.code, {"Content-Type": "application/json; charset=UTF-8"}, body)
