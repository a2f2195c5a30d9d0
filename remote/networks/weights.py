"""Weights from a file into a network: verified, never unpickled as code, every tensor accounted for."""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from remote.errors import CannotRun
from remote.networks import stage_head
from remote.networks.backbones import Network
from remote.sources import source_of

METADATA_KEY = "tlvm"  # in a safetensors file of ours: JSON, what model.json says of the network
_NAMED = 3  # tensors that an error lists


@dataclass(frozen=True)
class WeightsFile:
    tensors: dict[str, torch.Tensor]
    metadata: dict[str, Any]  # of a model of ours, else empty


def read(path: Path, *, sha256: str | None = None) -> WeightsFile:
    """The tensors of a safetensors file or a plain `torch.save(state_dict)`.

    sha256      of the file; None where nothing pins it
    CannotRun   another hash, a pickle that holds more than tensors, a training checkpoint, anything else
    """
    if sha256 is not None and (found := file_sha256(path)) != sha256:
        raise CannotRun(
            f"The weights on this machine have the hash {found[:12]}, not {sha256[:12]}: fetch them again."
        )
    if _is_safetensors(path):
        return _safetensors(path)
    return WeightsFile(_state_dict(_unpickled(path)), {})


def load(network: Network, tensors: Mapping[str, torch.Tensor], *, with_head: bool) -> None:
    """Every tensor of the network from the file, and none left over.

    with_head   False: the head stays as it is, whatever the file has in its place
    CannotRun   missing, unexpected or mismatched tensors, by name
    """
    head = network.head_path + "."
    state = network.module.state_dict()
    expected = {name: tensor for name, tensor in state.items() if with_head or not name.startswith(head)}
    given = {
        name: tensor
        for name, tensor in source_of(network.model).todays_names(network.model, tensors).items()
        if with_head or not name.startswith((head, f"{stage_head.NAME}."))
    }
    for name, tensor in expected.items():
        if name.endswith(".num_batches_tracked"):
            # Files older than this counter lack it; nothing depends on it in eval.
            given.setdefault(name, tensor)
    _check(network.model, expected, given)
    # `state` carries the metadata of the module: without, some take what they are given for an old version's.
    state.update(given)
    network.module.load_state_dict(state, strict=True)


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise CannotRun(f"The weights are not on this machine: {error}") from None
    return digest.hexdigest()


def _is_safetensors(path: Path) -> bool:
    """It begins with the length of a JSON header, in eight bytes, and then that header."""
    with path.open("rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size


def _safetensors(path: Path) -> WeightsFile:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
            metadata = (file.metadata() or {}).get(METADATA_KEY, "{}")
    except (SafetensorError, OSError) as error:
        raise CannotRun(f"The weights are not a whole safetensors file: {error}") from None
    try:
        ours = json.loads(metadata)
    except ValueError:
        ours = {}
    return WeightsFile(tensors, ours if isinstance(ours, dict) else {})


def _unpickled(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        OSError,
        AttributeError,
    ) as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise CannotRun(
            f"The weights can't be read without running code from the file, which tlvm never does ({reason}). "
            "Save the tensors alone: torch.save(model.state_dict(), FILE), or a safetensors file."
        ) from None


def _state_dict(loaded: Any) -> dict[str, torch.Tensor]:
    if (
        isinstance(loaded, Mapping)
        and loaded
        and all(isinstance(value, torch.Tensor) for value in loaded.values())
    ):
        return {str(name): tensor for name, tensor in loaded.items()}
    if isinstance(loaded, Mapping):
        inner = [key for key, value in loaded.items() if isinstance(value, Mapping)]
        if inner:
            raise CannotRun(
                f"The weights are a training checkpoint with {', '.join(map(repr, list(loaded)[:_NAMED]))}, not a plain "
                f"state dict. Save what is inside: torch.save(checkpoint[{inner[0]!r}], FILE), with the names of "
                'torchvision (without "module." in front).'
            )
    raise CannotRun(
        f"The weights are a {type(loaded).__name__}, not a state dict: torch.save(model.state_dict(), FILE)"
    )


def _check(model: str, expected: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> None:
    mismatched = [
        f"{name} ({_shape(given[name])}, not {_shape(expected[name])})"
        for name in expected
        if name in given and given[name].shape != expected[name].shape
    ]
    problems = [
        f"{len(names)} {what}: {', '.join(names[:_NAMED])}{' and more' if len(names) > _NAMED else ''}"
        for what, names in (
            ("missing", [name for name in expected if name not in given]),
            ("unexpected", [name for name in given if name not in expected]),
            ("of another shape", mismatched),
        )
        if names
    ]
    if problems:
        hint = (
            'Its names begin with "module.": take that off.'
            if all(n.startswith("module.") for n in given)
            else "--model says which network they belong to."
        )
        raise CannotRun(f"The weights are not those of a {model}. {hint} Tensors " + "; ".join(problems))


def _shape(tensor: torch.Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a number"
