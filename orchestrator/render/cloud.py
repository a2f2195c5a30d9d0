"""What a project in the cloud allows and offers: quota, gpus."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from orchestrator.providers.rented import AcceleratorKind, Quota, QuotaRequest
from orchestrator.render.console import Screen
from orchestrator.render.text import columns, price
from orchestrator.workflows.setup.gpus import GpusResult
from orchestrator.workflows.setup.quota import ALL_GPUS, QuotaRequests, QuotaResult

_ZONES_MAX = 3


def allowed(screen: Screen, result: QuotaResult) -> None:
    rows = [("", "quota", "where", "limit", "in use", "needed", "asked for"), *map(_quota, result.quotas)]
    lacking = [True, *(quota in result.lacking for quota in result.quotas)]
    for line, is_short in zip(columns(rows), lacking, strict=True):
        screen.line(line, style="yellow" if is_short and line.startswith("short") else "")
    without_gpu = [quota for quota in result.quotas if quota.metric == ALL_GPUS and quota.limit == 0]
    awaited = [quota for quota in result.lacking or without_gpu if quota.is_awaited]
    for quota in awaited:
        screen.line(_awaited(quota))
    if result.lacking:
        unasked = [quota for quota in result.lacking if quota not in awaited]
        if any("GPU" in quota.metric for quota in unasked):
            screen.line(
                "A GPU that is not allowed yet: minutes to days; a Free Trial account must upgrade first."
            )
        first = "tlvm quota request" if unasked else "tlvm quota shows the answer"
        screen.next(f"{first}     {_meanwhile(quota.metric for quota in result.lacking)}")
    elif without_gpu and not awaited:
        screen.next("tlvm up --dry-run     for a GPU: tlvm quota request")
    else:
        screen.next("tlvm up --dry-run")


def asked(screen: Screen, result: QuotaRequests) -> None:
    for quota in result.pending:
        screen.line(_awaited(quota))
    if not result.requests and not result.pending:
        screen.line("Your quotas are enough for this machine.")
        screen.next("tlvm up --dry-run     to ask for more: tlvm quota request QUOTA --value N")
        return
    for request in result.requests:
        request_to(screen, request, result.dry_run)
    if any(not request.is_sent for request in result.requests):
        screen.line(f"or on the page {result.requests[0].link}")
        screen.next("run that; the answer comes by mail, and tlvm quota shows it")
    else:
        short = [quota.metric for quota in result.pending] + [one.metric for one in result.requests]
        screen.next(f"tlvm quota shows the answer     {_meanwhile(short)}")


def request_to(screen: Screen, request: QuotaRequest, dry_run: bool = False) -> None:
    """Sent, or how to send it by hand."""
    what = f"{request.metric}{_where(request.region)}, to {request.value:g}"
    if request.is_sent:
        screen.line(f"asked   {what}: Google answers by mail, after minutes to days", style="green")
        return
    if dry_run:
        screen.line(f"{what}:")
    else:
        screen.line(f"not asked   {what}: {request.refused}. By hand:", style="yellow")
    screen.line(f"  {shlex.join(request.command)}")


def offered(screen: Screen, result: GpusResult) -> None:
    header = ("", "GPU", "$/h", "spot", "you may", "zones")
    for line in columns([header, *map(_kind, result.accelerators)]):
        screen.line(line)
    screen.line(
        f"A machine with one, disk and address included; estimates from {result.prices}.", style="dim"
    )
    screen.next("tlvm up --accelerator NAME --dry-run     more of them: tlvm quota request")


def _quota(quota: Quota) -> tuple[str, ...]:
    word = "short" if quota.left < quota.needed else "ok"
    where = quota.region or "project"
    on = f" on {quota.asked_on}" if quota.asked_on else ""
    asked = f"{quota.asked:g}{on}, {'pending' if quota.is_pending else 'not granted'}" if quota.asked else ""
    return word, quota.metric, where, f"{quota.limit:g}", f"{quota.used:g}", f"{quota.needed:g}", asked


def _awaited(quota: Quota) -> str:
    return (
        f"{quota.metric}{_where(quota.region)}: {quota.asked:g} asked for"
        + (f" on {quota.asked_on}" if quota.asked_on else "")
        + ", pending: Google answers by mail, after minutes to days."
    )


def _meanwhile(metrics: Iterable[str]) -> str:
    """What runs while these are too small."""
    without = "tlvm up --accelerator none, or " if all("GPU" in metric for metric in metrics) else ""
    return f"meanwhile: {without}tlvm run SCENARIO --provider local"


def _where(region: str) -> str:
    return f" in {region}" if region else " of the project"


def _kind(kind: AcceleratorKind) -> tuple[str, ...]:
    told = [left for left in kind.quota.values() if left is not None]
    may = f"{max(told):g}" if told else "?"
    more = f" +{len(kind.zones) - _ZONES_MAX}" if len(kind.zones) > _ZONES_MAX else ""
    title = kind.title if kind.count == 1 else f"{kind.count} × {kind.title}"
    prices = (price(kind.per_hour), price(kind.per_hour_spot)) if kind.per_hour else ("?", "?")
    return kind.short or kind.name, title, *prices, may, " ".join(kind.zones[:_ZONES_MAX]) + more
