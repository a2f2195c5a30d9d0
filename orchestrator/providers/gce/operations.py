"""Waiting for what Compute Engine does after it has accepted a request."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import CloudError, NotFoundError, TransientError

from .errors import of_operation, translated
from .rest import LONG_S, Rest

_WAIT_S = 900.0  # no operation on one machine takes longer
_TRIES = 8  # in a row that may break while an operation is waited for


@dataclass(frozen=True)
class Waiting:
    """Time, and waiting for it: a test gives its own."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def finish(
    rest: Rest, operation: Mapping[str, Any], doing: str, *, region: str = "", waiting: Waiting | None = None
) -> None:
    """Wait until an operation is done; raises what it failed with."""
    done = wait(rest, operation, doing, waiting=waiting)
    if done is not None and (refusal := of_operation(done)):
        raise translated(refusal, doing, region=region)


def wait(
    rest: Rest, operation: Mapping[str, Any], doing: str, *, waiting: Waiting | None = None
) -> Mapping[str, Any] | None:
    """The operation, once it is done, well or not.

    None when it can't be found any more: the cloud forgets operations, and what became of it is seen in the thing.
    The cloud's own `wait` holds the request for up to two minutes and may answer before the operation is done. A broken
    answer is asked for again here: the operation goes on meanwhile, and who gave up would not know what it has made.
    """
    waiting = waiting or Waiting()
    place, name = _where(operation), operation["name"]
    deadline = waiting.now() + _WAIT_S
    broken, pause_s = 0, 0.2
    while operation.get("status") != "DONE":
        if waiting.now() > deadline:
            raise CloudError(
                f"Google Cloud did not {doing} within {_WAIT_S / 60:.0f} minutes",
                detail=f"The operation {name} is {operation.get('status')}.",
                next="tlvm status shows what exists.",
            )
        try:
            operation = rest.send(
                "POST",
                f"{place}/operations/{name}/wait",
                doing=f"wait for the operation {name}",
                timeout_s=LONG_S,
            )
            broken = 0
        except NotFoundError:
            return None
        except TransientError:
            broken += 1
            if broken >= _TRIES:
                raise
        if operation.get("status") != "DONE":
            waiting.sleep(pause_s)
            pause_s = min(pause_s * 2, 5.0)
    return operation


def _where(operation: Mapping[str, Any]) -> str:
    """ "zones/us-central1-a", "regions/us-central1" or "global"."""
    for kind in ("zone", "region"):
        if place := operation.get(kind):
            return f"{kind}s/{str(place).rpartition('/')[2]}"
    return "global"
