"""up, status, ssh, down: the life of a machine."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.options import Common, MachineType, Spot, Zones, command
from orchestrator.errors import (
    AuthError,
    CapacityError,
    CloudError,
    ConflictError,
    ConnectionLost,
    DataError,
    NotFoundError,
    PartialError,
    QuotaError,
)


@command(
    PartialError, AuthError, CapacityError, QuotaError, CloudError, ConnectionLost, ConflictError, DataError
)
def up(
    common: Common,
    max_hours: Annotated[
        float | None,
        typer.Option(
            "--max-hours",
            metavar="H",
            help="The machine ends by itself after this; default: 168, docker 24, gce 4.",
        ),
    ] = None,
    accelerator: Annotated[
        str | None,
        typer.Option(
            "--accelerator",
            metavar="KIND",
            help="none (the default), nvidia on docker; on gce l4 (the default), t4, several in order.",
        ),
    ] = None,
    accelerator_count: Annotated[
        int | None,
        typer.Option("--accelerator-count", metavar="N", help="How many of them; default: 1 on gce."),
    ] = None,
    cpus: Annotated[
        float | None, typer.Option("--cpus", metavar="N", help="0, the default: all of them.")
    ] = None,
    memory_gb: Annotated[
        float | None, typer.Option("--memory-gb", metavar="GB", help="0, the default: all of it.")
    ] = None,
    disk_gb: Annotated[
        int | None, typer.Option("--disk-gb", metavar="GB", help="0, the default: what there is; gce: 200.")
    ] = None,
    machine_type: MachineType = None,
    zones: Zones = None,
    spot: Spot = None,
    budget: Annotated[
        float | None,
        typer.Option("--budget", metavar="USD", help="gce: the machine lives no longer than this lasts."),
    ] = None,
    idle_minutes: Annotated[
        float | None,
        typer.Option(
            "--idle-minutes", metavar="M", help="gce: so long without a run, it ends; default: 30, 0: never."
        ),
    ] = None,
    iap: Annotated[
        bool | None, typer.Option("--iap/--no-iap", help="gce: no address; SSH through Google's proxy.")
    ] = None,
    accept_first_host_key: Annotated[
        bool | None,
        typer.Option(
            "--accept-first-host-key/--no-accept-first-host-key",
            help="gce: where a machine never says its host key, take the one that it shows, unproven.",
        ),
    ] = None,
    wait: Annotated[
        float, typer.Option("--wait", metavar="HOURS", help="While no place has one, ask again for so long.")
    ] = 0.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be asked for; create nothing.")
    ] = False,
    upload: Annotated[
        Path | None,
        typer.Option(
            "--upload",
            metavar="DIR",
            help="Upload these images meanwhile; the machine fetches them as they come.",
        ),
    ] = None,
) -> None:
    """Bring up a machine, or adopt the one that is there.

    Returns when it is ready. Other settings than those it has are a conflict, never a silent change.
    """
    from orchestrator.render import machines
    from orchestrator.workflows.machines.up import up

    workspace = common.workspace(
        machine__max_hours=max_hours,
        machine__accelerator=accelerator,
        machine__accelerator_count=accelerator_count,
        machine__cpus=cpus,
        machine__memory_gb=memory_gb,
        machine__disk_gb=disk_gb,
        machine__machine_type=machine_type,
        machine__spot=spot,
        machine__budget=budget,
        machine__idle_minutes=idle_minutes,
        gce__zones=zones,
        gce__iap=iap,
        gce__accept_first_host_key=accept_first_host_key,
    )
    if upload is None or dry_run:
        common.show("up", up(workspace, dry_run=dry_run, wait_hours=wait), machines.ready)
        return
    from orchestrator.render import datasets
    from orchestrator.workflows.data.up_upload import up_and_upload

    made, uploaded = up_and_upload(workspace, upload, bring_up=partial(up, wait_hours=wait))
    common.show("up", made, machines.ready)
    if not common.json:
        datasets.uploaded(common.screen, uploaded)
    if any(result.missed for result in uploaded):
        raise typer.Exit(PartialError.exit_code)


@command(NotFoundError, AuthError, CloudError)
def status(
    common: Common,
    refresh: Annotated[
        bool,
        typer.Option("--refresh", help="First make .tlvm/ again: from labels, and from the store."),
    ] = False,
) -> None:
    """Machines, their end, and what runs on them."""
    from orchestrator.render import machines
    from orchestrator.workflows.machines.status import status

    found = status(common.workspace(), machine=common.machine, refresh=refresh)
    common.show("status", found, machines.overview)


@command(NotFoundError, AuthError, CloudError, ConnectionLost, ConflictError)
def ssh(
    common: Common,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="CMD", help="After --: a command for the machine; without, a shell."),
    ] = None,
    forwards: Annotated[
        list[str] | None,
        typer.Option(
            "-L", metavar="LOCAL:HOST:PORT", help="That port of the machine's side, here. Repeatable."
        ),
    ] = None,
) -> None:
    """A shell on the machine, or one command there.

    Exits with the command's own exit code. With -L alone, the ports stay open until Ctrl-C.
    """
    from orchestrator.render import machines
    from orchestrator.workflows.machines.ssh import ssh

    result = ssh(common.workspace(), words or [], forwards=forwards or [], capture=common.json)
    common.show("ssh", result, machines.left)
    raise typer.Exit(result.exit_code)


@command(NotFoundError, AuthError, CloudError, ConflictError)
def authorize(
    common: Common,
    public_key: Annotated[
        str | None,
        typer.Argument(
            metavar="KEY", help='"ssh-ed25519 AAAA...", of another computer; without: of this one.'
        ),
    ] = None,
) -> None:
    """Let another computer of yours come in.

    With a key of its own, until the end of the machine; its private key never leaves that computer.
    """
    from orchestrator.render import machines
    from orchestrator.workflows.machines.authorize import authorize

    common.show("authorize", authorize(common.workspace(), public_key), machines.authorized)


@command(PartialError, AuthError, CloudError, ConflictError)
def down(
    common: Common,
    force: Annotated[
        bool,
        typer.Option("--force", help="Also with runs that are active, or results that are not in the store."),
    ] = False,
) -> None:
    """Delete the machine, once its results are safe.

    Every result is proven to be in the store, the machine is deleted, and that is confirmed. Twice is success.
    """
    from orchestrator.render import machines
    from orchestrator.workflows.runs.ephemeral import down_and_complete

    result = down_and_complete(common.workspace(), force=force, confirm=common.confirm)
    common.show("down", result, machines.gone)
    raise typer.Exit(result.exit_code)
