"""How a run ends: what was found goes into the files of the result, and into its last event."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from remote.contract.dataset_manifest import Image
from remote.contract.metrics import Counters, Depth, Evaluation, Frozen, Metrics
from remote.contract.wording import count
from remote.features.feature_cache import FeatureCache, key_of
from remote.images import augmentation
from remote.images.preprocessing import Pixels, Preprocessing, pixels, plain_name
from remote.measures.evaluation import Floats, evaluate
from remote.networks.backbones import Network
from remote.results import artefacts, sample_page
from remote.results.artefacts import ModelCard, Predicted
from remote.sources import source_of
from remote.task import Task, device_name, versions

_PICTURES_BYTES_MAX = 200_000_000  # of the pages of all datasets


@dataclass(frozen=True)
class Findings:
    """What a scenario hands over at its end."""

    evaluations: Sequence[Evaluation]  # the last one is the result
    predicted: Sequence[Predicted]
    temperature: float
    temperature_from: str  # the evaluation whose logits it was fitted on; "" for none
    trained_parameters: int
    frozen: Frozen
    counters: Counters
    images_per_s: float
    training: dict[str, Any]
    by_depth: Sequence[Depth] = ()  # of a frozen network: how far each stage gets
    stages: Sequence[str] = ()  # that the classifier looks at; none: it is the network's own head
    pooling: str = ""
    prior: list[float] | None = None  # class shares that the probabilities suppose; None: those of train


def finish(task: Task, network: Network, spec: Preprocessing, findings: Findings) -> None:
    """Write model, metrics and predictions; emit the metrics."""
    run = task.spec
    card = ModelCard(
        model=run.model,
        arguments=source_of(run.model).arguments(run.model),
        classes=task.classes,
        preprocessing=spec,
        intensity_window=task.manifest.intensity_window,
        temperature=findings.temperature,
        weights=run.weights.source,
        weights_sha256=run.weights.sha256,
        dataset=run.dataset.name,
        dataset_version=run.dataset.version,
        scenario=run.scenario,
        run_id=run.run_id,
        tlvm_version=run.tlvm_version,
        stages=list(findings.stages),
        pooling=findings.pooling,
    )
    every = task.manifest.images
    metrics = Metrics(
        run_id=run.run_id,
        scenario=run.scenario,
        model=run.model,
        dataset=run.dataset.name,
        dataset_version=run.dataset.version,
        weights=run.weights.source,
        weights_sha256=run.weights.sha256,
        seed=run.seed,
        classes=task.classes,
        images={split: len(task.images(split)) for split in ("train", "val", "test") if task.images(split)},
        excluded=sum(image.excluded is not None for image in every),
        reported=findings.evaluations[-1].split,
        evaluations=list(findings.evaluations),
        temperature=findings.temperature,
        trained_parameters=findings.trained_parameters,
        frozen=findings.frozen,
        counters=findings.counters,
        images_per_s=round(findings.images_per_s, 2),
        seconds=task.seconds,
        device=device_name(task.device),
        versions=versions(),
        training={**findings.training, **_gpu_memory(task.device)},
        by_depth=list(findings.by_depth),
        temperature_from=findings.temperature_from,
        train_images=[int(count) for count in train_images(task)],
        prior=findings.prior,
    )
    artefacts.write(task.folder.result, network, card, metrics, findings.predicted)
    task.events.emit("metrics", metrics=asdict(metrics))


def keep_samples(task: Task, spec: Preprocessing, train: Sequence[Image]) -> list[Image]:
    """Which of these images sample.html will show. From now on, whatever decodes one keeps it for the page."""
    order = augmentation.order(len(train), seed=task.spec.seed, epoch=0)
    some = [train[index] for index in order[: sample_page.IMAGES_MAX]]
    task.reader.keep(plain_name(spec), partial(pixels, spec), some)
    return some


def sample(task: Task, spec: Preprocessing, image: Image) -> Pixels:
    """The image as the network sees it when it is measured; not decoded again when `keep_samples` named it before."""
    return task.reader.kept(image, plain_name(spec), partial(pixels, spec))


def show_samples(task: Task, spec: Preprocessing, images: Sequence[Image]) -> None:
    """sample.html of these images, where nothing is done to them at random.

    Kept on the machine like the features: a run that finds its features there decodes nothing for the page either.
    """
    key = key_of({"pixels of": asdict(spec), "window": task.manifest.intensity_window})
    room = min(_PICTURES_BYTES_MAX, int(task.number("cache_gb") * 1e9))
    cache = FeatureCache(task.home.cache / "pictures", key, room)
    names = [f"{image.sha256}:{image.page}" for image in images]
    rows = np.empty((len(images), 3 * spec.crop**2), np.uint8)
    here = cache.find(names, {"pixels": rows.shape[1]})
    known = [row for row, name in enumerate(names) if name in here]
    copied = cache.read([names[row] for row in known], {"pixels": rows}, known)
    new = [row for row, name in enumerate(names) if name not in copied]
    for row in new:
        rows[row] = sample(task, spec, images[row]).reshape(-1)
    with suppress(OSError):  # a full disk; the page does not need it
        cache.write([names[row] for row in new], {"pixels": rows[new]})
    shape = (spec.crop, spec.crop, 3)
    samples = [sample_page.Sample(image, row.reshape(shape)) for image, row in zip(images, rows, strict=True)]
    sample_page.write(task.folder.result, title=task.spec.run_id, spec=spec, augmentation="", samples=samples)


def train_images(task: Task) -> NDArray[np.int64]:
    """How many there are of each class."""
    return np.bincount(task.labels(task.images("train")), minlength=len(task.classes))


def _gpu_memory(device: torch.device) -> dict[str, int]:
    """Where there is an NVIDIA GPU, how much of its memory was in use at most."""
    if device.type != "cuda":
        return {}
    return {"peak_gpu_memory_mb": round(torch.cuda.max_memory_allocated(device) / 1e6)}


def measure(
    task: Task,
    name: str,
    images: Sequence[Image],
    logits: Floats,
    *,
    temperature: float,
    chose: str,
    prior: Sequence[float] | None = None,
) -> Evaluation:
    """The figures of these images, whose logits these are. `prior`: see `evaluate`."""
    return evaluate(
        name,
        logits,
        task.labels(images),
        task.classes,
        temperature=temperature,
        chose=chose,
        images=images,
        prior=prior,
    )


def in_words(evaluation: Evaluation) -> list[str]:
    """The lines about the reported figure."""
    low, high = evaluation.accuracy_interval
    return [
        f"{evaluation.split}: {count(evaluation.n, 'image')} that chose {evaluation.chose}",
        f"accuracy {evaluation.accuracy:.3f} ({evaluation.correct} of {evaluation.n}; 95 %: {low:.3f} – {high:.3f}) · "
        f"guessing {evaluation.guessing:.3f} · calibration error "
        f"{evaluation.calibration_error_uncalibrated:.3f} → {evaluation.calibration_error:.3f}",
    ]
