"""`tlvm init`: writes a commented `tlvm.toml`, after a look at what is possible where."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.config import FILE, PROVIDERS, load
from orchestrator.errors import CloudError, ConfigError, ConflictError
from orchestrator.providers.rented import QuotaRequest, Standing
from orchestrator.resources import folder as shipped
from orchestrator.workflows.setup.answers import Answers, Asking, Chosen
from orchestrator.workflows.setup.init_cloud import in_the_cloud
from remote.contract import document

_QUESTION = "Where to run?"
_CHOICES = {
    "local": "this computer, free",
    "docker": "a Docker container on this computer, free",
    "gce": "Google Cloud",
}
_EXAMPLE = {"local": FILE, "docker": FILE, "gce": "google-cloud.toml"}


@dataclass(frozen=True)
class InitResult:
    file: Path
    provider: str
    store: str  # as the file says it; "" is the folder in the user's data directory
    replaced: bool
    comments: int  # lines of explanation in the file
    standing: Standing | None = None  # of the account in the cloud; None when it was not looked at
    bucket: str = ""  # "created", "there already", or "" when nothing was done
    notes: list[str] = field(default_factory=list)  # what was decided without asking, and why
    requests: list[QuotaRequest] = field(default_factory=list)  # for a GPU: sent, or how to
    asked: bool = False  # somebody was, and has been told on the way


def init(folder: Path, given: Answers, *, replace: bool = False, asking: Asking | None = None) -> InitResult:
    """Write `tlvm.toml` in `folder`: what is not given is asked, or takes its default where nobody can be asked.

    ConflictError   there is such a file, and `replace` is not given; or the bucket's name is somebody else's
    ConfigError     no such provider, or a value that the file could not hold
    """
    file = folder / FILE
    replaced = file.exists()
    if replaced and not replace:
        raise ConflictError(
            f"There is a {FILE} already: {file}", next="Edit it, or tlvm init --yes replaces it."
        )
    provider = given.provider or (asking.choose(_QUESTION, _CHOICES) if asking else "local")
    if provider not in PROVIDERS:
        raise ConfigError(f"Unknown provider {provider!r}", next=f"Valid: {', '.join(PROVIDERS)}")
    chosen = _chosen(folder, provider, given, asking)
    text = filled(shipped("configs").joinpath(_EXAMPLE[chosen.provider]).read_text(encoding="utf-8"), chosen)
    try:
        document.write_text(file, text)
    except OSError as error:
        raise CloudError(
            f"{file} can't be written", detail=str(error.strerror or error), next="Choose another folder."
        ) from None
    # A file that we wrote must be one that we read.
    load({}, environ={"TLVM_DATA_DIR": os.devnull}, folder=folder)
    comments = sum(line.lstrip().startswith("#") for line in text.splitlines())
    return InitResult(
        file,
        chosen.provider,
        str(chosen.values.get("store.url") or ""),
        replaced,
        comments,
        chosen.standing,
        chosen.bucket,
        chosen.notes,
        chosen.requests,
        asking is not None,
    )


def filled(text: str, chosen: Chosen) -> str:
    """The shipped example with the answers in it; a key whose value is None stays as it is."""
    lines = text.splitlines()
    left = {key: value for key, value in chosen.values.items() if value is not None}
    left["provider"] = chosen.provider
    section = ""
    for number, line in enumerate(lines):
        if line.startswith("["):
            section = line.strip("[]") + "."
        name, equals, _ = line.removeprefix("# ").partition(" = ")
        if equals and (value := left.pop(f"{section}{name}", None)) is not None:
            lines[number] = f"{name} = {_toml(value)}"
    if left:
        raise ConfigError(
            f"{FILE} has no place for {', '.join(sorted(left))}", next="Write it there yourself."
        )
    return "\n".join(lines) + "\n"


def _chosen(folder: Path, provider: str, given: Answers, asking: Asking | None) -> Chosen:
    if provider == "gce":
        return in_the_cloud(folder, given, asking)
    for name, value in vars(given).items():
        if value and name not in ("provider", "store"):
            raise ConfigError(
                f"--{name.replace('_', '-')} means nothing on {provider}",
                next="Leave it out, or add --provider gce.",
            )
    return Chosen(provider, {"store.url": given.store})


def _toml(value: object) -> str:
    """Text, numbers, booleans and lists of text are written alike in TOML and JSON."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, ensure_ascii=False)
