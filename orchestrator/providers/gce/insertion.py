"""Making a machine through Google's own client, which is loaded in a thread while something else is waited for."""

from __future__ import annotations

import importlib
import json
import threading
from typing import Any

from orchestrator.errors import TlvmError

from .errors import Refusal, no_answer, of_answer, translated
from .request import Insert
from .rest import Rest

_CLIENT = "google.cloud.compute_v1"
_TIMEOUT_S = 60.0


def load() -> threading.Thread:
    """Google's client, being imported: 2 to 4 seconds of which the requests before the creation hide most."""
    loading = threading.Thread(
        target=importlib.import_module, args=(_CLIENT,), name="compute_v1", daemon=True
    )
    loading.start()
    return loading


def send(rest: Rest, insert: Insert, loading: threading.Thread, doing: str, *, region: str) -> dict[str, Any]:
    """The operation that makes the machine. One try: with the same request id, another one makes no second machine."""
    import google.api_core.exceptions as api
    import requests
    from google.auth.exceptions import GoogleAuthError

    loading.join()
    compute = importlib.import_module(_CLIENT)
    client = compute.InstancesClient(
        credentials=rest.credentials, client_options={"api_endpoint": rest.endpoint}
    )
    message = compute.InsertInstanceRequest(
        project=insert.project,
        zone=insert.zone,
        request_id=insert.request_id or None,
        instance_resource=compute.Instance.from_json(json.dumps(insert.body)),
    )
    try:
        operation = client.insert_unary(request=message, retry=None, timeout=_TIMEOUT_S)
    except api.GoogleAPICallError as error:
        raise _translated(error, doing, region) from error
    except (requests.RequestException, GoogleAuthError, ConnectionError, TimeoutError) as error:
        raise no_answer(error, doing) from error
    # How it ended is read by `operations`: polling through this client ignores another address of the API.
    return {"name": operation.name, "zone": operation.zone or f"zones/{insert.zone}", "status": "RUNNING"}


def _translated(error: Any, doing: str, region: str) -> TlvmError:
    """Of an answer, the answer itself is read: the library keeps the class, and loses reasons on the way."""
    answer = getattr(error, "response", None)
    if answer is not None and hasattr(answer, "json"):
        return translated(of_answer(answer), doing, region=region)
    return translated(Refusal(int(error.code or 0), str(error.message)), doing, region=region)
