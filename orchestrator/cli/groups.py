"""A command that has commands below it, and does something of its own without one: `tlvm datasets`."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import typer

from orchestrator.cli.options import Command
from orchestrator.errors import ConfigError


def group(command: Command, below: Sequence[Command]) -> typer.Typer:
    """`command` alone, or one of those `below` it. Options stand after the last word."""
    app = typer.Typer(rich_markup_mode=None, invoke_without_command=True, epilog=command.epilog)

    def call(context: typer.Context, **values: Any) -> None:
        if context.invoked_subcommand is None:
            command.call(**values)
        elif said := [name for name in values if _was_said(context, name)]:
            raise ConfigError(
                f"--{said[0]} stands before {context.invoked_subcommand}",
                next=f"Write tlvm {command.name} {context.invoked_subcommand} ... --{said[0]}",
            )

    parameters = inspect.signature(command.call).parameters.values()
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    vars(call)["__signature__"] = inspect.Signature([context, *parameters])  # what typer reads
    call.__annotations__ = {}
    call.__doc__ = command.call.__doc__
    app.callback()(call)
    for one in below:
        app.command(one.name, epilog=one.epilog)(one.call)
    return app


def _was_said(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
