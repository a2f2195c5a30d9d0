"""Which image a machine starts from: the newest PyTorch family of Google's Deep Learning images that is alive today.

Families come and go with their CUDA and driver (pytorch-latest-gpu is still in tutorials, and gone), so none is written
down here: they are asked for when one is needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

from orchestrator.config import GceSettings
from orchestrator.errors import ConfigError

from .request import Image
from .rest import Rest

_FAMILY = re.compile(
    r"pytorch-(?P<major>\d+)-(?P<minor>\d+)-cu(?P<cuda>\d+)-ubuntu-(?P<ubuntu>\d+)(?:-nvidia-(?P<driver>\d+))?"
)
_OURS = 'family eq "pytorch-.*"'  # a regular expression must fit the whole name
_SHOWN = "items(name,family,deprecated,diskSizeGb,creationTimestamp,architecture,status),nextPageToken"
# Generations that the CUDA 12.8 and later builds of PyTorch 2.8 and later have no code for, or have it no longer.
_TOO_OLD = {
    "nvidia-tesla-k80": "Kepler",
    "nvidia-tesla-p4": "Pascal",
    "nvidia-tesla-p100": "Pascal",
    "nvidia-tesla-v100": "Volta",
}


def find(rest: Rest, settings: GceSettings, image: str = "") -> Image:
    """The image that was named, else the newest of the family that was, else of the newest family.

    image         "projects/P/global/images/NAME", or "" for the settings' family
    ConfigError   it is not there; the families that are alive are in the detail
    """
    if image:
        return _named(rest, image)
    project = settings.image_project
    there = alive(rest, project, settings.image_family)
    if not there:
        raise _retired(rest, project, settings.image_family)
    newest = there[0]
    return Image(
        f"projects/{project}/global/images/{newest['name']}",
        str(newest.get("family", "")),
        int(newest.get("diskSizeGb", 0)),
    )


def alive(rest: Rest, project: str, family: str = "") -> list[dict[str, Any]]:
    """Images that may be used, the newest family first and its newest image first; only of one family, if it is named."""
    chosen = f'family eq "{re.escape(family)}"' if family else _OURS
    found = rest.outside("GET", _list_url(rest, project, chosen), doing=f"list the images of {project}")
    items = list(found.get("items", []))
    while token := found.get("nextPageToken"):
        found = rest.outside(
            "GET", _list_url(rest, project, chosen, token), doing=f"list the images of {project}"
        )
        items += found.get("items", [])
    usable = [image for image in items if _is_usable(image) and (family or _age(image)[0])]
    return sorted(usable, key=_age, reverse=True)


def families(images: Iterable[Mapping[str, Any]]) -> list[str]:
    """Each once, in the order of the images."""
    return list(dict.fromkeys(str(image["family"]) for image in images if image.get("family")))


def check_generation(image: Image, accelerator: str) -> None:
    """ConfigError when the image's PyTorch has no code for this GPU: known before money is spent."""
    built = _FAMILY.fullmatch(image.family)
    if accelerator not in _TOO_OLD or built is None:
        return
    if (int(built["major"]), int(built["minor"])) >= (2, 8) and int(built["cuda"]) >= 128:
        raise ConfigError(
            f"The image {image.family} can't compute on {accelerator} ({_TOO_OLD[accelerator]})",
            detail="Its PyTorch was built without code for that generation.",
            next="Take a newer accelerator (t4, l4, a100), or name an older family in gce.image_family.",
        )


def _named(rest: Rest, image: str) -> Image:
    match = re.fullmatch(r"projects/([^/]+)/global/images/([^/]+)", image)
    if match is None:
        raise ConfigError(
            f"machine.image = {image[:80]!r} is no image of Google Cloud",
            next="It looks like projects/PROJECT/global/images/NAME.",
        )
    url = f"{rest.endpoint}/compute/v1/projects/{match[1]}/global/images/{match[2]}"
    found = rest.outside("GET", url, doing=f"find the image {image}")
    return Image(image, str(found.get("family", "")), int(found.get("diskSizeGb", 0)))


def _list_url(rest: Rest, project: str, filter: str, token: str = "") -> str:
    query = {"filter": filter, "fields": _SHOWN, "maxResults": "500"} | (
        {"pageToken": token} if token else {}
    )
    return f"{rest.endpoint}/compute/v1/projects/{project}/global/images?{urlencode(query)}"


def _is_usable(image: Mapping[str, Any]) -> bool:
    state = str((image.get("deprecated") or {}).get("state", "ACTIVE"))
    status, architecture = str(image.get("status", "READY")), str(image.get("architecture", "X86_64"))
    return (state, status, architecture) == ("ACTIVE", "READY", "X86_64")


def _age(image: Mapping[str, Any]) -> tuple[tuple[int, ...], str]:
    """Newer is larger: PyTorch, then Ubuntu, CUDA and driver, then the image's own date. () for another name."""
    found = _FAMILY.fullmatch(str(image.get("family", "")))
    numbers = (
        tuple(int(found[name] or 0) for name in ("major", "minor", "ubuntu", "cuda", "driver"))
        if found
        else ()
    )
    return numbers, str(image.get("creationTimestamp", ""))


def _retired(rest: Rest, project: str, family: str) -> ConfigError:
    living = families(alive(rest, project)) if family else []
    return ConfigError(
        f"There is no image of the family {family} in {project}"
        if family
        else f"There is no PyTorch image in {project}",
        detail="Retired, or misspelled. Alive are:\n" + "\n".join(living) if living else "",
        next="Take gce.image_family out of tlvm.toml: then the newest one is taken."
        if family
        else "Name a family in gce.image_family.",
    )
