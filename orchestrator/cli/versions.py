"""datasets show, diff, rm, gc: the versions of a dataset, and what may go."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli import complete
from orchestrator.cli.options import Common, Version, command
from orchestrator.errors import AuthError, CloudError, ConflictError, DataError, NotFoundError


@command(NotFoundError, AuthError, CloudError, DataError, below="datasets")
def show(
    common: Common,
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Or NAME@VERSION.", autocompletion=complete.datasets),
    ] = None,
    version: Version = None,
) -> None:
    """What a version of a dataset holds: classes, splits, sizes, what is left out and why."""
    from orchestrator.render import dataset_versions
    from orchestrator.workflows.data.datasets import split_name
    from orchestrator.workflows.data.show import show

    named, at = split_name(name) if name else (common.dataset, None)
    common.show("datasets show", show(common.workspace(), named, version or at), dataset_versions.shown)


@command(NotFoundError, AuthError, CloudError, DataError, below="datasets")
def diff(
    common: Common,
    first: Annotated[str, typer.Argument(metavar="A", help="NAME, NAME@VERSION, or a version.")],
    second: Annotated[str, typer.Argument(metavar="B", help="The same; what B has that A has not is added.")],
) -> None:
    """What differs between two versions: images added, removed, changed, moved, of another class or split."""
    from orchestrator.render import dataset_versions
    from orchestrator.workflows.data.diff import diff

    common.show("datasets diff", diff(common.workspace(), first, second), dataset_versions.compared)


@command(NotFoundError, AuthError, CloudError, ConflictError, DataError, below="datasets")
def rm(
    common: Common,
    name: Annotated[
        str,
        typer.Argument(metavar="NAME[@VERSION]", help="Of the dataset.", autocompletion=complete.datasets),
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Also while runs on it are not finished: they may fail.")
    ] = False,
) -> None:
    """Remove a dataset with all its versions, or one old version.

    Runs that name it are listed: they can't be repeated. Its images go with a later `tlvm datasets gc`.
    """
    from orchestrator.render import dataset_versions
    from orchestrator.workflows.data.datasets import split_name
    from orchestrator.workflows.data.remove import remove

    named, version = split_name(name)
    result = remove(common.workspace(), named, version, force=force, confirm=common.confirm)
    common.show("datasets rm", result, dataset_versions.removed)


@command(AuthError, CloudError, ConflictError, DataError, below="datasets")
def gc(
    common: Common,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go; change nothing.")] = False,
    grace_hours: Annotated[
        float,
        typer.Option("--grace-hours", metavar="H", min=0.0, help="How long a pack must have been unnamed."),
    ] = 24.0,
) -> None:
    """Delete packs of images that no version of any dataset names.

    A pack is first condemned, and deleted by a later gc when it was unnamed all the time; an upload saves what it uses.
    """
    from orchestrator.render import dataset_versions
    from orchestrator.workflows.data.gc import gc

    result = gc(common.workspace(), grace_hours=grace_hours, dry_run=dry_run)
    common.show("datasets gc", result, dataset_versions.collected)


COMMANDS = (show, diff, rm, gc)
