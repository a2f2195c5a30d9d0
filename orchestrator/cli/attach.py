"""logs: come back to a run."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.options import Common, RunId, command
from orchestrator.errors import AuthError, CloudError, ConnectionLost, NotFoundError


@command(NotFoundError, AuthError, CloudError, ConnectionLost)
def logs(
    common: Common,
    run: RunId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
) -> None:
    """What a run has said.

    From its machine while there is one, else from the store.
    """
    from orchestrator.workflows.logs import logs

    screen = common.screen
    for line in logs(common.workspace(), run, follow=follow):
        if common.json:
            screen.event({"schema": 1, "command": "logs", "line": line})
        else:
            screen.log(line)
        if follow:
            screen.flush()
    screen.flush()
