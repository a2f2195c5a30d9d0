"""What ends a run on purpose. `remote.train` turns each into an exit code and a last line of the log."""

from __future__ import annotations


class CannotRun(Exception):
    """The data, the weights or the settings can't be used: exit 3.

    The text says what, with which thing, and what to do next; it is the last `log` event of the run.
    """


class Stopped(Exception):
    """The machine is being taken away: what is needed to go on has been written. Exit 12."""
