"""The job `evaluate`: a finished model, measured on images of any dataset version that it was not trained on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from remote.contract import document
from remote.contract.dataset_manifest import Image, decode_manifest
from remote.contract.metrics import Counters, Evaluation, Frozen, Metrics
from remote.contract.run_spec import EvaluatedRun
from remote.contract.wording import count
from remote.errors import CannotRun, Stopped
from remote.images.data import batches
from remote.images.preprocessing import Pixels
from remote.measures.evaluation import Floats, evaluate
from remote.networks import backbones
from remote.result import in_words
from remote.results import artefacts
from remote.results.artefacts import Predicted, read_card_file
from remote.results.classifier import Classifier, open_classifier
from remote.task import Task, device_name, versions

_BATCH_SIZE = 32


def run(task: Task) -> None:
    """Images that trained the model are left out and counted; classes that it does not know are an error."""
    evaluated = task.spec.evaluates
    if evaluated is None:
        raise CannotRun("The run spec does not say which run is to be evaluated.")
    with task.step("select") as says:
        images, seen, steered = _images(task, evaluated)
        says(
            f"{count(len(images), 'image')} of {task.spec.dataset.name} {task.spec.dataset.version[:6]} ({evaluated.split}); "
            f"{seen} that the model was trained on left out"
        )

    with task.step("load") as says:
        card = read_card_file(task.home.weights(evaluated.card_sha256))
        model = open_classifier(card, task.home.weights(task.spec.weights.sha256), task.device)
        before = backbones.fingerprint(model.network.module)
        says(
            f"{card.model} of {evaluated.run_id}: {', '.join(card.classes[:5])} …, every tensor in its place"
        )

    with task.step("preprocess") as says:
        says(f"turned by EXIF, {card.preprocessing.text}, as in its training")

    with task.step("extract") as says:
        began = time.perf_counter()
        logits = _logits(task, model, images)
        seconds = max(time.perf_counter() - began, 1e-9)
        says(f"{count(len(images), 'image')}, each once · {len(images) / seconds:.0f} img/s")

    with task.step("evaluate") as says:
        figures = evaluate(
            evaluated.split,
            logits,
            task.labels(images),
            task.classes,
            temperature=card.temperature,
            chose=evaluated.val_chose if steered else "nothing",
            images=images,
            prior=evaluated.prior,
        )
        for line in in_words(figures):
            says(line)
        after = backbones.fingerprint(model.network.module)

    _write(
        task, evaluated, card, figures, Predicted(images, logits), seen, len(images) / seconds, before, after
    )


def _images(task: Task, evaluated: EvaluatedRun) -> tuple[list[Image], int, bool]:
    """The images, how many were left out because the model was trained on them, and whether some steered it."""
    splits = ("train", "val", "test") if evaluated.split == "all" else (evaluated.split,)
    asked = [image for image in task.manifest.images if image.split in splits]
    data = task.folder.trained_on.read_bytes()
    trained_on = decode_manifest(data, version=evaluated.trained_on.version)
    fitted = ("train", "val") if evaluated.val_trained else ("train",)
    seen = {image.sha256 for image in trained_on.images if image.split in fitted and image.excluded is None}
    steering = {image.sha256 for image in trained_on.images if image.split == "val"}
    kept = [image for image in asked if image.sha256 not in seen]
    if not kept:
        which = "the model was trained on all of them" if asked else f"there is none in {evaluated.split}"
        raise CannotRun(f"Dataset {task.spec.dataset.name} has no image to measure the model on: {which}.")
    unknown = sorted({image.class_name for image in kept} - set(task.classes))
    if unknown:
        raise CannotRun(
            f"The model does not know the classes {', '.join(map(repr, unknown[:10]))} of dataset "
            f"{task.spec.dataset.name}; it knows {', '.join(map(repr, task.classes[:10]))}."
        )
    return kept, len(asked) - len(kept), any(image.sha256 in steering for image in kept)


def _logits(task: Task, model: Classifier, images: Sequence[Image]) -> Floats:
    def load(image: Image) -> Pixels:
        return task.reader.pixels(image, model.card.preprocessing)

    tell, found, done = task.progress("extract", len(images), "images"), [], 0
    for batch in batches(images, load, batch_size=_BATCH_SIZE, workers=task.workers):
        if task.should_stop():
            raise Stopped("while the model was measured")
        found.append(model.logits(batch.loaded))
        done += len(batch.loaded)
        tell(done)
    return np.concatenate(found)


def _write(
    task: Task,
    evaluated: EvaluatedRun,
    card: artefacts.ModelCard,
    figures: Evaluation,
    predicted: Predicted,
    seen: int,
    images_per_s: float,
    before: dict[str, str],
    after: dict[str, str],
) -> None:
    spec = task.spec
    metrics = Metrics(
        run_id=spec.run_id,
        scenario=spec.scenario,
        model=spec.model,
        dataset=spec.dataset.name,
        dataset_version=spec.dataset.version,
        weights=spec.weights.source,
        weights_sha256=spec.weights.sha256,
        seed=spec.seed,
        classes=task.classes,
        images={evaluated.split: figures.n},
        excluded=seen,
        reported=evaluated.split,
        evaluations=[figures],
        temperature=card.temperature,
        trained_parameters=evaluated.trained_parameters,
        frozen=Frozen(
            parameters=evaluated.frozen_parameters,
            tensors=len(before),
            equal=backbones.equal_tensors(before, after),
        ),
        counters=Counters(images=figures.n, decoded=task.reader.decoded, forwarded=figures.n),
        images_per_s=round(images_per_s, 2),
        seconds=task.seconds,
        device=device_name(task.device),
        versions=versions(),
        training={},
        prior=evaluated.prior,
        evaluates=evaluated.run_id,
        trained_s=evaluated.trained_s,
    )
    task.folder.result.mkdir(parents=True, exist_ok=True)
    document.write(task.folder.result / "metrics.json", metrics)
    document.write_text(task.folder.result / "predictions.csv", artefacts.predictions_csv(card, [predicted]))
    task.events.emit("metrics", metrics=asdict(metrics))
