"""Finished runs in a store, as a machine would have published them: what each said of which image, and its figures."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import google_crc32c
import numpy as np

from orchestrator.config import load
from orchestrator.datasets.publishing.versions import put_manifest
from orchestrator.workflows.workspace import Workspace
from remote.contract import document, layout
from remote.contract.dataset_manifest import DatasetManifest, Image, Split
from remote.contract.metrics import Counters, Frozen, Metrics
from remote.contract.run_spec import DatasetRef, StoreRef
from remote.contract.run_status import ResultFile, ResultManifest, RunStatus
from remote.measures.evaluation import evaluate
from tests import documents
from tests.documents import run_spec

CLASSES = ["birch", "oak"]


def opened(folder: Path) -> Workspace:
    project = folder / "project"
    project.mkdir(exist_ok=True)
    return Workspace(load({}, environ={"TLVM_DATA_DIR": str(folder / "data")}, folder=project))


def image(name: str, label: str, *, split: Split = "test", group: str | None = None) -> Image:
    return documents.image(f"{split}/{label}/{name}", group=group)


def put_dataset(workspace: Workspace, images: Sequence[Image], name: str = "trees") -> DatasetRef:
    classes = sorted({one.class_name for one in images})
    ordered = sorted(images, key=lambda one: one.path)
    manifest = DatasetManifest(name, classes, "folders", "horizontal", None, ordered)
    version, _ = put_manifest(workspace.store, manifest)
    put(workspace, layout.head_key(name), f"{version}\n".encode())
    return DatasetRef(name, version)


def put_run(
    workspace: Workspace,
    tail: str,
    dataset: DatasetRef,
    images: Sequence[Image],
    shares: Sequence[Sequence[float]],
    *,
    scenario: str = "fixed-extractor",
    seconds: float = 41.0,
    looked: bool = True,
    counters: Counters | None = None,
    images_per_s: float = 1.0,
    training: Mapping[str, object] | None = None,
) -> str:
    """A run that said these probabilities of these images; its id."""
    run_id = f"{scenario}-20260807-142530-{tail}"
    classes = [*CLASSES, "yew"][: len(shares[0])]
    labels = np.array([classes.index(one.class_name) for one in images])
    logits = np.log(np.array(shares))
    figures = evaluate("test", logits, labels, classes, temperature=1.0, chose="nothing")
    metrics = Metrics(
        run_id=run_id,
        scenario=scenario,
        model="resnet18",
        dataset=dataset.name,
        dataset_version=dataset.version,
        weights="ImageNet V1",
        weights_sha256="",
        seed=0,
        classes=classes,
        images={"test": len(images)},
        excluded=0,
        reported="test",
        evaluations=[figures],
        temperature=1.0,
        trained_parameters=1026,
        frozen=Frozen(parameters=11_176_512, tensors=120, equal=120),
        counters=counters or Counters(0, 0, 0),
        images_per_s=images_per_s,
        seconds={"train": seconds},
        device="2 cores",
        versions={},
        training=dict(training or {}),
        train_images=[100] * len(classes),
    )
    rows = [",".join(["path", "split", "label", "predicted", *(f"p_{name}" for name in classes)])]
    for one, own in zip(images, shares, strict=True):
        said = classes[int(np.argmax(own))]
        rows.append(",".join([one.path, one.split, one.class_name, said, *(f"{share:.6f}" for share in own)]))
    files = {
        "metrics.json": document.encode(metrics).encode(),
        "predictions.csv": ("\n".join(rows) + "\n").encode(),
        "model/model.safetensors": b"weights",
        "model/model.json": b"{}",
    }
    spec = run_spec(
        run_id=run_id,
        scenario=scenario,
        dataset=dataset,
        store=StoreRef(workspace.store.url),
        owner=workspace.settings.owner_label,
        machine="tlvm-ana-bees",
    )
    status = RunStatus(run_id, "SUCCEEDED", updated="2026-08-07T14:30:00+00:00", published=True)
    manifest = ResultManifest(
        run_id, "SUCCEEDED", "2026-08-07T14:30:00+00:00", [_described(*file) for file in files.items()]
    )
    for path, data in {
        "spec.json": document.encode(spec).encode(),
        "status.json": document.encode(status).encode(),
        **files,
        "MANIFEST.json": document.encode(manifest).encode(),
    }.items():
        put(workspace, layout.run_key(run_id, path), data)
    if looked:
        put(workspace, layout.looks_prefix(dataset.name, dataset.version, "test") + run_id, b"{}")
    return run_id


def put(workspace: Workspace, key: str, data: bytes) -> None:
    path = workspace.settings.data_dir / "upload"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    workspace.store.upload(path, key)


def regrouped(images: Sequence[Image], size: int) -> list[Image]:
    """The same images, so many to a group."""
    return [dataclasses.replace(one, group=f"p{number // size}") for number, one in enumerate(images)]


def _described(path: str, data: bytes) -> ResultFile:
    checksum = base64.b64encode(google_crc32c.Checksum(data).digest()).decode()
    return ResultFile(path, len(data), hashlib.sha256(data).hexdigest(), checksum)
