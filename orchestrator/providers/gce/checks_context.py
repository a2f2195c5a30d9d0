"""What every look of `tlvm doctor` at a project gets, and the exit codes that a failure asks for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from orchestrator.config import GceSettings
from orchestrator.providers.base import MachineSpec
from remote.contract.run_spec import StoreRef

from .errors import setup
from .request import service_account
from .rest import Rest
from .services import Services, bucket_of

CONFIG, AUTH, QUOTA, CLOUD = 2, 5, 6, 7


@dataclass(frozen=True)
class Context:
    rest: Rest
    settings: GceSettings
    spec: MachineSpec
    store: StoreRef

    @cached_property
    def services(self) -> Services:
        return Services(self.rest)

    @property
    def project(self) -> str:
        return self.rest.project

    @cached_property
    def member(self) -> str:
        """Who asks, as policies name them."""
        who = self.rest.account()
        if "@" not in who:
            return "user:YOU"
        return f"{'serviceAccount' if who.endswith('.gserviceaccount.com') else 'user'}:{who}"

    @property
    def account(self) -> str:
        """What machines run as."""
        return service_account(self.settings, self.project)

    @property
    def regions(self) -> list[str]:
        """Of the zones and regions that the user named."""
        names = (name if name.count("-") < 2 else name.rpartition("-")[0] for name in self.settings.zones)
        return list(dict.fromkeys(names))

    @property
    def setup(self) -> str:
        """The command that makes the machines' account and gives it its rights."""
        return setup(self.project, bucket_of(self.store) or "BUCKET")
