"""The settings of tlvm, section by section: their types, defaults, and what the file says of each."""

from __future__ import annotations

import getpass
import hashlib
import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, field_validator

from remote.contract.run_spec import StoreRef

ProviderName = Literal["local", "docker", "gce"]
PROVIDERS: tuple[str, ...] = get_args(ProviderName)
_HOURS = {"local": 168.0, "docker": 24.0, "gce": 4.0}  # long enough for any training where nothing is rented
_IDLE_MINUTES = 30.0
_NAMES_IN_ORDER = "names in order of preference, separated by commas"


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StoreSettings(Section):
    url: str = Field(
        default="", description="gs://bucket, or a folder; empty: a folder in the user's data directory"
    )
    endpoint: str | None = Field(default=None, description="another address of the storage API than Google's")
    credentials_file: Path | None = Field(
        default=None, description="a service account's key file; default: gcloud's login"
    )


class MachineSettings(Section):
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


class GceSettings(Section):
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
    os_login: bool = Field(
        default=False, description="log in through OS Login, where your organisation enforces it"
    )
    accept_first_host_key: bool = Field(
        default=False,
        description="where a machine never says its host key to Google: take, unproven, the one that it shows first",
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


class DatasetSettings(Section):
    name: str | None = Field(default=None, description="the dataset that `run` takes when there are several")


class RunSettings(Section):
    model: str = Field(default="resnet18", description="a classification model of torchvision")
    weights: str = Field(default="imagenet", description='"imagenet", a file, "run:ID", or "none"')
    seed: int = Field(default=0, ge=0, lt=2**32)
    max_hours: float = Field(default=24.0, gt=0, le=168)
    env: tuple[str, ...] = Field(
        default=(), description='variables that the training gets: "NAME", as it is set here, or "NAME=VALUE"'
    )
    env_file: Path | None = Field(default=None, description="a file of such lines; secrets belong there")

    @field_validator("env", mode="before")
    @classmethod
    def _several(cls, value: object) -> object:
        names = _split(value)
        return tuple(names) if names is not None else value


class Settings(Section):
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


def _split(value: object) -> list[str] | None:
    """ "a, b" or ["a", "b"] as names; None for anything else."""
    if isinstance(value, str):
        value = value.split(",")
    if isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value):
        return [name.strip() for name in value if name.strip()]
    return None


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
