"""attach, cancel, logs: come back to a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli import complete, interrupted
from orchestrator.cli.formats import Format, drawn
from orchestrator.cli.options import Common, RunId, RunOrMachine, command
from orchestrator.errors import (
    AuthError,
    CapacityError,
    CloudError,
    ConfigError,
    ConflictError,
    ConnectionLost,
    Interrupted,
    NotFoundError,
    PartialError,
    RunFailed,
)

Recover = Annotated[
    bool | None,
    typer.Option(
        "--recover/--no-recover",
        help="When its machine is taken away, rent another and go on; default: of a spot machine.",
    ),
]

Env = Annotated[
    list[str] | None,
    typer.Option(
        "--env", metavar="NAME[=VALUE]", help="A variable of the training, as it is set here. Repeatable."
    ),
]
EnvFile = Annotated[
    list[Path] | None,
    typer.Option(
        "--env-file", metavar="FILE", help="A file of such lines; secrets belong there. Repeatable."
    ),
]


@command(
    PartialError,
    NotFoundError,
    AuthError,
    CapacityError,
    CloudError,
    ConnectionLost,
    RunFailed,
    ConflictError,
    Interrupted,
)
def attach(
    common: Common,
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN",
            help="A run, or the last letters of its id; without, the only one that is active.",
            autocompletion=complete.runs,
        ),
    ] = None,
    recover: Recover = None,
    env: Env = None,
    env_file: EnvFile = None,
    format: Format = "text",
) -> None:
    """Come back to a run: follow it to its verified result.

    One that has ended is brought here. One whose machine was stopped, or taken away, goes on from its last checkpoint.
    """
    from orchestrator.render import markdown, runs
    from orchestrator.render.events import Events
    from orchestrator.workflows.runs.attach import attach
    from orchestrator.workflows.runs.secrets import of_run

    workspace = common.workspace()
    draw = drawn(format, runs.result, markdown.run)
    with Events(common.screen.progress) as events, interrupted.by_sigterm():
        given = of_run(workspace, env or [], env_file or []) if env or env_file else None
        result = attach(workspace, run, recover=recover, environment=given, on_event=events.show)
    common.show("attach", result, draw)


@command(NotFoundError, AuthError, CloudError, ConnectionLost, ConflictError)
def cancel(common: Common, run: RunId) -> None:
    """End a run, waiting or at work.

    What it has said until then stays. A run that is over stays as it is.
    """
    from orchestrator.render import runs
    from orchestrator.workflows.runs.cancel import cancel

    common.show("cancel", cancel(common.workspace(), run), runs.cancelled)


@command(NotFoundError, AuthError, CloudError, ConnectionLost)
def logs(
    common: Common,
    run: RunOrMachine = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    since: Annotated[
        str | None, typer.Option("--since", metavar="WHEN", help="10m, 2h, or a time: 2026-11-22T14:30.")
    ] = None,
) -> None:
    """What a run has said; with --machine, the machine.

    A run's from its machine while there is one, else from the store. A machine's is the end of its console, in which its
    startup says what it does, also before anybody can come in.
    """
    from orchestrator.workflows.machines.machine_log import machine_log
    from orchestrator.workflows.runs.logs import logs, without_result

    if run is None and common.machine is None:
        raise ConfigError(
            "Nothing says whose log", next="Name a run (tlvm runs lists them), or tlvm logs --machine."
        )
    whose = common if run is not None else dataclasses.replace(common, machine=common.machine or None)
    workspace, screen = whose.workspace(), common.screen
    lines: Iterable[str]
    lines = machine_log(workspace) if run is None else logs(workspace, run, follow=follow, since=since)
    for line in lines:
        if common.json:
            screen.event({"schema": 1, "command": "logs", "line": line})
        else:
            screen.log(line)
        if follow:
            screen.flush()
    screen.flush()
    if run is not None and (ended := without_result(workspace, run)):
        screen.progress.say("state", ended)


def spelled_out(argv: list[str]) -> list[str]:
    """`tlvm logs --machine` means the machine of this project: an option of typer can't do without its value."""
    if argv[:1] != ["logs"]:
        return argv
    after = [*argv[1:], "-"]
    return [
        "--machine=" if word == "--machine" and then.startswith("-") else word
        for word, then in zip(argv, after, strict=True)
    ]
