"""upload, datasets: from a folder to a dataset version in the store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from orchestrator.cli.options import Common, command, one_of
from orchestrator.errors import AuthError, CloudError, ConflictError, DataError, NotFoundError, PartialError

FLIPS: tuple[Literal["none", "horizontal", "all"], ...] = ("none", "horizontal", "all")


@command(PartialError, NotFoundError, AuthError, CloudError, ConflictError, DataError)
def upload(
    common: Common,
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="<split>/<class>/* or <class>/*, or a folder of such folders."),
    ],
    check: Annotated[
        bool, typer.Option("--check", help="Look at every image and say what is wrong; send nothing.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="This folder is right, whatever others published meanwhile.")
    ] = False,
    allow_shrink: Annotated[
        bool, typer.Option("--allow-shrink", help="Many images may be gone since the last time.")
    ] = False,
    flips: Annotated[
        str | None,
        typer.Option("--flips", metavar="WHICH", help="That keep the meaning: none, horizontal or all."),
    ] = None,
) -> None:
    """Check, pack and upload a folder of images.

    Each dataset in it is published as a new dataset version; nothing new costs nothing.
    """
    from orchestrator.render import datasets
    from orchestrator.workflows.upload import upload

    results = upload(
        common.workspace(),
        folder,
        name=common.dataset,
        check_only=check,
        replace=replace,
        allow_shrink=allow_shrink,
        flips=one_of("--flips", flips, FLIPS),
    )
    common.show("upload", results, datasets.uploaded)
    if any(result.missed for result in results):
        raise typer.Exit(PartialError.exit_code)


@command(NotFoundError, AuthError, CloudError)
def datasets(common: Common) -> None:
    """The datasets in the store."""
    from orchestrator.render import datasets
    from orchestrator.workflows.datasets import datasets as list_datasets

    common.show("datasets", list_datasets(common.workspace()), datasets.listed)


@command(NotFoundError, AuthError, CloudError, ConflictError, DataError)
def download(
    common: Common,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the dataset.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where its files go.")],
    version: Annotated[
        str | None, typer.Option("--version", metavar="V", help="Its first digits; default: the newest.")
    ] = None,
) -> None:
    """The files of a dataset, byte for byte, with their times.

    Files that are there already are left; other files in their place are a conflict.
    """
    from orchestrator.render import datasets
    from orchestrator.workflows.download import download

    common.show("download", download(common.workspace(), name, folder, version=version), datasets.downloaded)
