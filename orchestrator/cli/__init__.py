"""The command line: parse, call one workflow, render. Nothing is decided here, and nothing heavy is loaded for help."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]

_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code. Ctrl-C has its own while the program is still being loaded, too."""
    try:
        from orchestrator.cli import app

        app.main(argv)
    except KeyboardInterrupt:
        print("Interrupted before anything was done.", file=sys.stderr)
        sys.exit(_INTERRUPTED)
