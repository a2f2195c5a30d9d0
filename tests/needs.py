"""What a test needs of the computer. Where that is missing it is skipped and says what; in CI it fails: a skip there would
hide something. CI is not asked for a GPU (tests marked `gpu` are deselected), nor for `shared/`, which is no part of this.

    @pytest.mark.needs("root")      before a test
    need("loopback machines")       in a fixture
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest


def need(what: str) -> None:
    if why := missing(what):
        lacks(why)


@cache
def missing(what: str) -> str:
    """Why it is not to be had here; "" where it is."""
    return _ASKED[what]()


def lacks(why: str) -> None:
    """The end of a test that found out by itself what is missing."""
    if os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
        pytest.fail(f"in CI no test may be skipped: {why}", pytrace=False)
    pytest.skip(why)


def _docker() -> str:
    from tests import docker_engine

    return docker_engine.missing()


def _loopback_machines() -> str:
    from tests.fakes import compute_loopback

    return compute_loopback.missing()


def _gcloud() -> str:
    return "" if shutil.which("gcloud") else "gcloud is not installed"


def _root() -> str:
    return "" if os.geteuid() == 0 else "only root can give a file to another user"


def _mount_namespaces() -> str:
    if not shutil.which("unshare"):
        return "there is no command unshare"
    done = subprocess.run(["unshare", "-rm", "true"], capture_output=True, text=True)
    return "" if done.returncode == 0 else f"no mount namespaces for this user: {done.stderr.strip()}"


def _dev_full() -> str:
    return "" if Path("/dev/full").exists() else "only Linux has /dev/full, a disk that is always full"


_ASKED: dict[str, Callable[[], str]] = {
    "docker": _docker,
    "loopback machines": _loopback_machines,
    "gcloud": _gcloud,
    "root": _root,
    "mount namespaces": _mount_namespaces,
    "/dev/full": _dev_full,
}
