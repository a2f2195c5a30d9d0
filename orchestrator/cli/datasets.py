"""upload, datasets: from a folder to a dataset version in the store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.options import Common, command
from orchestrator.errors import AuthError, CloudError, ConflictError, DataError, NotFoundError, PartialError


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
        bool, typer.Option("--replace", help="The new version holds only what the folder holds now.")
    ] = False,
) -> None:
    """Check, pack and upload a folder of images.

    Each dataset in it is published as a new dataset version; nothing new costs nothing.
    """
    from orchestrator.render import datasets
    from orchestrator.workflows.upload import upload

    results = upload(common.workspace(), folder, name=common.dataset, check_only=check, replace=replace)
    common.show("upload", results, datasets.uploaded)


@command(NotFoundError, AuthError, CloudError)
def datasets(common: Common) -> None:
    """The datasets in the store."""
    from orchestrator.render import datasets
    from orchestrator.workflows.datasets import datasets as list_datasets

    common.show("datasets", list_datasets(common.workspace()), datasets.listed)
