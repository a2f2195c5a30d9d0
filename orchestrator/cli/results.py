"""pull, predict: what a run has given."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli import complete
from orchestrator.cli.options import Common, RunId, command, shares
from orchestrator.errors import (
    AuthError,
    CloudError,
    ConfigError,
    ConflictError,
    ConnectionLost,
    DataError,
    NotFoundError,
    PartialError,
)


@command(PartialError, NotFoundError, AuthError, CloudError, ConflictError)
def pull(
    common: Common,
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN", help="A run, or the last letters of its id.", autocompletion=complete.runs
        ),
    ] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Every finished run of this project that is not here.")
    ] = False,
) -> None:
    """Copy the result of a run here and verify it.

    Again costs nothing; what was cut short goes on. Your own files are never touched.
    """
    from orchestrator.render import pulled
    from orchestrator.workflows.results.pull import pull, pull_all

    if all_ == (run is not None):
        raise ConfigError("pull takes one run, or --all", next="tlvm runs lists them.")
    if run is not None:
        common.show("pull", pull(common.workspace(), run), pulled.one)
        return
    results = pull_all(common.workspace())
    common.show("pull", results, pulled.several)
    raise typer.Exit(results.exit_code)


@command(PartialError, NotFoundError, AuthError, CloudError, ConnectionLost, DataError)
def predict(
    common: Common,
    run: RunId,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES", help="Images, or folders of them.")],
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
    from orchestrator.workflows.results.predict import predict

    result = predict(common.workspace(), run, images, prior=shares(prior or []))
    common.show("predict", result, runs.predicted)
    raise typer.Exit(result.exit_code)
