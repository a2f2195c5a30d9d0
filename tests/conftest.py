"""What holds for every test.

What one needs of the computer (`tests/needs.py`) is asked for before it begins: Docker by its own mark.
Soak tests end with the time that `make soak` gives them (SOAK_SECONDS): what has not begun by then is skipped.
Which files stay together where several processes run is said in `tests/together.py`.
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests import together
from tests.needs import need

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling

_BEGAN = time.monotonic()


def pytest_configure() -> None:
    """A shell starts what it runs in the background deaf to Ctrl-C, and children inherit that: some tests press it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    together.check(items)
    if "PYTEST_XDIST_WORKER" in os.environ:
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
