"""runs: what the store knows of runs, and what is done with them there."""

from __future__ import annotations

from orchestrator.cli.options import Command, Common, command
from orchestrator.errors import AuthError, CloudError, NotFoundError


@command(NotFoundError, AuthError, CloudError)
def runs(common: Common) -> None:
    """The runs in the store, newest first."""
    from orchestrator.render import runs
    from orchestrator.workflows.runs import runs as list_runs

    common.show("runs", list_runs(common.workspace(), machine=common.machine), runs.listed)


COMMANDS: tuple[Command, ...] = ()  # below `tlvm runs`
