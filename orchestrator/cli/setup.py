"""init, doctor, demo: the first things that somebody does."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.options import Common, command
from orchestrator.errors import (
    AuthError,
    CloudError,
    ConflictError,
    ConnectionLost,
    DataError,
    QuotaError,
    RunFailed,
)


@command(CloudError, ConflictError)
def init(
    common: Common,
    store: Annotated[
        str | None,
        typer.Option("--store", metavar="URL", help="gs://bucket, or a folder. Default: one of this user."),
    ] = None,
) -> None:
    """Write a commented tlvm.toml here.

    Asks on a terminal; elsewhere what no option names takes its default. An existing file is replaced only with --yes.
    """
    from orchestrator.render import setup
    from orchestrator.workflows.init import init

    asking = not common.yes and not common.json and sys.stdin.isatty() and sys.stderr.isatty()
    result = init(
        Path.cwd(),
        provider=common.provider,
        store=store,
        replace=common.yes,
        ask=_ask if asking else None,
    )
    common.show("init", result, setup.written)


@command(AuthError, QuotaError, CloudError)
def doctor(common: Common) -> None:
    """Look at this computer and at the cloud: what there is and what lacks.

    Here: Python, torch, cores, memory, GPU, disk, Docker. On gce: login, billing, APIs, permissions, the machines'
    account, quotas, zones, image, network, bucket, clock. Each line is ok, warn or FAIL and says what to do; the exit
    code is that of the first failure.
    """
    from orchestrator.render import setup
    from orchestrator.workflows.doctor import doctor

    result = doctor(common.settings())
    common.show("doctor", result, setup.examined)
    raise typer.Exit(result.exit_code)


@command(CloudError, ConnectionLost, RunFailed, DataError)
def demo(common: Common) -> None:
    """The whole way on sample images, here and free."""
    from orchestrator.render import setup
    from orchestrator.render.events import Events
    from orchestrator.workflows.demo import demo

    workspace = common.workspace()
    with Events(common.screen.progress) as events:
        result = demo(workspace, on_event=events.show)
    common.show("demo", result, setup.shown)


def _ask(question: str, choices: dict[str, str]) -> str:
    keys = list(choices)
    shown = "  ".join(f"[{number}] {text}" for number, text in enumerate(choices.values(), 1))
    number: int = typer.prompt(f"{question}  {shown}", default=1, type=int, err=True)
    return keys[min(max(number, 1), len(keys)) - 1]
