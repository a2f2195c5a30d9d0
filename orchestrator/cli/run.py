"""run: from a dataset version to a result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli import attach, complete, interrupted
from orchestrator.cli.formats import Format, drawn
from orchestrator.cli.options import Common, command, overrides
from orchestrator.errors import (
    AuthError,
    CapacityError,
    CloudError,
    ConflictError,
    ConnectionLost,
    DataError,
    Interrupted,
    NotFoundError,
    PartialError,
    QuotaError,
    RunFailed,
)


@command(
    PartialError,
    NotFoundError,
    AuthError,
    CapacityError,
    QuotaError,
    CloudError,
    ConnectionLost,
    RunFailed,
    ConflictError,
    DataError,
    Interrupted,
)
def run(
    common: Common,
    scenarios: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SCENARIO",
            help="fixed-extractor, from-scratch ...; several, or all: one line on one machine.",
            autocompletion=complete.scenarios,
            show_default=False,
        ),
    ] = None,
    spec: Annotated[
        str | None,
        typer.Option(
            "--spec",
            metavar="RUN",
            help="Repeat this run as it was; what is given beside it wins.",
            autocompletion=complete.runs,
        ),
    ] = None,
    if_changed: Annotated[
        bool,
        typer.Option("--if-changed", help="Where an earlier run did the same, that is the answer."),
    ] = False,
    rehearse: Annotated[
        bool,
        typer.Option("--rehearse", help="First with two images a class on this computer; nothing is rented."),
    ] = False,
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
        str | None,
        typer.Option("--weights", metavar="W", help="imagenet (the default), a file, run:ID, or none."),
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
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="Of everything random; default: 0.")
    ] = None,
    max_hours: Annotated[
        float | None, typer.Option("--max-hours", metavar="H", help="The run ends after this; default: 24.")
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when it has started; tlvm attach comes back to it.")
    ] = False,
    recover: attach.Recover = None,
    ephemeral: Annotated[
        bool,
        typer.Option("--ephemeral", help="On a machine of its own, which is made for it and goes with it."),
    ] = False,
    env: attach.Env = None,
    env_file: attach.EnvFile = None,
    format: Format = "text",
) -> None:
    """Train a scenario on a dataset; show the result.

    Where machines are free and there is none, one is made. Ctrl-C leaves the run going on its machine: tlvm attach comes
    back to it. Several scenarios wait there for each other, and end with a table.
    """
    from orchestrator.render import lines, markdown, rehearsals, runs
    from orchestrator.render.events import Events
    from orchestrator.workflows.runs.line import LineResult
    from orchestrator.workflows.runs.rehearse import RehearsalResult
    from orchestrator.workflows.runs.request import Request, fulfil
    from orchestrator.workflows.runs.run import RunResult

    draw = {
        RunResult: drawn(format, runs.result, markdown.run),
        LineResult: drawn(format, lines.result, markdown.line),
        RehearsalResult: drawn(format, rehearsals.result, markdown.rehearsal),
    }
    workspace = common.workspace(
        run__model=model, run__weights=weights, run__seed=seed, run__max_hours=max_hours
    )
    request = Request(
        scenarios=scenarios or [],
        spec=spec,
        if_changed=if_changed,
        rehearse=rehearse,
        data=data,
        dataset=common.dataset,
        model=model,
        weights=weights,
        parameters=overrides([*(set_ or []), *([f"unfreeze_from={unfreeze_from}"] if unfreeze_from else [])]),
        seed=seed,
        max_hours=max_hours,
        detach=detach,
        recover=recover,
        ephemeral=ephemeral,
        machine=common.machine,
        provider=common.provider,
        env=env or [],
        env_files=env_file or [],
    )
    with Events(common.screen.progress) as events, interrupted.by_sigterm():
        result = fulfil(workspace, request, on_event=events.show)
    common.show("run", result, draw[type(result)])
    raise typer.Exit(result.exit_code if isinstance(result, LineResult) else 0)
