"""What a machine of Google Cloud needs to be told, whatever the place: asked before anything is sent."""

from __future__ import annotations

import re
import shutil

from orchestrator.config import GceSettings
from orchestrator.errors import ConfigError
from orchestrator.providers.base import MachineSpec

from .errors import setup
from .request import service_account
from .services import bucket_of

_DEFAULT_ACCOUNT = re.compile(r"\d+-compute@developer\.gserviceaccount\.com|default")


def require_possible(spec: MachineSpec, settings: GceSettings) -> None:
    """ConfigError for what can never be."""
    if not spec.store.url.startswith("gs://"):
        raise ConfigError(
            f"A machine of Google Cloud can't reach the store {spec.store.url}",
            next='Name a bucket: [store] url = "gs://BUCKET".',
        )
    if settings.iap and shutil.which("gcloud") is None:
        raise ConfigError(
            "--iap goes through gcloud, which is not installed here",
            next="Install it (cloud.google.com/sdk/docs/install), or leave --iap out.",
        )
    account, bucket = service_account(settings, ""), bucket_of(spec.store)
    if _DEFAULT_ACCOUNT.fullmatch(account):
        raise ConfigError(
            f"gce.service_account = {account!r} is the default account, which may do nearly everything",
            next=f"Leave it out, and make ours: {setup(settings.project or 'PROJECT', bucket)}",
        )
