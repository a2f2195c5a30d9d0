"""stop, start, extend: a machine between `up` and `down`."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.options import Common, command
from orchestrator.errors import (
    AuthError,
    CapacityError,
    CloudError,
    ConflictError,
    ConnectionLost,
    NotFoundError,
)


@command(NotFoundError, AuthError, CloudError, ConflictError)
def stop(
    common: Common,
    force: Annotated[bool, typer.Option("--force", help="Also while runs are at work.")] = False,
) -> None:
    """Halt the machine and keep its disk.

    A stopped machine computes nothing and still costs its disk. Its end is not moved: tlvm gc cleans up after that.
    """
    from orchestrator.render import power
    from orchestrator.workflows.machines.power import stop

    common.show("stop", stop(common.workspace(), force=force, confirm=common.confirm), power.stopped)


@command(NotFoundError, AuthError, CapacityError, CloudError, ConnectionLost, ConflictError)
def start(common: Common) -> None:
    """Boot a stopped machine, and wait until it is ready.

    It lives no longer than it would have without the stop: the hours and the budget that are left.
    """
    from orchestrator.render import power
    from orchestrator.workflows.machines.power import start

    common.show("start", start(common.workspace()), power.started)


@command(NotFoundError, AuthError, CloudError, ConflictError)
def extend(
    common: Common, hours: Annotated[float, typer.Argument(metavar="HOURS", help="From now.")]
) -> None:
    """Keep the machine for so long, even when it is idle.

    Moves the soft clock, up to the hard end, which the cloud enforces and nobody can move while the machine runs.
    """
    from orchestrator.render import power
    from orchestrator.workflows.machines.power import extend

    common.show("extend", extend(common.workspace(), hours), power.extended)
