"""gc, quota, gpus: what a project in the cloud holds and allows."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.options import Common, command
from orchestrator.errors import (
    AuthError,
    CloudError,
    ConflictError,
    NotFoundError,
    PartialError,
)


@command(PartialError, NotFoundError, AuthError, CloudError, ConflictError)
def gc(
    common: Common,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Delete these of yours, expired or not.")
    ] = None,
    mine: Annotated[bool, typer.Option("--mine", help="Delete everything of yours, expired or not.")] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Also machines at work, or with results that are not in the store."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be deleted.")] = False,
) -> None:
    """Delete what has outlived its time.

    Looks for machines, disks, addresses and firewall rules in every place. By itself it deletes only yours that carry
    tlvm's label and have expired; the rest of yours is listed, and what is of others is never touched.
    """
    from orchestrator.render import gc as render
    from orchestrator.workflows.machines.gc import gc

    result = gc(
        common.workspace(), names or [], mine=mine, force=force, dry_run=dry_run, confirm=common.confirm
    )
    common.show("gc", result, render.collected)
    raise typer.Exit(result.exit_code)


Accelerator = Annotated[
    str | None,
    typer.Option(
        "--accelerator", metavar="KIND", help="For a machine with this one; else that of tlvm.toml."
    ),
]


@command(AuthError, CloudError)
def quota(common: Common, accelerator: Accelerator = None) -> None:
    """How many machines the cloud lets you have.

    Shows the quotas that the machine of tlvm.toml takes from, and what was asked for. A new account has none for GPUs.
    """
    from orchestrator.render import cloud
    from orchestrator.workflows.setup.quota import quota

    common.show("quota", quota(common.workspace(machine__accelerator=accelerator)), cloud.allowed)


@command(AuthError, CloudError, below="quota")
def request(
    common: Common,
    metric: Annotated[
        str | None, typer.Argument(metavar="QUOTA", help="For example NVIDIA_L4_GPUS. Default: what lacks.")
    ] = None,
    value: Annotated[float | None, typer.Option("--value", metavar="N", help="How many in all.")] = None,
    region: Annotated[str, typer.Option("--region", metavar="NAME", help="Whose quota it is.")] = "",
    accelerator: Accelerator = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how it is asked for by hand; send nothing.")
    ] = False,
) -> None:
    """Ask Google for more of a quota.

    Google answers by mail, after minutes to days; tlvm quota shows it. Where its API can't be used, the command and
    the page to ask by hand are printed.
    """
    from orchestrator.render import cloud
    from orchestrator.workflows.setup.quota import quota_request

    result = quota_request(
        common.workspace(machine__accelerator=accelerator),
        metric,
        value=value,
        region=region,
        dry_run=dry_run,
        confirm=common.confirm,
    )
    common.show("quota request", result, cloud.asked)
    raise typer.Exit(result.exit_code)


@command(AuthError, CloudError)
def gpus(common: Common) -> None:
    """GPUs that can be rented: zones, price, your quota."""
    from orchestrator.render import cloud
    from orchestrator.workflows.setup.gpus import gpus

    common.show("gpus", gpus(common.workspace()), cloud.offered)


BELOW_QUOTA = (request,)
