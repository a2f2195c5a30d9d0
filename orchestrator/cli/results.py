"""pull, predict: what a run has given."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.options import Common, RunId, command, shares
from orchestrator.errors import (
    AuthError,
    CloudError,
    ConflictError,
    ConnectionLost,
    DataError,
    NotFoundError,
    PartialError,
)


@command(PartialError, NotFoundError, AuthError, CloudError, ConflictError)
def pull(common: Common, run: RunId) -> None:
    """Copy the result of a run here and verify it."""
    from orchestrator.render import runs
    from orchestrator.workflows.pull import pull

    common.show("pull", pull(common.workspace(), run), runs.pulled)


@command(PartialError, NotFoundError, AuthError, CloudError, ConnectionLost, DataError)
def predict(
    common: Common,
    run: RunId,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES...", help="Images, or folders of them.")],
    prior: Annotated[
        list[str] | None,
        typer.Option(
            "--prior",
            metavar="CLASS=SHARE",
            help="How frequent a class is where the images come from. Repeatable.",
        ),
    ] = None,
) -> None:
    """What the model of a run makes of images.

    CSV on stdout, with the probability of each class.
    """
    from orchestrator.render import runs
    from orchestrator.workflows.predict import predict

    result = predict(common.workspace(), run, images, prior=shares(prior or []))
    common.show("predict", result, runs.predicted)
    raise typer.Exit(result.exit_code)
