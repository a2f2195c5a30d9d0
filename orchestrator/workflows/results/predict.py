"""`tlvm predict RUN IMAGES...`: what the model of a run makes of images, computed on this computer."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import remote
from orchestrator.datasets.folder.names import IMAGE_ENDINGS, MODERN, printable
from orchestrator.errors import CloudError, ConfigError, DataError, NotFoundError
from orchestrator.workflows.results.metrics import read_metrics
from orchestrator.workflows.results.prevalence import moved, prevalence, supposed
from orchestrator.workflows.results.pull import pull
from orchestrator.workflows.runs.overview import called
from orchestrator.workflows.workspace import Workspace

NEEDED = ("torch", "torchvision", "safetensors")
UNUSABLE_EXIT = 3  # also when some images can't be read
_ARGUMENT_BYTES_MAX = 128 * 1024  # of one process: systems bound what they pass on


@dataclass(frozen=True)
class Prediction:
    path: str  # as it was given, or found in a folder that was given; percent-encoded where it is not printable UTF-8
    class_name: str
    probability: float  # of that class
    probabilities: dict[str, float]


@dataclass(frozen=True)
class PredictResult:
    run_id: str
    model: Path  # the folder
    classes: list[str]
    predictions: list[Prediction]
    failed: dict[str, str] = field(default_factory=dict)  # path -> why it can't be read

    @property
    def exit_code(self) -> int:
        return 3 if self.failed else 0


def predict(
    workspace: Workspace, run: str, paths: Sequence[Path], *, prior: Mapping[str, float] | None = None
) -> PredictResult:
    """Pull the model when it is not here, then classify images; folders are searched for them.

    prior           class shares where the images come from, which the probabilities are adjusted to
    ConfigError     this computer's Python lacks torch
    NotFoundError   no such run or no such path; the run has no model
    DataError       not one image could be read
    """
    lacking = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if lacking:
        raise ConfigError(
            f"Predicting on this computer needs {', '.join(lacking)}", next="pip install 'tlvm[train]'"
        )
    images = [image for path in paths for image in _images(path)]
    if not images:
        raise DataError(
            "There is no image in " + ", ".join(map(str, paths)), next="Name images, or folders of them."
        )
    pulled = pull(workspace, run)
    model = pulled.folder / "model"
    if not (model / "model.json").is_file():
        raise NotFoundError(
            f"The run {pulled.run_id} has no model",
            detail=f"It ended as {pulled.state}.",
            next=f"tlvm logs {called(workspace, pulled.run_id)} shows why.",
        )
    factors = _factors(pulled.folder, prior) if prior else {}
    predictions, failed = [], {}
    for batch in _batches(images):
        with tempfile.TemporaryDirectory(prefix="tlvm-") as folder:
            travelling = [_as_it_travels(image, Path(folder, str(at))) for at, image in enumerate(batch)]
            named = dict(zip(travelling, batch, strict=True))
            for line in _classify(model, travelling):
                line["path"] = named.get(str(line.get("path")), line.get("path"))
                if "error" in line:
                    failed[printable(str(line["path"]))] = str(line["error"])
                else:
                    predictions.append(_prediction(line, factors))
    if failed and not predictions:
        raise DataError(
            "None of the images can be read",
            detail="\n".join(f"{path}: {why}" for path, why in list(failed.items())[:10]),
            next="Name images: JPEG, PNG, HEIC, AVIF, TIFF, BMP or WebP.",
        )
    classes = list(predictions[0].probabilities) if predictions else []
    return PredictResult(pulled.run_id, model, classes, predictions, failed)


def _images(path: Path) -> Iterator[str]:
    """The path itself, or what looks like an image in a folder and all below it, hidden ones left out."""
    if not path.is_dir():
        if not path.exists():
            raise NotFoundError(f"There is no file or folder {path}", next="Check the path.")
        yield str(path)
        return
    for above, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and os.fsencode(Path(name).suffix.lower()) in IMAGE_ENDINGS:
                yield str(Path(above) / name)


def _batches(images: Sequence[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for image in images:
        length = len(os.fsencode(image)) + 1
        if batch and size + length > _ARGUMENT_BYTES_MAX:
            yield batch
            batch, size = [], 0
        batch.append(image)
        size += length
    if batch:
        yield batch


def _as_it_travels(image: str, place: Path) -> str:
    """The image; HEIC and AVIF as an upload sends them, put in `place`: what classifies can't read them."""
    if not image.lower().endswith(MODERN):
        return image
    from orchestrator.datasets.checks.convert import prepared  # Pillow: not for other commands
    from orchestrator.datasets.checks.judge import Unusable

    try:
        data, found = prepared(Path(image).read_bytes())
    except OSError:
        return image  # the process that classifies says why
    if isinstance(found, Unusable):
        return image
    place.write_bytes(data)
    return str(place)


def _classify(model: Path, images: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The lines of `python -m remote predict`, in a process of its own: this one never loads torch."""
    command = [sys.executable, "-P", "-m", "remote", "predict", str(model), "--", *images]
    package = str(Path(remote.__file__).parents[1])
    path = os.pathsep.join([package, *_python_path()])
    # Threads of torch that spin while they wait push those that decode off the cores: as in remote.train.
    environment = {"GOMP_SPINCOUNT": "1000", **os.environ, "PYTHONPATH": path}
    told = False
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment)
        try:
            assert process.stdout is not None
            for text in process.stdout:
                try:
                    line = json.loads(text)
                except ValueError:
                    continue  # a warning of a library
                if isinstance(line, dict):
                    told = True
                    yield line
            code = process.wait()
        finally:
            process.kill()
            process.communicate()
        errors.seek(0)
        said = errors.read()[-2000:].decode(errors="replace").strip()
    if code == UNUSABLE_EXIT and not told:
        raise DataError("The model can't be used", detail=said)
    if code not in (0, UNUSABLE_EXIT):
        raise CloudError(f"Predicting ended with exit code {code}", detail=said)


def _python_path() -> list[str]:
    return [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]


def _factors(folder: Path, prior: Mapping[str, float]) -> dict[str, float]:
    """By class, what its probability is multiplied by."""
    metrics = read_metrics(folder / "metrics.json")
    shares = prevalence(prior, metrics.classes)
    return {
        name: new / old if old else 0.0
        for name, new, old in zip(metrics.classes, shares, supposed(metrics), strict=True)
    }


def _prediction(line: dict[str, Any], factors: Mapping[str, float]) -> Prediction:
    probabilities = line.get("probabilities")
    if not isinstance(probabilities, dict):
        raise CloudError("Predicting gave a line that can't be read", detail=str(line)[:300])
    values = {str(name): float(value) for name, value in probabilities.items()}
    if factors:
        values = moved(values, factors)
    best = max(values, key=lambda name: values[name])
    return Prediction(printable(str(line.get("path"))), best, values[best], values)
