"""One run of the accuracy table, in a process of its own: `python -m tests.benchmarks.accuracy_run WORK CELL`.

Exit 0: its record was printed, one line of JSON. Exit 12: told to stop; started again, it goes on.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import shutil
import sys
import tarfile
import time
import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from remote import frozen, train
from remote.contract import document
from remote.contract.dataset_manifest import DatasetManifest, Flips, Image, decode_manifest, encode
from remote.contract.events import EventWriter
from remote.contract.layout import MachineHome, RunFolder
from remote.contract.metrics import Metrics
from remote.contract.run_spec import RunSpec, WeightsRef
from remote.networks import depths
from remote.start import input_spec, load_backbone
from remote.task import Task, open_task
from remote.training.checkpoint import Rhythm
from tests.remote import fixtures

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
PEER = "scikit-learn"  # in place of a scenario: its logistic regression on the features of fixed-extractor
PEER_BALANCED = "scikit-learn, balanced"  # the same with class_weight="balanced"
TURNS = 3  # besides the given split: train and val put together and dealt out anew, each image in val once
WEIGHTS = {
    "squeezenet1_1": "squeezenet1_1-onnxzoo-fp32.pth",
    "mobilenet_v2": "mobilenet_v2-onnxzoo-fp32-distilledhead.pth",
}
_FLIPS: dict[str, Flips] = {"wbc": "all", "dtd10": "all", "mnist10k": "none"}
_LITTLE_EACH = 100  # train images of each class in mnist1k and cifar1k; all of val
_CIFAR_EACH = {"train": 500, "val": 200}


@dataclass(frozen=True)
class Cell:
    """What was run. `turn` 0 is the given split; `seed` orders and initialises, and deals the folds inside train."""

    data: str
    model: str
    scenario: str
    turn: int
    seed: int
    parameters: dict[str, Any]

    @property
    def key(self) -> str:
        return json.dumps(dataclasses.asdict(self), sort_keys=True)


def main(arguments: list[str]) -> int:
    work, cell = Path(arguments[0]), Cell(**json.loads(arguments[1]))
    began = time.perf_counter()
    machine = MachineHome(work / "home")
    if not machine.runs.exists():
        fixtures.home(machine.root)
    folder = _prepared(machine, work, cell)
    if cell.scenario in (PEER, PEER_BALANCED):
        record = _peer(folder, "balanced" if cell.scenario == PEER_BALANCED else None)
    else:
        code = train.main(folder.spec, checkpoint_least_s=20.0, checkpoint_times_cost=10.0)
        if code != train.DONE:
            return code
        record = _record(folder)
    record |= {"seconds": round(time.perf_counter() - began, 1)}
    shutil.rmtree(folder.root)
    print(json.dumps(dataclasses.asdict(cell) | record), flush=True)
    return 0


def _prepared(machine: MachineHome, work: Path, cell: Cell) -> RunFolder:
    """The run's folder; the one that is there where an earlier process was stopped."""
    scenario = "fixed-extractor" if cell.scenario in (PEER, PEER_BALANCED) else cell.scenario
    tail = hashlib.sha256(cell.key.encode()).hexdigest()[:4]
    folder = machine.run(f"{scenario}-20260807-142530-{tail}")
    if folder.spec.exists():
        return folder
    shutil.rmtree(folder.root, ignore_errors=True)
    dataset = _dataset(machine, work, cell.data)
    if cell.turn:
        dataset = _dealt(dataset.manifest, cell.turn)
    weights = None
    if cell.scenario != "from-scratch":
        weights = _weights(machine, SHARED / "weights" / WEIGHTS[cell.model])
    parameters = {"decode_workers": 1, **cell.parameters}
    return fixtures.put_run(
        machine,
        dataset,
        scenario=scenario,
        model=cell.model,
        weights=weights,
        tail=tail,
        seed=cell.seed,
        **parameters,
    )


def _weights(machine: MachineHome, path: Path) -> WeightsRef:
    """Copied once: another run may be reading them."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if machine.weights(digest).exists():
        return WeightsRef("ImageNet", digest, f"weights/{path.name}")
    return fixtures.put_weights(machine, path, "ImageNet")


def _dataset(machine: MachineHome, work: Path, name: str) -> fixtures.Dataset:
    """Packed once. What is in val too is left out of training, as an upload would leave it out."""
    for kept in work.glob(f"{name}.*.jsonl.gz"):
        version = kept.name.split(".")[1]
        data = kept.read_bytes()
        return fixtures.Dataset(decode_manifest(data, version=version), data, version)
    if name.startswith(("mnist1k", "cifar1k")):
        whole = "mnist10k" if name.startswith("mnist") else "cifar10"
        manifest = _little(_dataset(machine, work, whole).manifest, rest=name.endswith("-rest"))
        return fixtures.Dataset(manifest, *encode(manifest))
    folder = _cifar(work) if name == "cifar10" else SHARED / "data" / name
    packed = fixtures.pack_folder(machine, folder, flips=_FLIPS.get(name, "horizontal")).manifest
    val = {image.sha256 for image in packed.images if image.split == "val"}
    images = [
        dataclasses.replace(image, excluded="equal to one of val")
        if image.split == "train" and image.sha256 in val
        else image
        for image in packed.images
    ]
    manifest = dataclasses.replace(packed, dataset=name, images=images)
    data, version = encode(manifest)
    beside = work / f".{name}.{version}"
    beside.write_bytes(data)
    beside.replace(work / f"{name}.{version}.jsonl.gz")
    return fixtures.Dataset(manifest, data, version)


def _little(manifest: DatasetManifest, *, rest: bool) -> DatasetManifest:
    """A few train images of each class, by content, and all of val; `rest`: the other train images in place of val."""
    left: dict[str, int] = defaultdict(lambda: _LITTLE_EACH)
    train, others = [], []
    for image in sorted(manifest.images, key=lambda one: one.sha256):
        if image.split == "train" and image.excluded is None:
            if left[image.class_name]:
                left[image.class_name] -= 1
                train.append(image)
            else:
                others.append(dataclasses.replace(image, split="val"))
    fitted = {image.sha256 for image in train}
    val = [image for image in manifest.images if image.split == "val"]
    measured = [image for image in others if image.sha256 not in fitted] if rest else val
    images = sorted([*train, *measured], key=lambda one: one.path)
    return dataclasses.replace(
        manifest, dataset=f"{manifest.dataset}-{'rest' if rest else 'little'}", images=images
    )


def _cifar(work: Path) -> Path:
    """The first images of each class, unpacked."""
    folder = work / "cifar10"
    counts: dict[tuple[str, str], int] = defaultdict(int)
    with tarfile.open(SHARED / "data" / "cifar10.tar.gz") as tar:
        for member in tar:
            parts = Path(member.name).parts
            if not member.isfile() or len(parts) < 3:
                continue
            split, class_name = parts[-3:-1]
            if split in _CIFAR_EACH and counts[split, class_name] < _CIFAR_EACH[split]:
                counts[split, class_name] += 1
                target = folder.joinpath(*parts[-3:])
                target.parent.mkdir(parents=True, exist_ok=True)
                file = tar.extractfile(member)
                assert file is not None
                target.write_bytes(file.read())
    return folder


def _dealt(manifest: DatasetManifest, turn: int) -> fixtures.Dataset:
    """Every third image of each class is val, in an order given by content; equal files stay together."""
    by_class: dict[str, list[str]] = defaultdict(list)
    for image in manifest.images:
        by_class[image.class_name].append(image.sha256)
    part = {
        content: place % TURNS
        for contents in by_class.values()
        for place, content in enumerate(
            sorted(set(contents), key=lambda one: hashlib.sha256(one.encode()).digest())
        )
    }

    def moved(image: Image) -> Image:
        is_val = part[image.sha256] == turn - 1
        return dataclasses.replace(image, split="val" if is_val else "train", excluded=None)

    dealt = dataclasses.replace(manifest, images=[moved(image) for image in manifest.images])
    return fixtures.Dataset(dealt, *encode(dealt))


def _record(folder: RunFolder) -> dict[str, Any]:
    metrics = document.decode(Metrics, (folder.result / "metrics.json").read_bytes(), what="metrics.json")
    with (folder.result / "predictions.csv").open(encoding="utf-8", newline="") as file:
        said = {row["path"]: (row["label"], row["predicted"]) for row in csv.DictReader(file)}
    found, training = metrics.result, metrics.training
    names = {name: index for index, name in enumerate(metrics.classes)}
    return {
        "train": metrics.images["train"],
        "excluded": metrics.excluded,
        "labels": [names[label] for label, _ in said.values()],
        "said": [names[predicted] for _, predicted in said.values()],
        "calibration": [found.calibration_error_uncalibrated, found.calibration_error],
        "temperature": metrics.temperature,
        "doubtful": metrics.evaluations[0].doubtful_labels,
        "suspected_groups": training.get("suspected_groups", []),
        "balance": training.get("balance", {}),
        "chosen": training.get("chosen", ""),
        "held_out": training.get("held_out_accuracy"),
        "penalty": training.get("penalty"),
        "best_epoch": training.get("best_epoch"),
        "epochs": [[epoch["train_loss"], epoch["held_out_accuracy"]] for epoch in training.get("epochs", [])],
        "by_depth": [[depth.name, depth.accuracy, depth.accuracy_error] for depth in metrics.by_depth],
        "together": [[depth["name"], depth["accuracy"]] for depth in training.get("together", [])],
    }


def _peer(folder: RunFolder, class_weight: str | None) -> dict[str, Any]:
    """scikit-learn's logistic regression, standardised, the penalty of least held-out log-loss inside train."""
    spec = document.decode(RunSpec, folder.spec.read_bytes(), what="run spec")
    events = EventWriter(folder.events)
    try:
        with open_task(spec, folder, events, lambda: False, Rhythm(60.0, 50.0)) as task:
            return _fitted(task, class_weight)
    finally:
        events.close()


def _fitted(task: Task, class_weight: str | None) -> dict[str, Any]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    network, source = load_backbone(task)
    seen = frozen.look(task, network, input_spec(task, source), wanted=[depths.LAST])
    train_rows, val_rows = seen.of("train"), seen.of("val")
    features: NDArray[np.float64] = seen.extraction.blocks[depths.LAST].astype(np.float64)
    inputs, labels = features[train_rows], task.labels(seen.images(train_rows))
    truth = task.labels(seen.images(val_rows))

    def model(inverse: float) -> Any:
        regression = LogisticRegression(C=inverse, tol=1e-4, max_iter=1000, class_weight=class_weight)
        return make_pipeline(StandardScaler(), regression)

    def held_out_loss(inverse: float) -> float:
        losses = np.zeros(len(labels))
        for kept, out in StratifiedKFold(5, shuffle=True, random_state=task.spec.seed).split(inputs, labels):
            shares = model(inverse).fit(inputs[kept], labels[kept]).predict_proba(inputs[out])
            losses[out] = -np.log(shares[np.arange(len(out)), labels[out]].clip(1e-12))
        counts = np.bincount(labels) if class_weight else np.ones(int(labels.max()) + 1)
        return float(np.average(losses, weights=1 / counts[labels]))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer images than folds
        inverses = [float(one) for one in np.geomspace(1e-4, 1.0, 7)]
        best = min(inverses, key=held_out_loss)
        said = model(best).fit(inputs, labels).predict(features[val_rows])
    return {"train": len(labels), "labels": truth.tolist(), "said": said.tolist(), "penalty": best}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
