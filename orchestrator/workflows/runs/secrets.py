"""The variables that a run's training gets: their names may be known to all, their values to nobody but the machine.

Values travel over SSH on standard input into a file of mode 0600 on the machine, which is deleted when the run is over.
They stand in no argument, metadata, run spec, event, log or bucket; this computer keeps none either, so whoever starts
the run again on another machine (`attach`) has to have them, too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from orchestrator.errors import ConfigError
from orchestrator.workflows.workspace import Workspace

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_OURS = ("TLVM_", "PYTHONPATH", "CUDA_VISIBLE_DEVICES")  # what a run sets itself
_BYTES_MAX = 128 * 1024  # all of them; a system takes no more for one variable


def variables(
    settings: Sequence[str],
    *,
    files: Sequence[Path] = (),
    given: Sequence[str] = (),
    environ: Mapping[str, str],
) -> dict[str, str]:
    """Names with values, a later source over an earlier one: settings, files in their order, what was given.

    settings, given     "NAME", whose value is that of this process, or "NAME=VALUE"
    files               a line each, the same; "#" begins a comment, `export ` and quotes around a value are left out
    ConfigError         names the source, and never a value
    """
    found: dict[str, str] = {}
    for text in settings:
        found |= _variable(text, "run.env of the settings", environ)
    for file in files:
        for number, text in _lines(file):
            found |= _variable(text, f"{file}, line {number}", environ)
    for text in given:
        found |= _variable(text, "--env", environ)
    if (
        sum(len(name) + len(value.encode(errors="surrogateescape")) for name, value in found.items())
        > _BYTES_MAX
    ):
        raise ConfigError(
            f"The variables of the run have more than {_BYTES_MAX // 1024} kB",
            next="Put what is large into a file of the dataset, or of the image of the machine.",
        )
    return found


def of_run(workspace: Workspace, given: Sequence[str] = (), files: Sequence[Path] = ()) -> dict[str, str]:
    """What a new run gets: the settings', then what was given with it."""
    run = workspace.settings.run
    own = [_beside(workspace, run.env_file)] if run.env_file else []
    return variables(run.env, files=[*own, *files], given=given, environ=os.environ)


def again(
    workspace: Workspace, run_id: str, names: Sequence[str], given: Mapping[str, str]
) -> dict[str, str]:
    """What a run was begun with, to begin it on another machine: as given now, or as the settings and we have it.

    Out of our own environment comes only what the user has named on this computer: `names` are the store's word.
    """
    if not names:
        return dict(given)
    record = workspace.records.run(run_id)
    known = set(record.environment) if record else set()
    there = {name: os.environ[name] for name in known if name in os.environ}
    run = workspace.settings.run
    if run.env_file or run.env:
        there |= of_run(workspace)
    return require(names, there | dict(given), run_id)


def require(names: Sequence[str], there: Mapping[str, str], run: str) -> dict[str, str]:
    """Those that a run was begun with. ConfigError with what is missing here."""
    if missing := [name for name in names if name not in there]:
        raise ConfigError(
            f"The run {run} needs variables that are not set here: {', '.join(missing)[:400]}",
            detail="Their values were sent to the machine that is gone, and are kept nowhere.",
            next=f"export {missing[0][:80]}=... first, then tlvm attach --env {missing[0][:80]} {run[-4:]}",
        )
    return {name: there[name] for name in names}


def _beside(workspace: Workspace, file: Path) -> Path:
    """A file that the settings name lies beside them."""
    return workspace.project_folder / file.expanduser()


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    try:
        text = file.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error.strerror)
        raise ConfigError(
            f"The file of variables {file} can't be read: {why}",
            next="--env-file takes a file with a line NAME=VALUE for each variable.",
        ) from None
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            yield number, _unquoted(stripped.removeprefix("export ").strip())


def _unquoted(text: str) -> str:
    name, equals, value = text.partition("=")
    value = value.strip()
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1]
    return f"{name.strip()}{equals}{value}"


def _variable(text: str, source: str, environ: Mapping[str, str]) -> dict[str, str]:
    name, equals, value = text.partition("=")
    if not _NAME.fullmatch(name):
        shown = f": {name[:40]!r}" if equals else ""  # without "=", all of it may be a secret
        raise ConfigError(f"{source} is not NAME or NAME=VALUE{shown}", next="For example: --env NAME")
    if name.startswith(_OURS):
        raise ConfigError(f"{source}: {name} is set by the run itself", next="Leave it out.")
    if not equals:
        if name not in environ:
            raise ConfigError(
                f"{source}: the variable {name} is not set here",
                next=f"export {name}=... first; a value in the command line would be seen by others (ps).",
            )
        value = environ[name]
    if "\0" in value:
        raise ConfigError(f"{source}: the value of {name} holds a zero byte", next="Encode it.")
    return {name: value}
