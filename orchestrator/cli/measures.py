"""compare: what finished runs are worth, and whether their differences are more than luck."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli import complete
from orchestrator.cli.options import Common, command
from orchestrator.errors import AuthError, CloudError, ConflictError, DataError, NotFoundError


@command(NotFoundError, AuthError, CloudError, ConflictError, DataError)
def compare(
    common: Common,
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN RUN...",
            help="Runs on the same images, or the last letters of their ids; the first one is what the others are held against.",
            autocompletion=complete.runs,
        ),
    ],
) -> None:
    """Which of several runs is better, and is it more than luck?"""
    from orchestrator.render.compare import compared
    from orchestrator.workflows.compare import compare

    common.show("compare", compare(common.workspace(), runs), compared)
