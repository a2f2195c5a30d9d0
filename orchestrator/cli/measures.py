"""compare, evaluate: what finished runs are worth, and whether their differences are more than luck."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli import complete
from orchestrator.cli.formats import Format, drawn
from orchestrator.cli.options import Common, RunId, command, shares
from orchestrator.errors import (
    AuthError,
    CloudError,
    ConflictError,
    ConnectionLost,
    DataError,
    Interrupted,
    NotFoundError,
    RunFailed,
)


@command(NotFoundError, AuthError, CloudError, ConflictError, DataError)
def compare(
    common: Common,
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN",
            help="Runs on the same images, or the last letters of their ids; the first one is what the others are held against.",
            autocompletion=complete.runs,
        ),
    ],
    format: Format = "text",
) -> None:
    """Which of several runs is better, and is it more than luck?"""
    from orchestrator.render import markdown
    from orchestrator.render.compare import compared
    from orchestrator.workflows.results.compare import compare

    draw = drawn(format, compared, markdown.compare)
    common.show("compare", compare(common.workspace(), runs), draw)


@command(
    NotFoundError, AuthError, CloudError, ConnectionLost, RunFailed, ConflictError, DataError, Interrupted
)
def evaluate(
    common: Common,
    run: RunId,
    on: Annotated[
        str | None,
        typer.Option(
            "--on",
            metavar="DATASET[@VERSION]",
            help="Which images; default: the newest version of its own dataset.",
            autocompletion=complete.datasets,
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            metavar="SPLIT",
            help="train, val, test or all; default: what its own figure comes from, all of another dataset.",
        ),
    ] = None,
    prior: Annotated[
        list[str] | None,
        typer.Option(
            "--prior",
            metavar="CLASS=SHARE",
            help="How frequent a class is where it will be used. Repeatable.",
        ),
    ] = None,
    format: Format = "text",
) -> None:
    """Measure a finished model on other images.

    Images that it was trained on are left out.
    """
    from orchestrator.render import markdown
    from orchestrator.render.evaluate import evaluated
    from orchestrator.render.events import Events
    from orchestrator.workflows.results.evaluate import evaluate

    draw = drawn(format, evaluated, markdown.evaluate)
    with Events(common.screen.progress) as events:
        result = evaluate(
            common.workspace(), run, on=on, split=split, prior=shares(prior or []), on_event=events.show
        )
    common.show("evaluate", result, draw)
