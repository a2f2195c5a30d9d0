"""The image of the machines: built from infra/docker on first use, named by that folder's content."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
from docker.errors import DockerException, ImageNotFound

from orchestrator import resources
from orchestrator.errors import CloudError, ConfigError
from orchestrator.progress import Progress

from .engine import alone, border

REPOSITORY = "tlvm-machine"
_TO_FETCH = re.compile(
    r"Need to get ([\d.,]+) ?([kMG]?B)"
)  # apt's summary: "Need to get 251 MB of archives."
_FETCHING = re.compile(r"^Get:\d+ .*\[([\d.,]+) ?([kMG]?B)\]")  # and its line for each package
_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}


def ensure(engine: docker.DockerClient, wanted: str, lock: Path, progress: Progress) -> str:
    """The name of an image that is there: `wanted`, or ours when that is "". Builds ours if need be."""
    if wanted:
        return _present(engine, wanted)
    return built(engine, resources.folder("infra") / "docker", lock, progress)


def built(engine: docker.DockerClient, folder: Path, lock: Path, progress: Progress) -> str:
    """The name of the image that is made of `folder`.

    lock    a file; two terminals would otherwise build it twice
    """
    name = f"{REPOSITORY}:{content_hash(folder)[:12]}"
    if not _exists(engine, name):
        with alone(lock):
            if not _exists(engine, name):
                _ensure_base(engine, folder, progress)
                _build(engine, folder, name, progress)
    return name


def content_hash(folder: Path) -> str:
    """A hash over names and contents of the files in a folder, whatever their times and modes."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        digest.update(f"{path.name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _present(engine: docker.DockerClient, name: str) -> str:
    if not _exists(engine, name):
        try:
            engine.images.pull(name)
        except DockerException as error:
            raise ConfigError(
                f"The image {name} is not on this computer and can't be pulled",
                detail=str(error),
                next="Name an image that was made from infra/docker/Dockerfile, or leave `image` out.",
            ) from error
    return name


def _exists(engine: docker.DockerClient, name: str) -> bool:
    with border(f"look for the image {name}"):
        try:
            engine.images.get(name)
        except ImageNotFound:
            return False
        return True


def _ensure_base(engine: docker.DockerClient, folder: Path, progress: Progress) -> None:
    base = _base_image(folder / "Dockerfile")
    if _exists(engine, base):
        return
    progress.say("image", f"pulling {base}")
    try:
        engine.images.pull(base)
    except DockerException as error:
        raise CloudError(
            f"The base image {base} is not on this computer and can't be pulled",
            detail=str(error),
            next=f"On Debian make it yourself: sudo apt-get install debootstrap && sudo sh {folder / 'base-image'}",
        ) from error


def _base_image(dockerfile: Path) -> str:
    words = next(line.split() for line in dockerfile.read_text().splitlines() if line.startswith("FROM "))
    return words[1]


def _build(engine: docker.DockerClient, folder: Path, name: str, progress: Progress) -> None:
    progress.say("image", f"building {name}: Debian's Python, torch and OpenSSH (about 250 MB, once)")
    with border("start building the image of its machines"):
        news = engine.api.build(path=str(folder), tag=name, rm=True, forcerm=True, decode=True)
    with border("build the image of its machines"):
        _follow(news, progress)
    progress.say("image", f"{name} is ready")


def _follow(news: Iterator[dict[str, Any]], progress: Progress) -> None:
    """Show the packages as they come; CloudError with the build's last lines when it fails."""
    tail: list[str] = []
    lines = _lines(news, tail)
    for line in lines:
        if found := _TO_FETCH.search(line):
            _follow_packages(lines, _amount(found), progress)


def _follow_packages(lines: Iterator[str], total: int, progress: Progress) -> None:
    with progress.bar("packages", total, "bytes") as bar:
        for line in lines:
            if found := _FETCHING.match(line):
                bar.advance(_amount(found))
            elif line.startswith("Fetched "):
                return


def _lines(news: Iterator[dict[str, Any]], tail: list[str]) -> Iterator[str]:
    """The build's output line by line; CloudError at its error."""
    unfinished = ""
    for item in news:
        if "error" in item:
            raise CloudError(
                f"The image of the machines could not be built: {str(item['error']).strip()}",
                detail="\n".join(tail),
                next="Without access to Debian's packages it can't be built; with it, run the command again.",
            )
        unfinished += str(item.get("stream", ""))
        *whole, unfinished = unfinished.split("\n")
        for line in whole:
            tail[:] = [*tail[-9:], line]
            yield line


def _amount(found: re.Match[str]) -> int:
    return int(float(found[1].replace(",", "")) * _UNITS[found[2]])
