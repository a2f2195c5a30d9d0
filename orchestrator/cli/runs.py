"""run, runs, logs, pull, predict: from a dataset version to a result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli import complete
from orchestrator.cli.options import Common, command, overrides, shares
from orchestrator.errors import (
    AuthError,
    CloudError,
    ConflictError,
    ConnectionLost,
    DataError,
    Interrupted,
    NotFoundError,
    PartialError,
    RunFailed,
)

RunId = Annotated[
    str,
    typer.Argument(metavar="RUN", help="A run, or the last letters of its id.", autocompletion=complete.runs),
]


@command(
    PartialError,
    NotFoundError,
    AuthError,
    CloudError,
    ConnectionLost,
    RunFailed,
    ConflictError,
    DataError,
    Interrupted,
)
def run(
    common: Common,
    scenario: Annotated[
        str,
        typer.Argument(
            metavar="SCENARIO", help="fixed-extractor, from-scratch ...", autocompletion=complete.scenarios
        ),
    ],
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Upload this folder first, and run on it.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="NAME",
            help="A model of torchvision; default: resnet18.",
            autocompletion=complete.models,
        ),
    ] = None,
    weights: Annotated[
        str | None, typer.Option("--weights", metavar="W", help="imagenet, a file, run:ID, or none.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A parameter of the scenario. Repeatable.",
            autocompletion=complete.parameters,
        ),
    ] = None,
    unfreeze_from: Annotated[
        str | None,
        typer.Option("--unfreeze-from", metavar="NAME", help="Of fine-tune-top: the first module trained."),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", metavar="N", help="Of everything random.")] = None,
    max_hours: Annotated[
        float | None, typer.Option("--max-hours", metavar="H", help="The run ends after this.")
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when it has started; tlvm logs -f follows it.")
    ] = False,
) -> None:
    """Train one scenario on a dataset; show the result.

    Where machines are free and there is none, one is made. Ctrl-C leaves the run going on its machine.
    """
    from orchestrator.render import runs
    from orchestrator.render.events import Events
    from orchestrator.workflows.run import run

    workspace = common.workspace(
        run__model=model, run__weights=weights, run__seed=seed, run__max_hours=max_hours
    )
    with Events(common.screen.progress) as events:
        result = run(
            workspace,
            scenario,
            data=data,
            parameters=overrides(
                [*(set_ or []), *([f"unfreeze_from={unfreeze_from}"] if unfreeze_from else [])]
            ),
            detach=detach,
            on_event=events.show,
        )
    common.show("run", result, runs.result)


@command(NotFoundError, AuthError, CloudError)
def runs(common: Common) -> None:
    """The runs in the store, newest first."""
    from orchestrator.render import runs
    from orchestrator.workflows.runs import runs as list_runs

    common.show("runs", list_runs(common.workspace(), machine=common.machine), runs.listed)


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
