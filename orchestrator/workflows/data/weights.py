"""`tlvm weights`, `tlvm weights push`: the pre-trained weights that the store keeps, so that machines need no other download."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orchestrator import weights
from orchestrator.config import nearest
from orchestrator.errors import ConfigError
from orchestrator.weights import mirror
from orchestrator.workflows.workspace import Workspace
from remote.contract import layout
from remote.contract.models import MODELS


@dataclass(frozen=True)
class StoredWeights:
    file: str  # what --weights takes; of a model of torchvision, --model and --weights imagenet find it
    sha256: str
    size: int  # bytes
    origin: str  # where it came from
    whole: bool  # False: the store lacks it, or holds something else


@dataclass(frozen=True)
class WeightsResult:
    store: str
    files: list[StoredWeights]


def stored_weights(workspace: Workspace) -> WeightsResult:
    """Every file that the index names."""
    there = {blob.key: blob for blob in workspace.store.blobs(layout.WEIGHTS)}
    found = []
    for entry in mirror.entries(workspace.store, workspace.progress):
        blob = there.get(layout.weights_key(entry.file))
        whole = blob is not None and (blob.size, blob.crc32c) == (entry.size, entry.crc32c)
        found.append(StoredWeights(entry.file, entry.sha256, entry.size, entry.origin, whole))
    return WeightsResult(workspace.store.url, found)


def push_weights(workspace: Workspace, what: str) -> WeightsResult:
    """Put a model's ImageNet weights, or a file of your own, into the store; again costs nothing.

    what            a model of torchvision, or a .pth or .safetensors file
    ConfigError     neither, or a file that holds no weights
    CloudError      ImageNet weights that can't be had
    """
    if what in MODELS:
        ref = weights.resolve(
            workspace.store,
            what,
            "imagenet",
            progress=workspace.progress,
            cache_folder=workspace.settings.data_dir / "cache",
        )
    elif not Path(what).expanduser().exists():
        raise ConfigError(
            f"{what[:200]!r} is neither a file nor a model of torchvision",
            next="Check the path." if Path(what).suffix else nearest(what, list(MODELS)),
        )
    else:
        ref = weights.push(workspace.store, what, workspace.progress)
    every = stored_weights(workspace)
    return WeightsResult(every.store, [one for one in every.files if one.sha256 == ref.sha256])
