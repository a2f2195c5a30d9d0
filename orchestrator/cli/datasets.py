"""upload, datasets: from a folder to a dataset version in the store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from orchestrator.cli.options import Common, Version, command, one_of
from orchestrator.errors import (
    AuthError,
    CloudError,
    ConfigError,
    ConflictError,
    DataError,
    NotFoundError,
    PartialError,
)

if TYPE_CHECKING:
    from orchestrator.datasets.checks.offer import Offer

FLIPS: tuple[Literal["none", "horizontal", "all"], ...] = ("none", "horizontal", "all")


@command(PartialError, NotFoundError, AuthError, CloudError, ConflictError, DataError)
def upload(
    common: Common,
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="<split>/<class>/* or <class>/*, or a folder of such folders."),
    ],
    check: Annotated[
        bool,
        typer.Option(
            "--check-only", "--check", help="Look at every image and say what is wrong; send nothing."
        ),
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="This folder is right, whatever others published meanwhile.")
    ] = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify", help="Look at each pack in the store; what is missing or damaged is sent again."
        ),
    ] = False,
    allow_shrink: Annotated[
        bool, typer.Option("--allow-shrink", help="Many images may be gone since the last time.")
    ] = False,
    flips: Annotated[
        str | None,
        typer.Option("--flips", metavar="WHICH", help="That keep the meaning: none, horizontal or all."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Images on two sides of the split are an error (exit 11).")
    ] = False,
    group_by: Annotated[
        str | None,
        typer.Option(
            "--group-by",
            metavar="REGEX|TABLE.csv",
            help="What stays on one side: a patient, slide or video. A pattern over paths, whose first group names it; "
            "a table (path, group); or none.",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            metavar="TABLE.csv",
            help="Labels from a table (path, label, optional split and group) instead of folders.",
        ),
    ] = None,
    resize: Annotated[
        int | None,
        typer.Option(
            "--resize",
            metavar="N",
            help="Send images smaller: the longer side in pixels; 0: as they are. Default: as the last time.",
            min=0,
        ),
    ] = None,
    page: Annotated[
        str | None,
        typer.Option(
            "--page",
            metavar="N|max",
            help="Of files with several pages: the one that counts, or their maximum; 0: such files are set aside.",
        ),
    ] = None,
    strip_metadata: Annotated[
        bool | None,
        typer.Option(
            "--strip-metadata/--keep-metadata",
            help="Send no EXIF, place or comment; JPEG is encoded again. Default: as the last time.",
        ),
    ] = None,
) -> None:
    """Check, pack and upload a folder of images.

    HEIC and AVIF travel as JPEG. Each dataset in it is published as a new dataset version; nothing new costs nothing.
    """
    from orchestrator.datasets.checks.convert import Conversion
    from orchestrator.render import datasets
    from orchestrator.workflows.data.upload import upload

    results = upload(
        common.workspace(),
        folder,
        name=common.dataset,
        check_only=check,
        replace=replace,
        verify=verify,
        allow_shrink=allow_shrink,
        flips=one_of("--flips", flips, FLIPS),
        strict=strict,
        group_by=group_by,
        labels=labels,
        conversion=Conversion(resize, _page(page), strip_metadata),
        ask=_asking(common),
    )
    common.show("upload", results, datasets.uploaded)
    if any(result.missed for result in results):
        raise typer.Exit(PartialError.exit_code)


def _page(text: str | None) -> int | Literal["max"] | None:
    if text is None or text == "max":
        return "max" if text else None
    if not text.isdecimal():
        raise ConfigError(f"--page {text!r} is neither a number nor max")
    return int(text)


def _asking(common: Common) -> Callable[[Offer], bool] | None:
    """Whether to shrink is asked on a terminal only, and --yes does not answer it: it changes what is sent."""
    if common.json or not common.asks:
        return None

    def ask(offer: Offer) -> bool:
        return typer.confirm(f"{offer.told}. Shrink?", default=True, err=True)

    return ask


@command(PartialError, NotFoundError, AuthError, CloudError)
def datasets(common: Common) -> None:
    """The datasets in the store. One that can't be read is named with the reason; the others are listed."""
    from orchestrator.render import datasets
    from orchestrator.workflows.data.datasets import datasets as list_datasets

    found = list_datasets(common.workspace())
    common.show("datasets", found, datasets.listed)
    if any(dataset.problem for dataset in found):
        raise typer.Exit(PartialError.exit_code)


@command(NotFoundError, AuthError, CloudError, ConflictError, DataError)
def download(
    common: Common,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the dataset.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where its files go.")],
    version: Version = None,
) -> None:
    """The files of a dataset, byte for byte, with their times.

    Files that are there already are left. Other files in their place are a conflict, and so are other images.
    """
    from orchestrator.render import datasets
    from orchestrator.workflows.data.download import download

    common.show("download", download(common.workspace(), name, folder, version=version), datasets.downloaded)
