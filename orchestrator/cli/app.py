"""The application: its commands in the order of the work, and the one place where an error becomes an exit code."""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from orchestrator import __version__
from orchestrator.cli import (
    attach,
    cloud,
    datasets,
    formats,
    machines,
    measures,
    power,
    results,
    run,
    runs,
    setup,
    versions,
    weights,
)
from orchestrator.cli.groups import group
from orchestrator.cli.options import nobody_reads
from orchestrator.errors import CloudError, TlvmError

PROGRAM = "tlvm"
BUG = 1
USAGE = 2
INTERRUPTED = 130
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
COMMANDS = (
    setup.init,
    machines.up,
    machines.status,
    datasets.upload,
    datasets.datasets,
    datasets.download,
    run.run,
    attach.attach,
    attach.logs,
    attach.cancel,
    runs.runs,
    results.pull,
    results.predict,
    measures.evaluate,
    measures.compare,
    weights.weights,
    machines.ssh,
    machines.authorize,
    power.extend,
    power.stop,
    power.start,
    machines.down,
    cloud.gc,
    cloud.quota,
    cloud.gpus,
    setup.doctor,
    setup.demo,
)
BELOW = {
    "datasets": versions.COMMANDS,
    "weights": weights.COMMANDS,
    "quota": cloud.BELOW_QUOTA,
    "runs": runs.COMMANDS,
}  # commands with commands below them


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    words = attach.spelled_out(list(sys.argv[1:] if argv is None else argv))
    try:
        code = _exit_code(words)
        sys.stdout.flush()  # at its end Python would only complain
    except BrokenPipeError:
        code = nobody_reads()
    except OSError as error:
        code = _unwritten(error, words)
    sys.exit(code)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


def application() -> typer.Typer:
    """Every command, with plain help: rich would cost more than all the rest of `tlvm --help`."""
    app = typer.Typer(
        name=PROGRAM,
        help="From a folder of labelled images to a trained, measured, explained classifier.",
        epilog="\b\nThe way:  tlvm up  →  tlvm upload DIR  →  tlvm run fixed-extractor  →  tlvm down\n"
        "or at once, on this computer:  tlvm run fixed-extractor --data DIR",
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
        context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
    )
    app.callback()(_root)
    for command in COMMANDS:
        if command.name in BELOW:
            app.add_typer(group(command, BELOW[command.name]), name=command.name)
        else:
            app.command(command.name, epilog=command.epilog)(command.call)
    return app


def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """From a folder of labelled images to a trained, measured, explained classifier."""


def _exit_code(argv: list[str]) -> int:
    _write_anywhere()
    try:
        code = application()(args=argv, prog_name=PROGRAM, standalone_mode=False)
    except SystemExit as exit:  # of the shell's completion, and where typer finds that nobody reads
        code = nobody_reads() if isinstance(exit.__context__, BrokenPipeError) else exit.code
    except typer.Abort:
        print("\nInterrupted at the question.", file=sys.stderr)
        return INTERRUPTED
    except TlvmError as error:
        return _failed(error, argv)
    except Exception as error:  # the last place that can say how to report it
        if isinstance(error, OSError) and error.errno in _FULL:
            raise
        return _refused(error, argv) or _bug(error, argv)
    return code if isinstance(code, int) else 0


def _write_anywhere() -> None:
    """A terminal that knows no "→" shows it as an escape, where Python would end with a UnicodeEncodeError.

    A stream that was closed before the start, of which Python makes None, takes everything and shows nothing.
    """
    if sys.stdin is None:
        sys.stdin = Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115  # until the end
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  # until the end
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _unwritten(error: OSError, argv: list[str]) -> int:
    """The disk is full, or what the output goes to; whatever can still be written says so."""
    found = CloudError(
        "The output can't be written, or a file that the command needs",
        detail=str(error),
        next="Make room, or send the output elsewhere; tlvm status shows what was done before.",
    )
    try:
        _failed(found, argv)
        sys.stdout.flush()
    except OSError:
        nobody_reads()
    return found.exit_code


def _refused(error: Exception, argv: list[str]) -> int | None:
    """None when it is not the command line that is wrong."""
    from orchestrator.cli import usage

    if usage.is_help(error):
        print(error, file=sys.stderr)
        return USAGE
    found = usage.read(error, _command(argv))
    return _failed(found, argv) if found else None


def _failed(error: TlvmError, argv: list[str]) -> int:
    from orchestrator.render import problem

    problem.show(error, sys.stderr)
    if formats.is_markdown(argv):
        from orchestrator.render import markdown

        print(markdown.problem(error), end="", flush=True)
    _error_document(argv, type(error).__name__, error.what, error.detail, error.next, error.exit_code)
    return error.exit_code


def _bug(error: Exception, argv: list[str]) -> int:
    from orchestrator.cli import bug
    from orchestrator.cli.logs import redact

    bug.shown(error)
    what_to_do = bug.written(argv, error)
    print(f"\n{what_to_do}", file=sys.stderr)
    last_line = traceback.format_exception_only(error)[-1].strip()
    _error_document(argv, "Bug", "An unexpected error", redact(last_line), what_to_do, BUG)
    return BUG


def _error_document(argv: list[str], kind: str, what: str, detail: str, next: str, code: int) -> None:
    """With --json, the error as the object on stdout."""
    words = argv[: argv.index("--")] if "--" in argv else argv
    if "--json" not in words:
        return
    import json

    command = _command(words)
    error = {"class": kind, "exit_code": code, "what": what, "detail": detail, "next": next}
    indent = None if command == "logs" else 1  # whose output is an object a line
    print(json.dumps({"schema": 1, "command": command, "error": error}, indent=indent), flush=True)


def _command(words: list[str]) -> str:
    """The name of the command, as its result says it: "status", "runs rm". Options of the program take no value."""
    name, *more = [*(word for word in words if not word.startswith("-")), ""]
    below = {command.name for command in BELOW.get(name, ())}
    return f"{name} {more[0]}" if more and more[0] in below else name
