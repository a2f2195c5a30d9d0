"""`tlvm init` for Google Cloud: a new account has no GPU at all, so it is looked at before ten questions are asked."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from orchestrator.config import Settings, load
from orchestrator.errors import ConfigError, TlvmError
from orchestrator.providers.rented import QuotaRequest, Rented, Standing
from orchestrator.workflows.setup.answers import Answers, Asking, Chosen
from orchestrator.workflows.setup.quota import ALL_GPUS
from orchestrator.workflows.workspace import Workspace
from remote.contract.run_spec import StoreRef

_NO_GPU = {
    "local": "this computer, free",
    "none": "a cloud machine without a GPU",
    "ask": "ask Google for one GPU (minutes to days; a Free Trial account must upgrade first)",
}
_KINDS = {
    "l4": "L4, 24 GB: fits nearly everything",
    "t4": "T4, 16 GB: the cheapest",
    "a100": "A100, 40 GB",
    "h100": "H100, 80 GB",
    "none": "no GPU",
}
_REGION, _HOURS = "us-central1", 4.0


def in_the_cloud(folder: Path, given: Answers, asking: Asking | None) -> Chosen:
    """Look at login, billing and quota; then ask, or take what was given and the defaults."""
    settings, rented = _opened(folder, given)
    standing, notes = _standing(rented, asking)
    if standing is None and asking and not given.project:
        project = asking.text("Project of Google Cloud, its ID; empty: go on without", "").strip()
        given = replace(given, project=project or None)
        if project:
            settings, rented = _opened(folder, given)
            standing, notes = _standing(rented, asking)
    accelerator = given.accelerator
    requests: list[QuotaRequest] = []
    if standing is not None and standing.gpus == 0 and accelerator in (None, ""):
        way = asking.choose(f"Your GPU quota is 0 ({ALL_GPUS}). What now?", _NO_GPU) if asking else "none"
        if way == "local":
            return Chosen("local", {}, standing, notes=notes)
        if way == "ask":
            requests = [rented.send_quota_request(rented.quota_request(ALL_GPUS, "", 1))]
        else:
            accelerator = "none"
            notes += (
                []
                if asking
                else ['accelerator = "none": your GPU quota is 0; tlvm quota request asks for one']
            )
    if asking and accelerator is None:
        accelerator = asking.choose("Which GPU?", _KINDS)
    zones = given.zones or (asking.text("Regions or zones, in order", _REGION) if asking else _REGION)
    spot = given.spot
    if asking and spot is None:
        spot = asking.yes("Spot machines? Cheaper, and may be taken away at any time")
    hours = given.max_hours or (
        _number(asking, "Hours after which Google deletes a machine", _HOURS) or _HOURS
    )
    budget = given.budget or _number(asking, "At most how many US dollars for one machine? 0: no bound", 0.0)
    names = [name.strip() for name in zones.split(",") if name.strip()]
    url, bucket = _bucket(rented, given, asking, standing, _region(names), settings.store.endpoint)
    count = given.accelerator_count
    return Chosen(
        "gce",
        {
            "store.url": url,
            "gce.project": given.project or (standing.project if standing else None),
            "gce.zones": names,
            "gce.image_family": given.image_family,
            "machine.accelerator": accelerator or None,
            "machine.accelerator_count": count if accelerator != "none" else None,
            "machine.machine_type": given.machine_type,
            "machine.spot": spot or None,
            "machine.disk_gb": given.disk_gb,
            "machine.max_hours": hours,
            "machine.budget": budget or None,
        },
        standing,
        bucket,
        notes,
        requests,
    )


def _opened(folder: Path, given: Answers) -> tuple[Settings, Rented]:
    settings = _settings(folder, given)
    rented = Workspace(settings).rented
    assert rented is not None
    return settings, rented


def _settings(folder: Path, given: Answers) -> Settings:
    """Without the file that is about to be replaced; what was given is checked by the way."""
    flags = {
        "provider": "gce",
        "gce.project": given.project,
        "gce.zones": given.zones,
        "gce.image_family": given.image_family,
        "machine.accelerator": given.accelerator,
        "machine.accelerator_count": given.accelerator_count,
        "machine.machine_type": given.machine_type,
        "machine.disk_gb": given.disk_gb,
        "machine.max_hours": given.max_hours,
        "machine.budget": given.budget,
        "store.url": given.store,
    }
    return load(flags, folder=Path(folder.anchor))


def _standing(rented: Rented, asking: Asking | None) -> tuple[Standing | None, list[str]]:
    """None, with the reason, when it can't be asked: the file can be written all the same."""
    try:
        found = rented.standing()
    except TlvmError as error:
        if asking:
            asking.say(f"{error.what}. {error.next}")
        return None, [f"{error.what}; {error.next}"]
    if asking:
        asking.say(said(found))
    notes = (
        [] if found.billing is not False else ["the project has no billing account: no machine can be made"]
    )
    return found, notes


def said(standing: Standing) -> str:
    billing = {True: "billing linked", False: "NO billing", None: "billing not known"}[standing.billing]
    gpus = "GPU quota not known" if standing.gpus is None else f"GPU quota {standing.gpus:g}"
    return f"{standing.account} · project {standing.project} · {billing} · {gpus}"


def _number(asking: Asking | None, question: str, default: float) -> float:
    if asking is None:
        return default
    while True:
        text = asking.text(question, f"{default:g}")
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if 0 <= number < math.inf:
            return number
        asking.say(f"{text[:40]!r} is not a number from 0 on")


def _bucket(
    rented: Rented,
    given: Answers,
    asking: Asking | None,
    standing: Standing | None,
    region: str,
    endpoint: str | None,
) -> tuple[str, str]:
    """Its URL, and what was done: created only when somebody said so."""
    url = given.store or (f"gs://{standing.project}-tlvm" if standing else "")
    if asking and not given.store:
        url = asking.text("Bucket for images and results", url)
    if not url.startswith("gs://"):
        raise ConfigError(
            f"A machine of Google Cloud needs a bucket, not {url!r}",
            next="Name one: --store gs://BUCKET; --create-bucket makes it.",
        )
    make = given.create_bucket or (
        asking is not None and asking.yes(f"Create {url} in {region}, private, if it is not there?")
    )
    if not make:
        return url, ""
    made = rented.make_bucket(StoreRef(url, endpoint), region)
    return url, "created" if made else "there already"


def _region(zones: list[str]) -> str:
    if not zones:
        raise ConfigError("No zone or region is named", next=f"For example --zones {_REGION}")
    return zones[0] if zones[0].count("-") < 2 else zones[0].rpartition("-")[0]
