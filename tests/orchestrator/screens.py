"""Screens that tests can read."""

from __future__ import annotations

import io

from orchestrator.render.console import Screen


class Terminalish(io.StringIO):
    def isatty(self) -> bool:
        return True


def screen() -> tuple[Screen, io.StringIO, io.StringIO]:
    out, err = io.StringIO(), io.StringIO()
    return Screen(out, err), out, err
