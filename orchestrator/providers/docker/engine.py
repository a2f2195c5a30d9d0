"""The Docker engine of this computer: finding it, and turning its errors into ours.

Only an engine on this computer will do: the store is mounted from our disk, and a machine's port is published on
127.0.0.1 of the engine's host.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import requests
from docker.context import ContextAPI
from docker.errors import APIError, DockerException

from orchestrator.errors import AuthError, CloudError, ConfigError, ConflictError, TlvmError, TransientError

TIMEOUT_S = 120  # of one request; building and pulling send news all the time


def connect() -> docker.DockerClient:
    """A client of the engine that the `docker` command would use: DOCKER_HOST, else the current context.

    ConfigError when that engine is on another computer, CloudError when none runs, AuthError when it is not for us.
    """
    address = _address()
    if address.startswith("unix://"):
        _knock(Path(address.removeprefix("unix://")))
    elif not address.startswith("npipe://"):
        raise ConfigError(
            f"The Docker engine {address} is not on this computer",
            detail="The store is mounted from this disk and SSH comes in on 127.0.0.1: both need an engine here.",
            next="Unset DOCKER_HOST (or: docker context use default), or choose another provider.",
        )
    with border("reach the Docker engine"):
        return docker.DockerClient(base_url=address, timeout=TIMEOUT_S)


@contextmanager
def border(doing: str) -> Iterator[None]:
    """Exceptions of the docker package stop here. `doing` completes "Docker could not ..."."""
    try:
        yield
    except APIError as error:
        raise _translated(doing, error) from error
    except (requests.exceptions.ConnectionError, requests.exceptions.Timeout) as error:
        raise TransientError(f"Docker could not {doing}: it does not answer", detail=str(error)) from error
    except (DockerException, requests.exceptions.RequestException) as error:
        raise CloudError(f"Docker could not {doing}", detail=str(error)) from error


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Of all terminals of this user, one at a time; a crash lets the next one in."""
    lock.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _address() -> str:
    if host := os.environ.get("DOCKER_HOST"):
        return host
    with border("tell its current context"):
        context = ContextAPI.get_current_context()
        return str(context.Host) if context else "unix:///var/run/docker.sock"


def _knock(path: Path) -> None:
    """Open the socket once: the docker package hides why it could not be opened."""
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(10)
            probe.connect(str(path))
    except PermissionError as error:
        raise AuthError(
            f"You may not use the Docker engine of this computer ({path}: permission denied)",
            next='Let yourself in: sudo usermod -aG docker "$USER", then log in again.',
        ) from error
    except OSError as error:
        if shutil.which("docker") is None and not path.exists():
            raise CloudError(
                f"Docker is not installed on this computer (there is no {path})",
                next="Install it (Debian: sudo apt-get install docker.io), or use --provider local.",
            ) from error
        raise CloudError(
            f"The Docker engine of this computer is not running ({path}: {error.strerror or error})",
            next="Start it (Linux: sudo systemctl start docker; else start Docker Desktop), or use --provider local.",
        ) from error


def _translated(doing: str, error: APIError) -> TlvmError:
    said = str(error.explanation or error)
    what = f"Docker could not {doing}"
    if "no space left on device" in said:
        return CloudError(
            f"{what}: the disk is full", detail=said, next="Make room: docker system df shows what takes it."
        )
    if error.status_code == 409:
        return ConflictError(
            what, detail=said, next="Something else is at work on it; try again in a moment."
        )
    if error.is_server_error() and "timeout" in said.lower():
        return TransientError(what, detail=said)
    return CloudError(what, detail=said)
