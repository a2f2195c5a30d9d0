"""Docker for the tests: is there an engine, and a container that somebody made by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import docker
from docker.errors import ImageNotFound

from orchestrator.errors import TlvmError
from orchestrator.providers.docker.engine import connect

BASE_IMAGE = "debian:trixie-slim"


@cache
def missing() -> str:
    """Why Docker tests can't run here; "" when they can."""
    try:
        with engine() as client:
            client.images.get(BASE_IMAGE)
    except TlvmError as error:
        return str(error)
    except ImageNotFound:
        return f"there is no image {BASE_IMAGE}: infra/docker/base-image makes it"
    return ""


@contextmanager
def engine() -> Iterator[docker.DockerClient]:
    client = connect()
    try:
        yield client
    finally:
        client.close()


@contextmanager
def by_hand(name: str, labels: dict[str, str] | None = None) -> Iterator[Callable[[], bool]]:
    """A running container that tlvm did not make; yields "does it still stand untouched?"."""
    with engine() as client:
        made = client.containers.run(
            BASE_IMAGE, ["sleep", "600"], name=name, labels=labels or {}, init=True, detach=True
        )

        def stands() -> bool:
            found = client.containers.get(str(made.id))
            return (found.name, found.status) == (name, "running")

        try:
            yield stands
        finally:
            made.remove(force=True)
