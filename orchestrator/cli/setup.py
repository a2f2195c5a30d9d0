"""init, doctor, demo: the first things that somebody does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.options import Common, MachineType, Spot, Zones, command
from orchestrator.errors import (
    AuthError,
    CloudError,
    ConflictError,
    ConnectionLost,
    DataError,
    QuotaError,
    RunFailed,
)


@command(AuthError, CloudError, ConflictError)
def init(
    common: Common,
    store: Annotated[
        str | None,
        typer.Option("--store", metavar="URL", help="gs://bucket, or a folder. Default: one of this user."),
    ] = None,
    create_bucket: Annotated[
        bool, typer.Option("--create-bucket", help="gce: make the bucket: private, in the machines' region.")
    ] = False,
    project: Annotated[
        str | None, typer.Option("--project", metavar="ID", help="gce: default is that of your login.")
    ] = None,
    zones: Zones = None,
    accelerator: Annotated[
        str | None,
        typer.Option(
            "--accelerator", metavar="KIND", help="gce: none, t4, l4, a100, h100; several in order."
        ),
    ] = None,
    accelerator_count: Annotated[
        int | None, typer.Option("--accelerator-count", metavar="N", help="gce: how many of them.")
    ] = None,
    machine_type: MachineType = None,
    spot: Spot = None,
    disk_gb: Annotated[
        int | None, typer.Option("--disk-gb", metavar="GB", help="gce: 200 if not given.")
    ] = None,
    image_family: Annotated[
        str | None,
        typer.Option("--image-family", metavar="NAME", help="gce: instead of the newest with PyTorch."),
    ] = None,
    max_hours: Annotated[
        float | None,
        typer.Option("--max-hours", metavar="H", help="gce: Google deletes a machine after this."),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option("--budget", metavar="USD", help="gce: a machine lives no longer than this lasts."),
    ] = None,
) -> None:
    """Write a commented tlvm.toml here.

    For Google Cloud it looks at login, billing and quota first, since a new account has no GPU. Asks on a terminal; elsewhere what no option names takes its default. An existing file is replaced only with --yes.
    """
    from orchestrator.render import setup
    from orchestrator.workflows.setup.answers import Answers
    from orchestrator.workflows.setup.init import init

    given = Answers(
        common.provider, store, project, zones, accelerator, accelerator_count, machine_type, spot, disk_gb,
        image_family, max_hours, budget, create_bucket,
    )  # fmt: skip
    asking = common.asks and not common.json
    result = init(Path.cwd(), given, replace=common.yes, asking=_Terminal() if asking else None)
    common.show("init", result, setup.written)


@command(AuthError, QuotaError, CloudError)
def doctor(common: Common) -> None:
    """Look for what lacks, here and in the cloud.

    Here: Python, torch, cores, memory, GPU, disk, Docker. On gce: login, billing, APIs, permissions, the machines'
    account, quotas, zones, image, network, bucket, clock. Each line is ok, warn or FAIL and says what to do; the exit
    code is that of the first failure.
    """
    from orchestrator.render import setup
    from orchestrator.workflows.setup.doctor import doctor

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


class _Terminal:
    """Questions on stderr: stdout is for the result."""

    def choose(self, question: str, choices: Mapping[str, str]) -> str:
        keys = list(choices)
        typer.echo(question, err=True)
        for place, text in enumerate(choices.values(), 1):
            typer.echo(f"  [{place}] {text}", err=True)
        number = 0
        while not 1 <= number <= len(keys):
            number = typer.prompt("Choose", default=1, type=int, err=True)
        return keys[number - 1]

    def text(self, question: str, default: str) -> str:
        answer: str = typer.prompt(question, default=default, err=True)
        return answer

    def yes(self, question: str) -> bool:
        return typer.confirm(question, default=False, err=True)

    def say(self, text: str) -> None:
        typer.echo(text, err=True)
