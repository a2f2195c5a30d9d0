"""A Ctrl-C that comes where Python drops exceptions."""

from __future__ import annotations

import subprocess
import sys

import pytest

_PRESSED = """
import os, signal, time, weakref
from orchestrator.cli import app, main
class Thing:
    pass
def press(*_):
    os.kill(os.getpid(), signal.SIGINT)
def work(argv):
    thing = Thing()
    if {by_reference}:
        dropped = weakref.ref(thing, press)
    else:
        Thing.__del__ = press
    del thing
    time.sleep(20)
app.main = work
main([])
"""


@pytest.mark.parametrize("by_reference", [True, False])
def test_it_is_not_lost(by_reference: bool) -> None:
    """As in the callback that follows each import, and in the `__del__` of libraries."""
    script = _PRESSED.format(by_reference=by_reference)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "Interrupted before anything was done.\n")
