"""What holds for every test.

What one needs of the computer (`tests/needs.py`) is asked for before it begins: Docker by its own mark.
Soak tests end with the time that `make soak` gives them (SOAK_SECONDS): what has not begun by then is skipped.
What killed processes leave in $TMPDIR goes with the test run, and the folders of tests that passed go at once.
Which files stay together where several processes run is said in `tests/together.py`.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import together
from tests.needs import need

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling

_BEGAN = time.monotonic()


def pytest_configure(config: pytest.Config) -> None:
    """A shell starts what it runs in the background deaf to Ctrl-C, and children inherit that: some tests press it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not _is_worker():
        _have_a_temporary_folder()


def _is_worker() -> bool:
    return "PYTEST_XDIST_WORKER" in os.environ


def _have_a_temporary_folder() -> None:
    """For this process and all that it starts, other users included. Its name is short: sockets have their paths in it."""
    os.environ.setdefault(
        "PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir()
    )  # of pytest's own, which outlive a failure
    tempfile.tempdir = os.environ["TMPDIR"] = tempfile.mkdtemp(prefix="t-")
    Path(tempfile.tempdir).chmod(0o1777)
    # After multiprocessing has cleaned up in it, which was imported later.
    atexit.register(shutil.rmtree, tempfile.tempdir, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    together.check(items)
    if _is_worker():
        items.sort(key=together.turn)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    return together.scheduler(config, log)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("docker"):
        need("docker")
    for marker in item.iter_markers("needs"):
        need(*marker.args)
    if item.get_closest_marker("soak"):
        _need_time(float(os.environ.get("SOAK_SECONDS", "inf")))


def _need_time(whole_s: float) -> None:
    if time.monotonic() - _BEGAN > whole_s:
        pytest.skip(f"the {whole_s:g} seconds of the soak tests are over")
