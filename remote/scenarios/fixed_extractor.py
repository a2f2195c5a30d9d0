"""Little new data, similar to the old: only a new classifier is trained, on features of the frozen network."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from remote import backbones, heads, stages
from remote.artefacts import Predicted
from remote.contract.dataset_manifest import Image
from remote.contract.metrics import Counters, Evaluation, Frozen
from remote.errors import CannotRun
from remote.features import extract
from remote.folds import NEVER, folds, holdout
from remote.result import Findings, finish, in_words, measure
from remote.start import input_spec, load_backbone, select
from remote.task import Task, device_name

_HOLDOUT = 0.2  # of train, where there are too many images for folds
_CHOSE = "the penalty and the temperature"


def run(task: Task) -> None:
    """From images to a result. Each image is decoded once and passes through the network once."""
    with task.step("select") as says:
        says(select(task))

    with task.step("load") as says:
        network, source = load_backbone(task)
        says(source.text)

    with task.step("freeze") as says:
        backbones.freeze(network.module)
        frozen = backbones.parameter_count(network.module) - backbones.parameter_count(network.head)
        says(f"{frozen:,} parameters frozen, normalisation too: it keeps the statistics that it came with")

    with task.step("head") as says:
        classes, width = len(task.classes), network.feature_count
        network.set_head(backbones.new_head(network, torch.zeros(classes, width), torch.zeros(classes)))
        trained = backbones.parameter_count(network.head)
        spec = input_spec(task, source)
        task.events.emit("network", stages=stages.as_event(stages.stages(network, spec.crop)))
        says(
            f"{width} features → {classes} classes: {trained:,} parameters train ({trained / (trained + frozen):.2%})"
        )

    with task.step("preprocess") as says:
        says(f"turned by EXIF, {spec.text}, mean and deviation as the network knows them")

    with task.step("extract") as says:
        backbones.remove_head(network)
        backbones.place(network.module, task.device)
        before = backbones.fingerprint(network.module)
        images = task.images("train", "val", "test")
        extraction = extract(
            network,
            images,
            task.reader,
            spec,
            batch_size=task.integer("batch_size"),
            workers=task.workers,
            device=task.device,
            on_progress=task.progress("extract", len(images), "images"),
            should_stop=task.should_stop,
        )
        says(
            f"{extraction.forwarded} of {len(images)} images, each once · {extraction.images_per_s:.0f} img/s · "
            f"{extraction.seconds:.1f} s on {device_name(task.device)}"
        )

    with task.step("train") as says:
        train = [index for index, image in enumerate(images) if image.split == "train"]
        head = heads.fit(
            extraction.features[train],
            task.labels([images[index] for index in train]),
            _fold_of(task, [images[index] for index in train]),
            _penalties(task),
            classes=classes,
            on_fit=task.progress("train", task.integer("penalties"), "penalties"),
            should_stop=task.should_stop,
        )
        says(
            f"{len(head.candidates)} penalties × {_judges(head)} inside train: {head.penalty:.2g} chosen, "
            f"{head.accuracy:.3f} ± {head.accuracy_error:.3f}"
        )

    with task.step("evaluate") as says:
        equal = backbones.equal_tensors(before, backbones.fingerprint(network.module))
        if equal < len(before):
            raise AssertionError(f"{len(before) - equal} frozen tensors changed during the run")
        network.module.to("cpu")
        network.set_head(backbones.new_head(network, head.weight, head.bias))
        evaluations, predicted = _measured(task, head, images, extraction.features)
        for line in in_words(evaluations[-1]):
            says(line)
        says(f"frozen part: {equal} of {len(before)} tensors equal to the bit")

    findings = Findings(
        evaluations=evaluations,
        predicted=predicted,
        temperature=head.temperature,
        trained_parameters=trained,
        frozen=Frozen(parameters=frozen, tensors=len(before), equal=equal),
        counters=Counters(images=len(images), decoded=task.reader.decoded, forwarded=extraction.forwarded),
        images_per_s=extraction.images_per_s,
        training=_told(head),
    )
    finish(task, network, spec, findings)


def _fold_of(task: Task, train: list[Image]) -> NDArray[np.int64]:
    if len(train) > task.integer("holdout_above"):
        return np.where(holdout(train, share=_HOLDOUT, seed=task.spec.seed), 0, NEVER)
    found = folds(train, most=task.integer("folds"), seed=task.spec.seed)
    if (found == NEVER).all():
        raise CannotRun(
            "No class has two different images in train, so nothing can choose the penalty. Add some."
        )
    return found


def _penalties(task: Task) -> list[float]:
    strongest, weakest = task.number("penalty_max"), task.number("penalty_min")
    if weakest > strongest:
        raise CannotRun(f"penalty_min is {weakest:g}, above penalty_max, {strongest:g}")
    return [float(penalty) for penalty in np.geomspace(strongest, weakest, task.integer("penalties"))]


def _measured(
    task: Task, head: heads.LinearHead, images: list[Image], features: NDArray[np.float32]
) -> tuple[list[Evaluation], list[Predicted]]:
    """Held-out images of train, then val, then test: the last one that is there is the result."""
    train = task.images("train")
    held_out = [image for image, out in zip(train, head.held_out, strict=True) if out]
    temperature = head.temperature
    evaluations = [
        measure(
            task, "train, held out", held_out, head.held_out_logits, temperature=temperature, chose=_CHOSE
        )
    ]
    predicted = []
    for split in ("val", "test"):
        rows = [index for index, image in enumerate(images) if image.split == split]
        if rows:
            logits = head.logits(features[rows])
            part = Predicted([images[index] for index in rows], logits)
            evaluations.append(
                measure(task, split, part.images, logits, temperature=temperature, chose="nothing")
            )
            predicted.append(part)
    return evaluations, predicted


def _judges(head: heads.LinearHead) -> str:
    return f"{head.folds} folds" if head.folds > 1 else "a holdout"


def _told(head: heads.LinearHead) -> dict[str, Any]:
    return {
        "penalty": head.penalty,
        "penalties": [asdict(candidate) for candidate in head.candidates],
        "judged_by": _judges(head),
        "held_out_accuracy": round(head.accuracy, 6),
        "held_out_accuracy_error": round(head.accuracy_error, 6),
    }
