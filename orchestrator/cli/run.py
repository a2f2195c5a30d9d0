"""run: from a dataset version to a result."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli import attach, complete, interrupted
from orchestrator.cli.formats import Format, drawn
from orchestrator.cli.options import Common, command, overrides
from orchestrator.errors import (
    AuthError,
    CloudError,
    ConfigError,
    ConflictError,
    ConnectionLost,
    DataError,
    Interrupted,
    NotFoundError,
    PartialError,
    RunFailed,
)


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
    from orchestrator.workflows.runs.ephemeral_run import run_ephemeral
    from orchestrator.workflows.runs.line import ALL, Line, LineResult, run_line, wishes_of
    from orchestrator.workflows.runs.rehearse import rehearse as rehearse_all
    from orchestrator.workflows.runs.run import RunResult, run
    from orchestrator.workflows.runs.secrets import of_run
    from orchestrator.workflows.runs.wish import Repeat, scenario_of, wish_of

    draw_run, draw_line = drawn(format, runs.result, markdown.run), drawn(format, lines.result, markdown.line)
    draw_rehearsal = drawn(format, rehearsals.result, markdown.rehearsal)
    workspace = common.workspace(
        run__model=model, run__weights=weights, run__seed=seed, run__max_hours=max_hours
    )
    names = scenarios or []
    alone = len(names) < 2 and names != [ALL]
    _agree(names, alone=alone, spec=spec, if_changed=if_changed, rehearse=rehearse, detach=detach)
    repeat = None
    if spec:
        flags = {
            "dataset": common.dataset, "model": model, "weights": weights, "seed": seed, "max_hours": max_hours,
        }  # fmt: skip
        repeat = Repeat(spec, frozenset(name for name, value in flags.items() if value is not None))
        names = names or [scenario_of(workspace, repeat)]
    values = overrides([*(set_ or []), *([f"unfreeze_from={unfreeze_from}"] if unfreeze_from else [])])
    with Events(common.screen.progress) as events, interrupted.by_sigterm():
        environment = of_run(workspace, env or [], env_file or [])
        result: RunResult | LineResult
        if rehearse:
            if alone:
                wishes = [
                    wish_of(workspace, names[0], values, data=data, repeat=repeat, environment=environment)
                ]
            else:
                wishes = wishes_of(workspace, Line.of(names, values), data)
            rehearsed = rehearse_all(
                workspace, wishes, next=_in_earnest(), environment=environment, on_event=events.show
            )
            common.show("run", rehearsed, draw_rehearsal)
            return
        if alone:
            one = partial(
                run,
                scenario=names[0],
                data=data,
                parameters=values,
                repeat=repeat,
                if_changed=if_changed,
                detach=detach,
                recover=recover,
                environment=environment,
                on_event=events.show,
            )
            result = run_ephemeral(workspace, names[0], one) if ephemeral else one(workspace)
        else:
            line = Line.of(names, values)
            in_line = partial(
                run_line,
                line=line,
                data=data,
                detach=detach,
                recover=recover,
                environment=environment,
                on_event=events.show,
            )
            result = run_ephemeral(workspace, line.scenarios[0], in_line) if ephemeral else in_line(workspace)
    common.show("run", result, draw_line if isinstance(result, LineResult) else draw_run)
    raise typer.Exit(result.exit_code if isinstance(result, LineResult) else 0)


def _agree(
    names: Sequence[str], *, alone: bool, spec: str | None, if_changed: bool, rehearse: bool, detach: bool
) -> None:
    """ConfigError where words of the command line exclude each other, with what to write instead."""
    if spec and not alone:
        raise ConfigError(
            "--spec repeats one run, of one scenario", next=f"Leave the scenarios out: tlvm run --spec {spec}"
        )
    if not names and not spec:
        raise ConfigError(
            "Which scenario?",
            next="For example: tlvm run fixed-extractor; tlvm run --spec RUN repeats a run.",
        )
    if if_changed and not alone:
        raise ConfigError(
            "--if-changed is for one scenario", next="One after the other: tlvm run SCENARIO --if-changed"
        )
    for other in [name for name, said in {"--if-changed": if_changed, "--detach": detach}.items() if said]:
        if rehearse:
            raise ConfigError(
                f"A rehearsal leaves nothing behind: {other} has no meaning for it",
                next=f"First with --rehearse, then without it and with {other}.",
            )


def _in_earnest() -> str:
    """The command line as it was given, without --rehearse; values of variables are not shown."""
    words, values_next = ["tlvm"], False
    for word in sys.argv[1:]:
        if word == "--rehearse":
            continue
        name, equals, _ = word.removeprefix("--env=").partition("=")
        is_variable = bool(equals) and (values_next or word.startswith("--env="))
        shown = f"{'--env=' if word.startswith('--env=') else ''}{name}=..."
        words.append(shown if is_variable else word)
        values_next = word == "--env"
    return shlex.join(words)
