"""The command line: parse, call one workflow, render. Nothing is decided here, and nothing heavy is loaded for help."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

__all__ = ["main"]

_INTERRUPTED = 130
_AGAIN_S = 0.05


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code. Ctrl-C has its own while the program is still being loaded, too."""
    try:
        with _never_lost():
            from orchestrator.cli import app

            app.main(argv)
    except KeyboardInterrupt:
        print("Interrupted before anything was done.", file=sys.stderr)
        sys.exit(_INTERRUPTED)


@contextmanager
def _never_lost() -> Iterator[None]:
    """Python drops what is raised where nobody can catch it: in a `__del__`, or after an import, in the callback that
    removes its lock. A Ctrl-C that came at such a moment comes again a little later."""
    before = sys.unraisablehook

    def dropped(what: sys.UnraisableHookArgs) -> None:
        if not issubclass(what.exc_type, KeyboardInterrupt):
            before(what)
            return
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)

    sys.unraisablehook = dropped
    try:
        yield
    finally:
        sys.unraisablehook = before
