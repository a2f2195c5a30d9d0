"""runs: what the store knows of runs, and what is done with them there."""

from __future__ import annotations

from orchestrator.cli.formats import Format, drawn
from orchestrator.cli.options import Command, Common, command
from orchestrator.errors import AuthError, CloudError, NotFoundError


@command(NotFoundError, AuthError, CloudError)
def runs(common: Common, format: Format = "text") -> None:
    """The runs in the store, newest first."""
    from orchestrator.render import markdown, runs
    from orchestrator.workflows.runs import runs as list_runs

    draw = drawn(format, runs.listed, markdown.runs)
    common.show("runs", list_runs(common.workspace(), machine=common.machine), draw)


COMMANDS: tuple[Command, ...] = ()  # below `tlvm runs`
