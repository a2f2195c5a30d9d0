"""`tlvm init`: writes a commented `tlvm.toml`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.config import FILE, PROVIDERS, load
from orchestrator.errors import CloudError, ConfigError, ConflictError
from orchestrator.resources import folder as shipped
from remote.contract import document

_QUESTION = "Where to run?"
_CHOICES = {"local": "this computer, free", "docker": "a Docker container on this computer, free"}


@dataclass(frozen=True)
class InitResult:
    file: Path
    provider: str
    store: str  # as the file says it; "" is the folder in the user's data directory
    replaced: bool
    comments: int  # lines of explanation in the file


def init(
    folder: Path,
    *,
    provider: str | None = None,
    store: str | None = None,
    replace: bool = False,
    ask: Callable[[str, dict[str, str]], str] | None = None,
) -> InitResult:
    """Write `tlvm.toml` in `folder`: what is not given is asked, or takes its default where nobody can be asked.

    ask             shows a question and its choices, gives back the chosen key; None: nobody is there
    ConflictError   there is such a file, and `replace` is not given
    ConfigError     no such provider, or a value that the file could not hold
    """
    file = folder / FILE
    replaced = file.exists()
    if replaced and not replace:
        raise ConflictError(
            f"There is a {FILE} already: {file}", next="Edit it, or tlvm init --yes replaces it."
        )
    if provider is None:
        provider = ask(_QUESTION, _CHOICES) if ask else "local"
    if provider not in PROVIDERS:
        raise ConfigError(f"Unknown provider {provider!r}", next=f"Valid: {', '.join(PROVIDERS)}")
    text = _fill(shipped("configs").joinpath(FILE).read_text(encoding="utf-8"), provider, store or "")
    try:
        document.write_text(file, text)
    except OSError as error:
        raise CloudError(
            f"{file} can't be written", detail=str(error.strerror or error), next="Choose another folder."
        ) from None
    load(
        {}, environ={"TLVM_DATA_DIR": os.devnull}, folder=folder
    )  # a file that we wrote must be one that we read
    comments = sum(line.lstrip().startswith("#") for line in text.splitlines())
    return InitResult(file, provider, store or "", replaced, comments)


def _fill(text: str, provider: str, store: str) -> str:
    """The shipped example with the answers in it."""
    lines = text.splitlines()
    section = ""
    for number, line in enumerate(lines):
        if line.startswith("["):
            section = line.strip("[]")
        if section == "" and line.startswith("provider ="):
            lines[number] = f"provider = {json.dumps(provider)}"
        if section == "store" and line.removeprefix("# ").startswith("url =") and store:
            lines[number] = f"url = {json.dumps(store, ensure_ascii=False)}"
    return "\n".join(lines) + "\n"
