"""runs: what the store knows of runs, and what is done with them there."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli import complete
from orchestrator.cli.formats import MARKDOWN, Format, drawn
from orchestrator.cli.options import Command, Common, RunId, command, one_of
from orchestrator.errors import AuthError, CloudError, ConflictError, NotFoundError


@command(NotFoundError, AuthError, CloudError)
def runs(
    common: Common,
    tag: Annotated[
        str | None, typer.Option("--tag", metavar="TAG", help="Only the runs that have this tag.")
    ] = None,
    sort: Annotated[
        str | None, typer.Option("--sort", metavar="BY", help="accuracy, cost, time or size: the most first.")
    ] = None,
    format: Format = "text",
) -> None:
    """The runs in the store, newest first."""
    from orchestrator.render import markdown, runs
    from orchestrator.workflows.runs.overview import SORTS
    from orchestrator.workflows.runs.overview import runs as list_runs

    draw = drawn(format, runs.listed, markdown.runs)
    by = one_of("--sort", sort, SORTS)
    drawn_of_them = markdown.RUNS_MAX if format == MARKDOWN else runs.SHOWN_MAX
    newest = None if common.json else drawn_of_them
    found = list_runs(common.workspace(), machine=common.machine, tag=tag, sort=by, newest=newest)
    common.show("runs", found, draw)


@command(NotFoundError, AuthError, CloudError, ConflictError, below="runs")
def tag(
    common: Common,
    run: RunId,
    tags: Annotated[list[str] | None, typer.Argument(metavar="TAG", help="To add.")] = None,
    remove: Annotated[
        list[str] | None, typer.Option("--remove", metavar="TAG", help="To take away. Repeatable.")
    ] = None,
    note: Annotated[
        str | None, typer.Option("--note", metavar="TEXT", help="What is to be said of it; empty: nothing.")
    ] = None,
) -> None:
    """Tag a run, or note something on it. What is tagged keep stays when runs are removed by age or state."""
    from orchestrator.render import runs_changed
    from orchestrator.workflows.runs.tag import tag

    result = tag(common.workspace(), run, add=tags or [], remove=remove or [], note=note)
    common.show("runs tag", result, runs_changed.tagged)


@command(NotFoundError, AuthError, CloudError, ConflictError, below="runs")
def rm(
    common: Common,
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN", help="Runs, or the last letters of their ids.", autocompletion=complete.runs
        ),
    ] = None,
    older_than: Annotated[
        float | None,
        typer.Option("--older-than", metavar="DAYS", min=0.0, help="My runs that ended so long ago."),
    ] = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="My runs that ended without a result: failed, cancelled, lost.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go; change nothing.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also a named run of somebody else, or one that may go on.")
    ] = False,
) -> None:
    """Remove runs from the store: results, logs, checkpoints. What was pulled stays where it is."""
    from orchestrator.render import runs_changed
    from orchestrator.workflows.runs.remove import remove

    result = remove(
        common.workspace(),
        runs or [],
        older_than_days=older_than,
        failed=failed,
        dry_run=dry_run,
        force=force,
        confirm=common.confirm,
    )
    common.show("runs rm", result, runs_changed.removed)


COMMANDS: tuple[Command, ...] = (tag, rm)  # below `tlvm runs`
