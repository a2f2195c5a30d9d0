"""`tlvm quota`: how many machines Google lets you have, and asking for more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator.config import nearest
from orchestrator.errors import ConfigError
from orchestrator.providers.rented import Quota, QuotaRequest, Rented
from orchestrator.workflows.machines.up import spec_of
from orchestrator.workflows.workspace import Workspace

ALL_GPUS = "GPUS_ALL_REGIONS"


@dataclass(frozen=True)
class QuotaResult:
    provider: str
    quotas: list[Quota]  # those that a machine as tlvm.toml describes it takes from
    lacking: list[Quota]  # those of them that are too small for it


@dataclass(frozen=True)
class QuotaRequests:
    """What was asked for, or would be."""

    requests: list[QuotaRequest]
    dry_run: bool = False  # nothing was sent: that was not asked for, or the answer was no
    pending: list[Quota] = field(default_factory=list)  # not asked for again: Google has not answered yet

    @property
    def exit_code(self) -> int:
        return 0 if self.dry_run or all(request.is_sent for request in self.requests) else 7


def quota(workspace: Workspace) -> QuotaResult:
    """ConfigError on a provider where nothing is rented."""
    found = rented(workspace, "quotas").quotas(spec_of(workspace))
    return QuotaResult(workspace.settings.provider, found, [one for one in found if one.left < one.needed])


def quota_request(
    workspace: Workspace,
    metric: str | None = None,
    *,
    value: float | None = None,
    region: str = "",
    dry_run: bool = False,
    confirm: Callable[[str], bool] | None = None,
) -> QuotaRequests:
    """Ask for what lacks; or for `value` of the quota `metric`, in `region` where it is a region's.

    A project without any GPU, which is what a new account has, is asked one for, whatever the machine of tlvm.toml.
    dry_run         say how, and send nothing
    confirm         asked once, before anything is sent
    ConfigError     there is no such quota, or it is not known which region is meant
    """
    account = rented(workspace, "quotas")
    pending: list[Quota] = []
    if metric is None:
        found = quota(workspace)
        short = found.lacking or [one for one in found.quotas if one.metric == ALL_GPUS and one.limit == 0]
        wanted = [(one, value or one.used + max(1.0, one.needed)) for one in short]
        pending = [one for one, most in wanted if one.is_awaited and one.asked >= most]
        requests = [
            account.quota_request(one.metric, one.region, most) for one, most in wanted if one not in pending
        ]
    else:
        requests = [_named(workspace, account, metric, value, region)]
    what = ", ".join(
        f"{one.metric} to {one.value:g}" + (f" in {one.region}" if one.region else "") for one in requests
    )
    if dry_run or not requests or (confirm and not confirm(f"Ask Google to raise {what}?")):
        return QuotaRequests(requests, True, pending)
    return QuotaRequests([account.send_quota_request(request) for request in requests], False, pending)


def _named(
    workspace: Workspace, account: Rented, metric: str, value: float | None, region: str
) -> QuotaRequest:
    if value is None or value <= 0:
        raise ConfigError(f"Nothing says how many of {metric[:60]} you want", next="Add --value N.")
    there = quota(workspace).quotas
    same = [one for one in there if one.metric == metric.upper()]
    if not same:
        known = sorted({one.metric for one in there})
        raise ConfigError(
            f"No quota {metric[:60]!r} matters for your machine", next=nearest(metric.upper(), known)
        )
    chosen = [one for one in same if region in ("", one.region)]
    if len(chosen) != 1:
        regions = ", ".join(one.region for one in same)
        raise ConfigError(
            f"{metric.upper()} is a quota of each region", next=f"Add --region, one of {regions}."
        )
    return account.quota_request(chosen[0].metric, chosen[0].region, value)


def rented(workspace: Workspace, what: str) -> Rented:
    found = workspace.rented
    if found is None:
        raise ConfigError(
            f"The provider {workspace.settings.provider} rents nothing, so it has no {what}",
            next="Add --provider gce.",
        )
    return found
