"""gc, quota, gpus: what a project in the cloud holds and allows."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.options import Common, command
from orchestrator.errors import AuthError, CloudError, ConflictError, NotFoundError, PartialError


@command(PartialError, NotFoundError, AuthError, CloudError, ConflictError)
def gc(
    common: Common,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME...]", help="Delete these of yours, expired or not.")
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
    from orchestrator.workflows.gc import gc

    result = gc(
        common.workspace(), names or [], mine=mine, force=force, dry_run=dry_run, confirm=common.confirm
    )
    common.show("gc", result, render.collected)
    raise typer.Exit(result.exit_code)
