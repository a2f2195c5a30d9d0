"""`tlvm quota`: how many machines Google lets you have, and how to ask for more."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.config import nearest
from orchestrator.errors import ConfigError
from orchestrator.providers.rented import Quota, QuotaRequest, Rented
from orchestrator.workflows.up import spec_of
from orchestrator.workflows.workspace import Workspace


@dataclass(frozen=True)
class QuotaResult:
    provider: str
    quotas: list[Quota]  # those that a machine as tlvm.toml describes it takes from
    lacking: list[Quota]  # those of them that are too small for it


@dataclass(frozen=True)
class QuotaRequests:
    """Google takes no such request from a program without asking a person: these are the exact ways."""

    requests: list[QuotaRequest]


def quota(workspace: Workspace) -> QuotaResult:
    """ConfigError on a provider where nothing is rented."""
    found = rented(workspace, "quotas").quotas(spec_of(workspace))
    return QuotaResult(workspace.settings.provider, found, [one for one in found if one.left < one.needed])


def quota_request(
    workspace: Workspace, metric: str | None = None, *, value: float | None = None, region: str = ""
) -> QuotaRequests:
    """How to ask for what lacks; or for `value` of the quota `metric`, in `region` where it is a region's.

    ConfigError     there is no such quota, or it is not known which region is meant
    """
    account = rented(workspace, "quotas")
    if metric is None:
        found = quota(workspace)
        wanted = [(one, value or one.used + one.needed) for one in found.lacking]
        return QuotaRequests([account.quota_request(one.metric, one.region, most) for one, most in wanted])
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
    return QuotaRequests([account.quota_request(chosen[0].metric, chosen[0].region, value)])


def rented(workspace: Workspace, what: str) -> Rented:
    found = workspace.rented
    if found is None:
        raise ConfigError(
            f"The provider {workspace.settings.provider} rents nothing, so it has no {what}",
            next="Add --provider gce.",
        )
    return found
