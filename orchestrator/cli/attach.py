"""logs: come back to a run."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from orchestrator.cli.options import Common, RunId, RunOrMachine, command
from orchestrator.errors import AuthError, CloudError, ConnectionLost, NotFoundError


@command(NotFoundError, AuthError, CloudError, ConnectionLost)
def logs(
    common: Common,
    run: RunOrMachine = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
) -> None:
    """What a run has said; with --machine alone, what the machine has.

    A run's from its machine while there is one, else from the store. A machine's is the end of its console, in which its
    startup says what it does, also before anybody can come in.
    """
    if run is None:
        _machine(common)
        return
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


def spelled_out(argv: list[str]) -> list[str]:
    """`tlvm logs --machine` means the machine of this project: an option of typer can't do without its value."""
    if argv[:1] != ["logs"]:
        return argv
    after = [*argv[1:], "-"]
    return [
        "--machine=" if word == "--machine" and then.startswith("-") else word
        for word, then in zip(argv, after, strict=True)
    ]


def _machine(common: Common) -> None:
    from orchestrator.errors import ConfigError
    from orchestrator.workflows.machine_log import machine_log

    if common.machine is None:
        raise ConfigError(
            "Nothing says whose log", next="Name a run (tlvm runs lists them), or tlvm logs --machine."
        )
    screen = common.screen
    for line in machine_log(dataclasses.replace(common, machine=common.machine or None).workspace()):
        if common.json:
            screen.event({"schema": 1, "command": "logs", "line": line})
        else:
            screen.log(line)
    screen.flush()
