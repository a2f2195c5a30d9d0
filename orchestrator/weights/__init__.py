"""Which pre-trained weights a run starts from: found, checked by hash, and put where the machine can fetch them.

The machine may have no internet, so weights always travel through the store: this computer finds torchvision's
own file in the store, in torch's cache or at its address, and mirrors it.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from orchestrator.config import nearest
from orchestrator.errors import CloudError, ConfigError, NotFoundError
from orchestrator.progress import Progress
from orchestrator.stores.base import Store
from orchestrator.stores.documents import read_document
from orchestrator.weights import mirror
from orchestrator.weights.download import DownloadFailed, download
from orchestrator.weights.files import NotWeights, kind_of, sha256_of
from remote.contract import document, layout
from remote.contract.models import MODELS, ModelFile
from remote.contract.run_spec import RunSpec, WeightsRef
from remote.contract.run_status import ResultManifest

T = TypeVar("T")

WAYS_OUT = (
    "Other ways: --weights FILE (a .pth or .safetensors file that you have), "
    "--weights run:ID (a model that you trained before), --weights none (start from random weights)."
)
_MODEL_FILE = "model/model.safetensors"
_DOCUMENT_BYTES_MAX = 16 * 1024 * 1024


def resolve(
    store: Store,
    model: str,
    weights: str,
    *,
    progress: Progress,
    cache_folder: Path,
    base_url: str | None = None,
    connect_timeout_s: float = 10,
    limit_s: float | None = None,
    models: Mapping[str, ModelFile] = MODELS,
) -> WeightsRef:
    """The weights as the machine will fetch them: named, hashed, and in the store when this returns.

    weights       "imagenet" (torchvision's own), a file here, one in the store (`push`), "run:ID", or "none"
    cache_folder  of this computer; downloads go below it, and go on there when they were cut
    base_url      another place that has torchvision's files, under the same names
    limit_s       give up a download after this time; None: never, as long as something comes
    ConfigError   unknown model or file, or a file that holds no weights
    NotFoundError no such run
    CloudError    ImageNet weights that can't be had; it names the ways out
    """
    wanted = models.get(model)
    if wanted is None and (
        ":" not in model or weights == "imagenet"
    ):  # other sources have names of their own
        raise ConfigError(f"Unknown model {model!r}", next=nearest(model, list(models)))
    if weights == "none":
        return WeightsRef("none")
    if weights.startswith("run:"):
        return _of_run(store, model, weights.removeprefix("run:"))
    if wanted is None or weights != "imagenet":
        return _of_store(store, weights, progress) or _of_file(store, weights, progress)
    mirrored = mirror.find(store, wanted.file, wanted.sha256, progress)
    if mirrored is None:
        path, mirrored = _on_this_computer(wanted, progress, cache_folder / "weights") or _downloaded(
            model, wanted, progress, cache_folder / "weights", base_url, connect_timeout_s, limit_s
        )
        mirror.add(store, path, wanted.file, mirrored, wanted.url, progress)
    return WeightsRef(wanted.source, mirrored, layout.weights_key(wanted.file))


def push(store: Store, file: str, progress: Progress) -> WeightsRef:
    """A file of this computer into the store, and its name into the index. ConfigError when it holds no weights."""
    return _of_file(store, file, progress)


def torch_caches() -> list[Path]:
    """The folders where torch keeps what it has downloaded, the one in force first."""
    homes = [
        os.environ.get("TORCH_HOME"),
        str(Path(os.environ["XDG_CACHE_HOME"], "torch")) if os.environ.get("XDG_CACHE_HOME") else None,
        "~/.cache/torch",
    ]
    return [Path(home).expanduser() / "hub" / "checkpoints" for home in homes if home]


def _of_run(store: Store, model: str, run_id: str) -> WeightsRef:
    try:
        layout.checked_run_id(run_id)
    except document.ContractError as error:
        raise ConfigError(f"--weights run:{run_id[:80]}: {error}", next="tlvm runs lists them.") from None
    spec = _document(store, RunSpec, layout.run_key(run_id, "spec.json"), run_id)
    if spec.model != model:
        raise ConfigError(
            f"The weights of run {run_id} are those of a {spec.model}, not of a {model}",
            next=f"Add --model {spec.model}.",
        )
    manifest = _document(store, ResultManifest, layout.run_key(run_id, "MANIFEST.json"), run_id)
    found = [file.sha256 for file in manifest.files if file.path == _MODEL_FILE]
    if not found:
        raise NotFoundError(
            f"Run {run_id} ended {manifest.state} and has no model", next="tlvm runs shows the state of each."
        )
    return WeightsRef(f"run {run_id}", found[0], layout.run_key(run_id, _MODEL_FILE))


def _document(store: Store, kind: type[T], key: str, run_id: str) -> T:
    try:
        found = read_document(store, key, bytes_max=_DOCUMENT_BYTES_MAX)
        if found is not None:
            return document.decode(kind, found[0], what=f"{key} in {store.url}")
    except document.ContractError as error:
        raise CloudError(f"A document of run {run_id} can't be read", detail=str(error)) from None
    raise NotFoundError(
        f"There is no finished run {run_id} in {store.url}",
        detail=f"No {key} there.",
        next="tlvm runs lists the runs and their states.",
    )


def _of_store(store: Store, weights: str, progress: Progress) -> WeightsRef | None:
    """A file that was pushed, by its name, where this computer has none of that name."""
    if Path(weights).expanduser().exists():
        return None
    found = mirror.named(store, weights, progress)
    if len(found) > 1:
        raise ConfigError(
            f"--weights {weights!r}: the store has several files of this name",
            detail=", ".join(entry.file for entry in found),
            next="Give the whole name.",
        )
    return (
        WeightsRef(f"file {weights}", found[0].sha256, layout.weights_key(found[0].file)) if found else None
    )


def _of_file(store: Store, weights: str, progress: Progress) -> WeightsRef:
    path = Path(weights).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"--weights {weights[:200]!r}: there is no such file",
            next=_near_word(weights)
            + 'It takes "imagenet" (the default), a .pth or .safetensors FILE here or in the store '
            '(tlvm weights), "run:ID", or "none".',
        )
    try:
        kind = kind_of(path)
        digest = sha256_of(path)
    except NotWeights as error:
        raise ConfigError(
            f"{path} holds no weights that can be used", detail=str(error), next=WAYS_OUT
        ) from None
    except OSError as error:
        raise ConfigError(f"{path} can't be read", detail=str(error), next="Make it readable.") from None
    if kind == "legacy pickle":
        progress.warn(
            f"{path.name} is in torch's old pickle format: nothing of it is executed here, and the machine reads "
            "it as plain tensors only, or refuses it"
        )
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.name)[-80:]
    stored, source = f"{digest[:16]}-{name}", f"file {path.name}"
    mirror.add(store, path, stored, digest, source, progress)
    return WeightsRef(source, digest, layout.weights_key(stored))


def _near_word(weights: str) -> str:
    close = difflib.get_close_matches(weights.lower(), ("imagenet", "none"), n=1)
    return f"Did you mean {close[0]!r}? " if close else ""


def _on_this_computer(wanted: ModelFile, progress: Progress, cache: Path) -> tuple[Path, str] | None:
    """torchvision's file in one of the caches, with its hash; one with another hash is named and not used."""
    for path in (folder / wanted.file for folder in (cache, *torch_caches())):
        try:
            digest = sha256_of(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            progress.warn(f"{path} can't be read ({error.strerror or error}): not used")
            continue
        if digest.startswith(wanted.sha256):
            progress.say("weights", f"{wanted.file} found on this computer, sha256 {digest[:8]} ok")
            return path, digest
        progress.warn(f"{path} is damaged (sha256 {digest[:8]}, not {wanted.sha256[:8]}): not used")
    return None


def _downloaded(
    model: str,
    wanted: ModelFile,
    progress: Progress,
    cache: Path,
    base_url: str | None,
    connect_timeout_s: float,
    limit_s: float | None,
) -> tuple[Path, str]:
    url = f"{base_url.rstrip('/')}/{wanted.file}" if base_url else wanted.url
    path = cache / wanted.file
    try:
        digest = download(
            url,
            path,
            sha256_prefix=wanted.sha256,
            progress=progress,
            connect_timeout_s=connect_timeout_s,
            limit_s=limit_s,
        )
    except DownloadFailed as error:
        raise CloudError(
            f"The ImageNet weights of {model} can't be had from {url}", detail=str(error), next=WAYS_OUT
        ) from None
    return path, digest
