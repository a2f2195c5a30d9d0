"""`tlvm.toml`, environment variables and flags become one `Settings`: strict, frozen, and nothing is read later.

Flags override environment variables, which override the file. The variable of `[machine] disk_gb` is
`TLVM_MACHINE_DISK_GB`, that of `provider` is `TLVM_PROVIDER`. Without a file everything has a default and
the provider is `local`, where nothing is rented.
"""

from __future__ import annotations

import difflib
import getpass
import hashlib
import ipaddress
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from orchestrator.errors import ConfigError
from remote.contract import scenarios
from remote.contract.document import ContractError
from remote.contract.run_spec import StoreRef

FILE = "tlvm.toml"
ProviderName = Literal["local", "docker", "gce"]
PROVIDERS: tuple[str, ...] = get_args(ProviderName)
OTHER_VARIABLES = ("TLVM_DATA_DIR", "TLVM_MACHINE", "TLVM_MACHINE_ID")  # the last two are set on machines
_HOURS = {"local": 168.0, "docker": 24.0, "gce": 4.0}  # long enough for any training where nothing is rented
_IDLE_MINUTES = 30.0
_RENTED_ONLY = ("machine_type", "spot", "budget", "idle_minutes", "idle_action")
_NAMES_IN_ORDER = "names in order of preference, separated by commas"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StoreSettings(_Section):
    url: str = Field(
        default="", description="gs://bucket, or a folder; empty: a folder in the user's data directory"
    )
    endpoint: str | None = Field(default=None, description="another address of the storage API than Google's")
    credentials_file: Path | None = Field(
        default=None, description="a service account's key file; default: gcloud's login"
    )


class MachineSettings(_Section):
    name: str | None = Field(
        default=None,
        pattern=r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$",
        description="default: tlvm-<owner>-<project folder>",
    )
    accelerator: str | None = Field(
        default=None,
        description='"none", or a kind of GPU: "nvidia" on docker; t4, l4, a100, a100-80gb, h100 on gce, several in order',
    )
    accelerator_count: int = Field(default=0, ge=0, le=16)
    disk_gb: int = Field(default=0, ge=0, le=65536, description="0: what the provider gives")
    cpus: float = Field(default=0.0, ge=0, description="0: all of them")
    memory_gb: float = Field(default=0.0, ge=0, description="0: all of it")
    max_hours: float | None = Field(
        default=None, gt=0, le=168, description="after this the machine ends by itself"
    )
    image: str = Field(
        default="", description="an image of your own: of Docker, or on gce projects/P/global/images/NAME"
    )
    machine_type: str = Field(default="", description="gce: instead of the one that fits the accelerator")
    spot: bool = Field(default=False, description="gce: cheaper, and may be taken away at any time")
    budget: float | None = Field(
        default=None, gt=0, description="gce: US dollars; a machine lives no longer than they last"
    )
    idle_minutes: float | None = Field(
        default=None, ge=0, le=10080, description="gce: so long without a run, the machine ends; 0: never"
    )
    idle_action: Literal["stop", "delete"] = Field(
        default="stop", description="gce: what its end is then; a stopped machine still costs its disk"
    )

    @field_validator("accelerator", mode="before")
    @classmethod
    def _several(cls, value: object) -> object:
        names = _split(value)
        return ",".join(names) if names is not None else value


class GceSettings(_Section):
    project: str = Field(default="", description="default: that of your login")
    zones: tuple[str, ...] = Field(
        default=("us-central1",), min_length=1, description=f"zones or regions: {_NAMES_IN_ORDER}"
    )
    network: str = "default"
    subnetwork: str = Field(default="", description="needed where the network does not make its own")
    ssh_source_ranges: tuple[str, ...] = Field(
        default=(), description="who may reach the machine's SSH server; default: your address"
    )
    address_lookup: str = Field(
        default="https://checkip.amazonaws.com", description="says your address; empty: nobody is asked"
    )
    iap: bool = Field(
        default=False, description="no address for the machine; SSH through Google's proxy (needs gcloud)"
    )
    service_account: str = Field(default="", description="default: tlvm-machine of the project")
    image_project: str = "deeplearning-platform-release"
    image_family: str = Field(default="", description="default: the newest PyTorch family that is alive")
    disk_type: str = Field(default="", description="default: what the machine type takes")
    credentials_file: Path | None = Field(
        default=None, description="a service account's key file; default: gcloud's login"
    )
    endpoint: str | None = Field(default=None, description="another address of the Compute Engine API")

    @field_validator("zones", "ssh_source_ranges", mode="before")
    @classmethod
    def _several(cls, value: object) -> object:
        names = _split(value)
        return tuple(names) if names is not None else value

    @field_validator("ssh_source_ranges")
    @classmethod
    def _networks(cls, ranges: tuple[str, ...]) -> tuple[str, ...]:
        for text in ranges:
            if ipaddress.ip_network(text, strict=False).prefixlen == 0:
                raise ValueError(f"{text} is everybody; name the networks that you come from")
        return ranges


class DatasetSettings(_Section):
    name: str | None = Field(default=None, description="the dataset that `run` takes when there are several")


class RunSettings(_Section):
    model: str = Field(default="resnet18", description="a classification model of torchvision")
    weights: str = Field(default="imagenet", description='"imagenet", a file, "run:ID", or "none"')
    seed: int = Field(default=0, ge=0, lt=2**32)
    max_hours: float = Field(default=24.0, gt=0, le=168)


class Settings(_Section):
    provider: ProviderName = "local"
    owner: str = Field(default="", description="default: your login name; a label on everything that is made")
    store: StoreSettings = StoreSettings()
    machine: MachineSettings = MachineSettings()
    dataset: DatasetSettings = DatasetSettings()
    run: RunSettings = RunSettings()
    gce: GceSettings = GceSettings()
    scenarios: dict[str, dict[str, Any]] = Field(default_factory=dict)

    file: Path | None = Field(default=None, exclude=True)
    folder: Path = Field(default_factory=Path.cwd, exclude=True)
    data_dir: Path = Field(default_factory=lambda: data_dir(os.environ), exclude=True)

    @property
    def project(self) -> str:
        """The project folder's name as a label; "default" where there is no `tlvm.toml`."""
        return _label(self.file.parent.name) if self.file else "default"

    @property
    def owner_label(self) -> str:
        return _label(self.owner or _login())

    @property
    def machine_name(self) -> str:
        """Carries owner and project folder, so that two people never adopt each other's machine."""
        return self.machine.name or f"tlvm-{self.owner_label}-{self.project}"[:63].rstrip("-")

    @property
    def max_hours(self) -> float:
        return self.machine.max_hours or _HOURS[self.provider]

    @property
    def accelerator(self) -> str:
        """Kinds of GPU in order of preference, separated by commas, or "none"."""
        return self.machine.accelerator or ("l4" if self.provider == "gce" else "none")

    @property
    def accelerator_count(self) -> int:
        """How many; where only a kind is named, one."""
        named = self.provider == "gce" and self.accelerator != "none"
        return self.machine.accelerator_count or int(named)

    @property
    def idle_minutes(self) -> float:
        """The soft clock; 0 where there is none."""
        if self.machine.idle_minutes is None:
            return _IDLE_MINUTES if self.provider == "gce" else 0.0
        return self.machine.idle_minutes

    @property
    def records_dir(self) -> Path:
        """`.tlvm/` beside `tlvm.toml`; without one, the same place for every folder."""
        return self.file.parent / ".tlvm" if self.file else self.data_dir / "records"

    @property
    def store_ref(self) -> StoreRef:
        url = self.store.url or str(self.data_dir / "store")
        if "://" not in url:
            url = str((self.folder / Path(url).expanduser()).resolve())
        credentials = self.store.credentials_file
        return StoreRef(
            url, self.store.endpoint, str(credentials.expanduser().resolve()) if credentials else None
        )


def data_dir(environ: Mapping[str, str]) -> Path:
    """Where local machines and the default store live, and the records of work without a `tlvm.toml`."""
    return Path(
        environ.get("TLVM_DATA_DIR") or platformdirs.user_data_dir("tlvm", appauthor=False)
    ).absolute()


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
        if isinstance(section, type) and issubclass(section, _Section):
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


def _split(value: object) -> list[str] | None:
    """ "a, b" or ["a", "b"] as names; None for anything else."""
    if isinstance(value, str):
        value = value.split(",")
    if isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value):
        return [name.strip() for name in value if name.strip()]
    return None


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


def _login() -> str:
    """The name of this user; a container may run under a number that has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user-{os.getuid()}"


def _label(text: str) -> str:
    """As a cloud label and a part of a name: lower-case letters, digits and "-".

    Names of which nothing is left, in other scripts, keep apart by a short hash.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:30].strip("-")
    return plain or "x" + hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]
