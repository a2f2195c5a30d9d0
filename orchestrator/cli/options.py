"""What every command has: the same options with the same meaning, and help that ends with its exit codes.

    @command(NotFoundError, CloudError)
    def status(common: Common) -> None: ...

gives a `Command` whose function typer sees with the options of `Common` after its own.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from orchestrator import errors
from orchestrator.cli import complete, interrupted
from orchestrator.errors import ConfigError, TlvmError

if TYPE_CHECKING:
    from orchestrator.config import Settings
    from orchestrator.render.console import Screen
    from orchestrator.workflows.workspace import Workspace

BROKEN_PIPE = 141  # as of a program that SIGPIPE ended
Choice = TypeVar("Choice", bound=str)
RunId = Annotated[
    str,
    typer.Argument(metavar="RUN", help="A run, or the last letters of its id.", autocompletion=complete.runs),
]
RunOrMachine = Annotated[
    str | None,
    typer.Argument(metavar="RUN", help="A run, or the last letters of its id.", autocompletion=complete.runs),
]

Version = Annotated[
    str | None, typer.Option("--version", metavar="V", help="Its first digits; default: the newest.")
]
MachineType = Annotated[
    str | None, typer.Option("--machine-type", metavar="TYPE", help="gce: instead of the one that fits.")
]
Zones = Annotated[
    str | None,
    typer.Option(
        "--zones",
        metavar="NAMES",
        help="gce: zones or regions, in order of preference; default: us-central1.",
    ),
]
Spot = Annotated[
    bool | None,
    typer.Option("--spot/--no-spot", help="gce: cheaper, and may be taken away at any time; default: no."),
]


@dataclass(frozen=True)
class Common:
    """The options that mean the same on every command."""

    machine: Annotated[
        str | None,
        typer.Option(
            "--machine",
            metavar="NAME",
            help="Which machine; default: tlvm-YOU-FOLDER.",
            autocompletion=complete.machines,
        ),
    ] = None
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            metavar="NAME",
            help="Which dataset; default: that of tlvm.toml, else the only one.",
            autocompletion=complete.datasets,
        ),
    ] = None
    provider: Annotated[
        str | None,
        typer.Option(
            "--provider",
            metavar="NAME",
            help="local (this computer, the default), docker, or gce.",
            autocompletion=complete.providers,
        ),
    ] = None
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Answer yes to every question.")] = False
    json: Annotated[bool, typer.Option("--json", help="The result as one JSON object on stdout.")] = False
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log every request on stderr, secrets removed.")
    ] = False

    @functools.cached_property
    def screen(self) -> Screen:
        from orchestrator.render.console import Screen

        return Screen.of_process(json=self.json)

    def settings(self, **flags: Any) -> Settings:
        """From flags, environment and `tlvm.toml`; `machine__disk_gb=9` is the flag of `machine.disk_gb`."""
        from orchestrator.config import load

        common = {
            "provider": self.provider,
            "machine.name": self.machine,
            "dataset.name": self.dataset,
        }
        return load(common | {name.replace("__", "."): value for name, value in flags.items()})

    def workspace(self, **flags: Any) -> Workspace:
        """What every workflow works with, its progress going to stderr."""
        from orchestrator.workflows.workspace import Workspace

        return Workspace(self.settings(**flags), self.screen.progress)

    @property
    def asks(self) -> bool:
        """Somebody is at a terminal, and has not said yes to everything."""
        return not self.yes and sys.stdin.isatty() and sys.stderr.isatty()

    def confirm(self, question: str) -> bool:
        """Ask once on a terminal; elsewhere, and with --yes, the answer is yes."""
        return not self.asks or typer.confirm(question, err=True)

    def show(self, command: str, result: object, draw: Callable[[Screen, Any], None]) -> None:
        """The result on stdout: as JSON, or drawn for people."""
        if self.json:
            self.screen.document(command, result)
        else:
            draw(self.screen, result)


@dataclass(frozen=True)
class Command:
    name: str
    call: Callable[..., None]
    epilog: str


def command(*may_raise: type[TlvmError], below: str = "") -> Callable[[Callable[..., None]], Command]:
    """A command of the name of the function, with the options of `Common` after its own.

    below   the command that it stands behind: datasets, of `tlvm datasets gc`
    """

    def decorate(function: Callable[..., None]) -> Command:
        name = f"{below} {function.__name__}".strip()
        shared = _shared()
        own = inspect.signature(function, eval_str=True).parameters

        @functools.wraps(function)
        def call(**values: Any) -> None:
            common = Common(**{name: values.pop(name) for name in shared})
            if common.verbose:
                from orchestrator.cli.logs import log_requests

                log_requests()
            try:
                function(common, **values)
            except BrokenPipeError:
                raise typer.Exit(nobody_reads()) from None
            except KeyboardInterrupt as error:
                print(interrupted.line(function.__name__, error), file=sys.stderr)
                if common.json and name == "logs":  # whose output is an object a line
                    found = interrupted.document(name, error)
                    common.screen.event({"schema": 1, "command": name} | found)
                elif common.json:
                    common.screen.document(name, interrupted.document(function.__name__, error))
                raise typer.Exit(interrupted.EXIT_CODE) from None

        parameters = [own[name] for name in own if name != "common"] + list(shared.values())
        vars(call)["__signature__"] = inspect.Signature(  # what typer reads
            [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
        )
        call.__annotations__ = {}
        return Command(function.__name__, call, exit_codes(may_raise))

    return decorate


@functools.cache
def _shared() -> Mapping[str, inspect.Parameter]:
    """The options of `Common`; reading them costs a millisecond, and every command asks."""
    return inspect.signature(Common, eval_str=True).parameters


def nobody_reads() -> int:
    """Whoever read our output has gone: nothing more can be said, and Python's own complaint at exit is noise."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    return BROKEN_PIPE


def exit_codes(may_raise: tuple[type[TlvmError], ...]) -> str:
    """The last paragraph of a command's help."""
    meanings = {0: "done", 1: "a bug of tlvm: please report it"}
    described = descriptions()
    kinds: list[type[TlvmError]] = [ConfigError, *may_raise]
    for kind in kinds:
        text = described.get(kind.__name__, kind.__name__)
        known = meanings.get(kind.exit_code)
        meanings[kind.exit_code] = f"{known}; {text}" if known and known != text else text
    meanings[130] = "interrupted; a run that was started goes on"
    lines = [f"  {code:>3}  {text}" for code, text in sorted(meanings.items())]
    return "\n".join(["\b", "Exit codes:", *lines])


@functools.cache
def descriptions() -> dict[str, str]:
    """What each error is for: {"ConfigError": "unknown key ..."}; read from the tree in the errors' docstring."""
    return dict(re.findall(r"^\W*(\w+) +\d+ +(.+)$", errors.__doc__ or "", flags=re.MULTILINE))


def overrides(values: list[str]) -> dict[str, str]:
    """`--set key=value` as a dictionary."""
    pairs = {}
    for value in values:
        key, found, text = value.partition("=")
        if not found or not key:
            raise ConfigError(f"--set {value!r} is not KEY=VALUE", next="For example: --set folds=5")
        pairs[key.strip()] = text.strip()
    return pairs


def one_of(option: str, value: str | None, valid: tuple[Choice, ...]) -> Choice | None:
    """The value as one of those that are valid; None when it was not given."""
    for choice in valid:
        if value == choice:
            return choice
    if value is None:
        return None
    raise ConfigError(f"{option} {value!r} is not valid", next=f"Valid: {', '.join(valid)}")


def shares(words: list[str]) -> dict[str, float]:
    """`--prior oak=0.1 --prior birch=0.9` as numbers by class."""
    found = {}
    for word in words:
        name, equals, share = word.rpartition("=")
        try:
            found[name] = float(share)
        except ValueError:
            equals = ""
        if not equals:
            raise ConfigError(f"--prior {word[:80]!r} is not CLASS=SHARE", next="For example --prior oak=0.1")
    return found
