"""Providers make machines. They do not know each other; they are named as strings and imported on use."""

from __future__ import annotations

import difflib
import importlib
from pathlib import Path
from typing import cast

from orchestrator.config import GceSettings
from orchestrator.errors import ConfigError
from orchestrator.progress import Progress
from remote.contract.attempts import Attempts

from .base import Provider
from .retrying import retrying

NAMES = {
    "docker": "orchestrator.providers.docker:DockerProvider",
    "gce": "orchestrator.providers.gce:GceProvider",
    "local": "orchestrator.providers.local:LocalProvider",
}


def provider(
    name: str,
    *,
    data_dir: Path,
    progress: Progress | None = None,
    gce: GceSettings | None = None,
    attempts: Attempts | None = None,
    owner: str = "",
) -> Provider:
    """The provider of that name.

    data_dir      the user's data directory: where this computer keeps what no cloud keeps for it
    progress      where `docker` shows that it builds its image, which takes minutes the first time
    gce           where and how `gce` makes its machines
    attempts      how often `gce` asks again what may succeed a moment later
    owner         whose machines `gce` deletes: a cloud's names are not one person's alone
    ConfigError   when there is no such provider
    """
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1)
        raise ConfigError(
            f"There is no provider {name!r}",
            detail=f"Did you mean {near[0]!r}?" if near else "",
            next=f"The providers are {', '.join(sorted(NAMES))}.",
        )
    module, _, attribute = NAMES[name].partition(":")
    make = getattr(importlib.import_module(module), attribute)
    if name == "gce":
        prices_file = data_dir / "cache" / "gce-prices.json"
        made = make(gce or GceSettings(), progress, prices_file=prices_file, owner=owner)
        return cast(Provider, retrying(made, attempts or Attempts()))
    return cast(Provider, make(data_dir, progress) if name == "docker" else make(data_dir))
