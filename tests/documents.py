"""Documents of the contract with plain values: a test names only what it is about."""

from __future__ import annotations

import hashlib
from typing import Any

from remote.contract.dataset_manifest import Image
from remote.contract.run_spec import DatasetRef, RunSpec, StoreRef, WeightsRef


def run_spec(**changes: Any) -> RunSpec:
    values: dict[str, Any] = {
        "run_id": "fixed-extractor-20260807-142530-k3qz",
        "scenario": "fixed-extractor",
        "dataset": DatasetRef("trees", "a" * 64),
        "model": "resnet18",
        "weights": WeightsRef("none"),
        "store": StoreRef("/nowhere"),
        "bundle": "0" * 64,
        "parameters": {},
        "seed": 0,
        "owner": "ana",
        "project": "trees",
        "machine": "tlvm-ana-trees",
        "created": "2026-08-07T14:25:30+00:00",
        "max_hours": 1.0,
        "tlvm_version": "0",
    }
    return RunSpec(**(values | changes))


def image(path: str, **changes: Any) -> Image:
    """path   "train/bees/1.jpg": split, class and a hash of its own are read off it"""
    split, class_name, *_ = path.split("/")
    values: dict[str, Any] = {
        "path": path,
        "split": split,
        "class_name": class_name,
        "label_source": "folder",
        "group": None,
        "size": 10,
        "sha256": hashlib.sha256(path.encode()).hexdigest(),
        "mtime_ns": 0,
        "width": 8,
        "height": 8,
        "orientation": 1,
        "pages": 1,
        "page": 0,
        "mode": "RGB",
        "pack": "0" * 64,
        "offset": 512,
    }
    return Image(**(values | changes))
