"""What a machine would meet: zones and quotas, image, network, the ways in."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import requests

from orchestrator.providers.base import Offer
from orchestrator.providers.findings import Finding
from orchestrator.providers.rented import Quota
from remote.contract.wording import listed

from . import firewall, images, oslogin, places, quota_requests, quotas
from .checks_context import AUTH, CLOUD, CONFIG, QUOTA, Context
from .prices import LIST

_ASK = "tlvm quota request asks for one (minutes to days; a Free Trial account must upgrade first)"
_ANSWER = "tlvm quota shows the answer"
_CLOCK_OFF_S = 60.0  # from here on signatures come close to being refused
_CLOCK_WRONG_S = 240.0
_SHOWN = 6


def zones_and_quotas(context: Context) -> list[Finding]:
    """Which zones have the accelerator, and whether the quotas let a machine into one of them."""
    with ThreadPoolExecutor(2) as pool:
        project = pool.submit(context.rest.get, "")
        regional = pool.submit(quotas.regions, context.rest, context.regions)
        there = places.look(context.rest, places.zones(context.rest, context.settings))
        found = places.offers(context.spec, context.settings, there, LIST)
        tables, everywhere = regional.result(), quotas.told(project.result())
    return [
        *_offering(found, [zone.name for zone in there]),
        *_allowed(
            context, found, everywhere, tables, {one.name: one.cpus for zone in there for one in zone.types}
        ),
    ]


def os_login(context: Context) -> list[Finding]:
    """Where a policy enforces OS Login, keys in the metadata open nothing."""
    if context.settings.os_login:
        return through_os_login(context)
    found = context.services.get(
        "orgpolicy",
        f"v2/projects/{context.project}/policies/compute.requireOsLogin:getEffectivePolicy",
        doing="say whether OS Login is enforced",
    )
    rules = (found.get("spec") or {}).get("rules") or []
    if any(rule.get("enforce") for rule in rules):
        text = "a policy of your organisation enforces OS Login (compute.requireOsLogin), and gce.os_login is false"
        return [Finding("fail", "os login", text, "Write os_login = true below [gce] in tlvm.toml", AUTH)]
    return [Finding("ok", "os login", "not enforced; machines have it off")]


def through_os_login(context: Context) -> list[Finding]:
    """By which name the account comes in, and whether it may."""
    account = context.rest.account()
    name = oslogin.name(context.rest, account)
    found = context.services.post(
        "cloudresourcemanager",
        f"v1/projects/{context.project}:testIamPermissions",
        {"permissions": list(oslogin.PERMISSIONS)},
        doing="say what you may do",
    )
    if not found.get("permissions"):
        command = f"gcloud projects add-iam-policy-binding {context.project} --member={context.member} --role={oslogin.ROLE}"
        text = f"you may not log in to machines of {context.project} through OS Login"
        return [Finding("fail", "os login", text, f"Ask the owner: {command}", AUTH)]
    return [Finding("ok", "os login", f"on, as gce.os_login says: you come in as {name}")]


def image(context: Context) -> list[Finding]:
    found = images.find(context.rest, context.settings, context.spec.image)
    for accelerator in places.accelerators(context.spec):
        images.check_generation(found, accelerator)
    return [Finding("ok", "image", found.family or found.link.rpartition("/")[2])]


def network(context: Context) -> list[Finding]:
    """The network is there; without addresses, its subnetworks lead to the bucket."""
    name = context.settings.network
    if context.rest.find(f"global/networks/{name}") is None:
        return [
            Finding(
                "fail",
                "network",
                f"the project has no network {name}",
                f"gcloud compute networks create {name} --subnet-mode=auto, or name yours in gce.network",
                CONFIG,
            )
        ]
    for region in context.regions:
        firewall.check_private_access(context.rest, context.settings, region)
    through = ", without addresses" if context.settings.iap else ""
    return [Finding("ok", "network", f"{name}{through}")]


def ssh(context: Context) -> list[Finding]:
    """The way in: whose address is let through, or gcloud for Google's proxy."""
    if context.settings.iap:
        if shutil.which("gcloud") is None:
            text = "--iap goes through gcloud, which is not installed here"
            return [Finding("fail", "ssh", text, "Install it: cloud.google.com/sdk/docs/install", CONFIG)]
        return [Finding("ok", "ssh", "through Google's proxy, with gcloud")]
    sources = firewall.ssh_sources(context.settings)
    return [Finding("ok", "ssh", f"only from {', '.join(sources.ranges)}, as {sources.said_by} says")]


def clock(context: Context) -> list[Finding]:
    """A clock that is off has every signature refused, and puts the end of a machine elsewhere."""
    try:
        answer = requests.head(context.rest.endpoint, timeout=5, allow_redirects=False)
        theirs = parsedate_to_datetime(answer.headers["Date"])
    except (requests.RequestException, KeyError, ValueError, TypeError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0][:120]
        return [Finding("warn", "clock", f"can't be compared with Google's: {why}", "Look at your network.")]
    off_s = abs((datetime.now(UTC) - theirs).total_seconds())
    text = f"{off_s:.0f} s from Google's"
    if off_s >= _CLOCK_WRONG_S:
        return [Finding("fail", "clock", text, "Set it: timedatectl set-ntp true", CLOUD)]
    if off_s >= _CLOCK_OFF_S:
        return [Finding("warn", "clock", text, "Set it: timedatectl set-ntp true")]
    return [Finding("ok", "clock", text)]


def _offering(found: list[Offer], looked_at: list[str]) -> list[Finding]:
    findings = []
    for accelerator in dict.fromkeys(offer.accelerator for offer in found):
        zones = [offer.place for offer in found if offer.accelerator == accelerator]
        without = [zone for zone in looked_at if zone not in zones]
        skipped = f"; not in {_some(without)}" if without else ""
        what = "a machine without a GPU" if accelerator == "none" else accelerator
        findings.append(Finding("ok", "zones", f"{what} in {_some(zones)}{skipped}"))
    return findings


def _allowed(
    context: Context,
    found: list[Offer],
    everywhere: dict[str, Quota],
    tables: dict[str, dict[str, Quota]],
    cpus: dict[str, float],
) -> list[Finding]:
    """One place that is allowed is enough; the others are a warning."""
    short: dict[str, Quota] = {}
    allowed: list[str] = []
    for offer in found:
        needed = quotas.needs(offer, context.spec, context.settings, cpus.get(offer.machine_type, 0))
        lacking = quotas.lacking(needed, everywhere, tables.get(offer.region, {}))
        short |= {f"{quota.region} {quota.metric}": quota for quota in lacking}
        if not lacking:
            allowed.append(offer.place)
    if not allowed:
        told = quota_requests.with_requests(context.rest, short.values())
        without = "tlvm up --accelerator none, or " if all("GPU" in quota.metric for quota in told) else ""
        runs = f"meanwhile: {without}tlvm run SCENARIO --provider local"
        return [
            Finding("fail", "quota", _word(quota), f"{_ANSWER if quota.is_awaited else _ASK}; {runs}", QUOTA)
            for quota in told
        ]
    findings = [
        Finding("warn", "quota", _word(quota), "those places are skipped; tlvm quota shows all")
        for quota in short.values()
    ]
    return [*findings, Finding("ok", "quota", f"enough in {_some(allowed)}")]


def _word(quota: Quota) -> str:
    where = f" in {quota.region}" if quota.region else ""
    on = f" on {quota.asked_on}" if quota.asked_on else ""
    asked = f", {quota.asked:g} asked for{on}, {'pending' if quota.is_pending else 'not granted'}"
    return f"{quota.metric} {quota.left:g} of {quota.limit:g} left{where}" + (asked if quota.asked else "")


def _some(names: list[str]) -> str:
    return listed(names, _SHOWN)
