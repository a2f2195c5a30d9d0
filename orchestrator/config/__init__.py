"""`tlvm.toml`, environment variables and flags become one `Settings`: strict, frozen, and nothing is read later.

Flags override environment variables, which override the file. The variable of `[machine] disk_gb` is
`TLVM_MACHINE_DISK_GB`, that of `provider` is `TLVM_PROVIDER`. Without a file everything has a default and
the provider is `local`, where nothing is rented.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orchestrator.config.settings import (
    PROVIDERS,
    DatasetSettings,
    GceSettings,
    MachineSettings,
    ProviderName,
    RunSettings,
    Section,
    Settings,
    StoreSettings,
    data_dir,
)
from orchestrator.errors import ConfigError
from remote.contract import scenarios
from remote.contract.document import ContractError

__all__ = [
    "FILE",
    "PROVIDERS",
    "DatasetSettings",
    "GceSettings",
    "MachineSettings",
    "ProviderName",
    "RunSettings",
    "Settings",
    "StoreSettings",
    "keys",
    "load",
    "nearest",
    "variables",
]

FILE = "tlvm.toml"
OTHER_VARIABLES = ("TLVM_DATA_DIR", "TLVM_MACHINE", "TLVM_MACHINE_ID")  # the last two are set on machines
_RENTED_ONLY = ("machine_type", "spot", "budget", "idle_minutes", "idle_action")


def load(
    flags: Mapping[str, Any],
    *,
    environ: Mapping[str, str] = os.environ,
    folder: Path | None = None,
) -> Settings:
    """The settings in force in `folder` (the current one), from `tlvm.toml` there or in the nearest parent.

    flags         by dotted name, {"machine.name": "x"}; None means not given
    ConfigError   names the file or variable, the key, and the nearest key that exists
    """
    folder = (folder or Path.cwd()).absolute()
    file = _find(folder)
    values = _read(file) if file else {}
    sources = {".".join(path): str(file) for path in _paths(values)}
    _no_unknown_variable(environ)
    chosen = flags.get("provider") or environ.get("TLVM_PROVIDER") or values.get("provider")
    if chosen != values.get("provider", "local"):
        _forget_machine(values)
    for path, variable in variables().items():
        if environ.get(variable):  # an empty one is what CI calls not set
            _put(values, path, environ[variable])
            sources[path] = f"environment variable {variable}"
    for path, value in flags.items():
        if value is not None:
            _put(values, path, value)
            sources[path] = f"--{_flag(path)}"
    try:
        settings = Settings(
            **values, file=file, folder=file.parent if file else folder, data_dir=data_dir(environ)
        )
    except ValidationError as error:
        raise _explain(error, sources, str(file or "the settings")) from None
    _check_rented(settings, sources)
    for name, parameters in settings.scenarios.items():
        _check_scenario(name, parameters, str(file))
    return settings


def variables() -> dict[str, str]:
    """The environment variable of every setting: {"machine.disk_gb": "TLVM_MACHINE_DISK_GB"}."""
    return {path: "TLVM_" + path.replace(".", "_").upper() for path in keys()}


def keys() -> list[str]:
    """Every key of `tlvm.toml` but those of scenarios, dotted."""
    names = []
    for name, field in Settings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            names += [f"{name}.{key}" for key in section.model_fields]
        elif name not in ("scenarios", "file", "folder", "data_dir"):
            names.append(name)
    return names


def nearest(name: str, valid: list[str]) -> str:
    """`Did you mean X?`, or what is valid when nothing is near."""
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else "Valid: " + ", ".join(sorted(valid))


def _find(folder: Path) -> Path | None:
    return next((path / FILE for path in (folder, *folder.parents) if (path / FILE).is_file()), None)


def _read(file: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not valid TOML", detail=str(error), next="Mend that line.") from None
    except OSError as error:
        raise ConfigError(f"{file} can't be read", detail=str(error), next="Make it readable.") from None
    for internal in ("file", "folder", "data_dir"):
        if internal in values:
            raise ConfigError(f"{file}: unknown key {internal!r}", next=nearest(internal, keys()))
    return values


def _no_unknown_variable(environ: Mapping[str, str]) -> None:
    """A cap on cost that is misspelled must not be lost."""
    known = [*variables().values(), *OTHER_VARIABLES]
    for name in sorted(environ):
        if name.startswith("TLVM_") and environ[name] and name not in known:
            raise ConfigError(f"environment variable {name[:80]} is no setting", next=nearest(name, known))


def _forget_machine(values: dict[str, Any]) -> None:
    """A file's [machine] describes a machine of the file's provider; of another one only the name is meant."""
    if values.get("provider") == "gce" and isinstance(machine := values.get("machine"), dict):
        values["machine"] = {key: value for key, value in machine.items() if key == "name"}


def _check_rented(settings: Settings, sources: Mapping[str, str]) -> None:
    """What only a rented machine has is refused elsewhere: a clock that nobody keeps would be a false promise."""
    if settings.provider == "gce":
        return
    for key in _RENTED_ONLY:
        if getattr(settings.machine, key) != MachineSettings.model_fields[key].default:
            raise ConfigError(
                f"{sources.get(f'machine.{key}', 'the settings')}: machine.{key} means nothing on {settings.provider}",
                next=f"Leave it out; on {settings.provider} nothing is rented, and max_hours ends the machine.",
            )


def _check_scenario(name: str, parameters: Mapping[str, Any], file: str) -> None:
    if name not in scenarios.SCENARIOS:
        raise ConfigError(
            f"{file}: unknown scenario {'scenarios.' + name[:80]!r}",
            next=nearest(name, list(scenarios.SCENARIOS)),
        )
    valid = [parameter.name for parameter in scenarios.SCENARIOS[name].parameters]
    for key in parameters:
        if key not in valid:
            raise ConfigError(
                f"{file}: unknown key {f'scenarios.{name}.{key[:80]}'!r}", next=nearest(key, valid)
            )
    try:
        scenarios.resolve(name, parameters)
    except ContractError as error:
        raise ConfigError(f"{file}: [scenarios.{name}]", detail=str(error), next="Change it there.") from None


def _paths(values: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _paths(value, (*above, key))
        else:
            yield (*above, key)


def _put(values: dict[str, Any], path: str, value: Any) -> None:
    *sections, key = path.split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            return  # the file holds a plain value where a section belongs: validation names it
        values = inner
    values[key] = value


def _explain(error: ValidationError, sources: Mapping[str, str], file: str) -> ConfigError:
    problem = error.errors()[0]
    path = ".".join(str(part) for part in problem["loc"])
    source = sources.get(path, file)
    if problem["type"] == "extra_forbidden":
        return ConfigError(f"{source}: unknown key {path!r}", next=_belongs(path))
    if path == "provider":
        wrong = str(problem["input"])
        return ConfigError(f"{source}: unknown provider {wrong!r}", next=nearest(wrong, list(PROVIDERS)))
    if problem["type"] in ("model_type", "dict_type"):
        return ConfigError(
            f"{source}: {path} is a section, not a value",
            detail=f"Found {path} = {str(problem['input'])[:80]!r}.",
            next=f"Write [{path}] on a line of its own, and its keys below.",
        )
    return ConfigError(
        f"{source}: {path} = {str(problem['input'])[:80]!r} is not valid",
        detail=_wanted(problem["type"], problem["msg"]),
        next=f"Change it there; `tlvm init` writes a commented {FILE}.",
    )


def _belongs(path: str) -> str:
    """Where a key that is unknown should go: parameters of scenarios have sections of their own."""
    key = path.rpartition(".")[2]
    for scenario in scenarios.SCENARIOS.values():
        if key in (parameter.name for parameter in scenario.parameters):
            return f"{key} belongs to a scenario: write it below [scenarios.NAME], as in [scenarios.{scenario.name}]."
    return nearest(path, [*keys(), "scenarios"])


def _wanted(kind: str, message: str) -> str:
    """What a value should be; pydantic's own words where they are for people."""
    if kind == "string_pattern_mismatch":
        return "It takes a-z, 0-9 and '-', begins with a letter, and has at most 63 characters."
    return message.replace("Input should", "It should")


def _flag(path: str) -> str:
    """The option of a setting: that of machine.name is --machine, that of machine.disk_gb --disk-gb."""
    section, _, key = path.rpartition(".")
    return (section if key == "name" else key).replace("_", "-")
