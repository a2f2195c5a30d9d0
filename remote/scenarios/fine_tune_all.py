"""Lots of new data, similar to the old: every layer is tuned, from a classifier that was fitted first.

The classifier comes first because a random one would send its errors through layers that know better (linear probing,
then fine-tuning: Kumar et al., arXiv 2202.10054). It may also turn out to be the best there is, and is then kept.
"""

from __future__ import annotations

import numpy as np
import torch

from remote import frozen, trained
from remote.errors import CannotRun
from remote.features.extraction import KEEP_EVERY_S, Row, extract
from remote.heads import logistic
from remote.heads.folds import NEVER, folds, holdout
from remote.images.augmentation import Augmentation
from remote.images.preprocessing import Preprocessing
from remote.networks import backbones, depths, stages
from remote.result import finish, in_words, keep_samples
from remote.start import input_spec, load_backbone, select
from remote.task import Task, device_name
from remote.training import recipe
from remote.training.checkpoint import State
from remote.training.loop import fit
from remote.training.recipe import Recipe
from remote.training.trainee import Labelled

# Of the first classifier: what fixed-extractor takes by default.
_PENALTIES = tuple(float(penalty) for penalty in np.geomspace(10.0, 1e-5, 13))
_FOLDS, _HOLDOUT, _HOLDOUT_ABOVE = 5, 0.2, 20_000


def run(task: Task) -> None:
    """From images to a result. Where there is a test split val steers early stopping, else a part of train does."""
    with task.step("select") as says:
        says(select(task))

    with task.step("load") as says:
        network, source = load_backbone(task)
        says(source.text)

    with task.step("freeze") as says:
        says("everything, until the classifier is fitted; nothing after that")

    with task.step("head") as says:
        classes, width = len(task.classes), network.feature_count
        network.set_head(backbones.new_head(network, torch.zeros(classes, width), torch.zeros(classes)))
        spec = input_spec(task, source)
        task.events.emit("network", stages=stages.as_event(stages.stages(network, spec.crop)))
        count = backbones.parameter_count(network.module)
        says(f"{width} features → {classes} classes; {count:,} parameters train (100 %)")

    with task.step("preprocess") as says:
        train, held, steered_by = trained.steering(task)
        keep_samples(task, spec, train.images)
        settings = trained.recipe(task, train, learning_rate=recipe.fine_tuning_rate(task.spec.model))
        says(f"turned by EXIF, {spec.text}; {trained.augmentation_in_words(settings)}")

    resumed = task.checkpoints.latest()
    with task.step("extract") as says:
        head = resumed["head"] if resumed else _fitted_head(task, network, spec, train, settings)
        network.set_head(backbones.new_head(network, head["weight"], head["bias"]))
        network.module.requires_grad_(True)
        says(
            f"a classifier on the features of {len(train.images)} images: {head['accuracy']:.3f} on held-out ones, "
            f"penalty {head['penalty']:.2g}; training begins with it"
        )

    with task.step("train") as says:
        if not resumed:
            task.checkpoints.save({"head": head, "training": None})

        def save(state: State) -> None:
            task.checkpoints.save({"head": head, "training": state})

        trainee = trained.trainee(task, network, spec, settings, train, save)
        training = resumed["training"] if resumed else None
        position = fit(trainee, settings, held, start_counts=True, resumed=training)
        says(f"{trained.in_words(settings, position, steered_by)}; {device_name(task.device)}")

    with task.step("evaluate") as says:
        findings = trained.findings(task, network, trainee, settings, position, held, steered_by, head=head)
        for line in in_words(findings.evaluations[-1]):
            says(line)

    finish(task, network, spec, findings)


def _fitted_head(
    task: Task, network: backbones.Network, spec: Preprocessing, train: Labelled, settings: Recipe
) -> State:
    """A linear classifier on the frozen network's features of the images that train: none that steer are among them."""
    backbones.freeze(network.module)
    backbones.remove_head(network)
    backbones.place(network.module, task.device)
    ends = depths.stage_ends(network)  # so that what fixed-extractor left on this machine is found
    seen = Augmentation.of(train.images, spec, settings.augmentation, settings.flips)
    with task.reader.keeping(seen.name, seen.source):  # for the epochs
        extraction = extract(
            network,
            [Row(image) for image in train.images],
            task.reader,
            spec,
            ends=ends,
            cache=frozen.cache_of(task, spec, ends, backbones.fingerprint(network.module)),
            wanted=[depths.LAST],
            batch_size=task.integer("batch_size"),
            workers=task.workers,
            device=task.device,
            keep_every_s=min(KEEP_EVERY_S, task.checkpoints.rhythm.least_s),
            on_progress=task.progress("extract", len(train.images), "images"),
            should_stop=task.should_stop,
        )
    frozen.warn(task, extraction)
    if len(train.images) > _HOLDOUT_ABOVE:
        fold_of = np.where(holdout(train.images, share=_HOLDOUT, seed=task.spec.seed), 0, NEVER)
    else:
        fold_of = folds(train.images, most=_FOLDS, seed=task.spec.seed)
    if (fold_of == NEVER).all():
        raise CannotRun(
            "No class has two different images left to train on, so nothing can choose the penalty. Add some."
        )
    head = logistic.fit(
        extraction.features,
        train.labels,
        fold_of,
        _PENALTIES,
        classes=len(task.classes),
        bias=network.has_bias,
        should_stop=task.should_stop,
    )
    return trained.first_classifier(task, network, head, train.images, train, settings)
