"""The last layers are tuned, from a classifier that was fitted first; those before them stay as they are.

Where no augmentation forbids it, what the frozen part gives is computed once for each image and never again.
"""

from __future__ import annotations

import dataclasses

import torch

from remote import frozen, trained
from remote.contract.metrics import Depth, Frozen
from remote.heads import curve, logistic
from remote.images.augmentation import Augmentation
from remote.images.preprocessing import Preprocessing
from remote.networks import backbones, depths, stages
from remote.result import finish, in_words, keep_samples
from remote.start import input_spec, load_backbone, select
from remote.task import Task, device_name
from remote.training import cut, recipe
from remote.training.checkpoint import State
from remote.training.cut import Cut, CutBatches
from remote.training.loading import Loader
from remote.training.loop import fit
from remote.training.recipe import Recipe
from remote.training.trainee import Labelled, Trainee


def run(task: Task) -> None:
    """From images to a result. Where there is a test split val steers early stopping, else a part of train does."""
    with task.step("select") as says:
        says(select(task))

    with task.step("load") as says:
        network, source = load_backbone(task)
        says(source.text)

    with task.step("freeze") as says:
        where = cut.cut(network, str(task.parameters["unfreeze_from"]))
        cut.freeze_below(network, where)
        parameters = sum(p.numel() for p in network.module.parameters() if not p.requires_grad)
        says(
            f"{parameters:,} parameters before {where.name}, normalisation too; {where.name} and on are trained"
        )

    with task.step("head") as says:
        classes, width = len(task.classes), network.feature_count
        network.set_head(backbones.new_head(network, torch.zeros(classes, width), torch.zeros(classes)))
        spec = input_spec(task, source)
        task.events.emit("network", stages=stages.as_event(stages.stages(network, spec.crop)))
        trains = sum(p.numel() for p in network.module.parameters() if p.requires_grad)
        says(f"{width} features → {classes} classes; {trains:,} parameters train")

    with task.step("preprocess") as says:
        train, held, steered_by = trained.steering(task)
        keep_samples(task, spec, train.images)
        settings = trained.recipe(task, train, learning_rate=recipe.fine_tuning_rate(task.spec.model))
        if settings.augmentation == "none":
            settings = dataclasses.replace(settings, flips="none")
        says(f"turned by EXIF, {spec.text}; {trained.augmentation_in_words(settings)}")

    resumed = task.checkpoints.latest()
    with task.step("extract") as says:
        head = resumed["head"] if resumed else _fitted_head(task, network, spec, train, settings)
        network.set_head(backbones.new_head(network, head["weight"], head["bias"]))
        cut.freeze_below(network, where)
        before = _fingerprint(network, where)
        says(
            f"a classifier on the features: {head['accuracy']:.3f} on held-out images; training begins with it"
        )

    with task.step("train") as says:
        if not resumed:
            task.checkpoints.save({"head": head, "training": None})

        def save(state: State) -> None:
            task.checkpoints.save({"head": head, "training": state})

        whole = trained.trainee(task, network, spec, settings, train, save)
        upper = _upper(task, network, where, whole, settings)
        trainee = upper or whole
        says(_in_words(where, trainee))
        training = resumed["training"] if resumed else None
        position = fit(trainee, settings, held, start_counts=True, resumed=training)
        says(f"{trained.in_words(settings, position, steered_by)}; {device_name(task.device)}")

    with task.step("evaluate") as says:
        equal = backbones.equal_tensors(before, _fingerprint(network, where))
        if equal < len(before):
            raise AssertionError(f"{len(before) - equal} frozen tensors changed during the run")
        findings = trained.findings(
            task,
            network,
            trainee,
            settings,
            position,
            held,
            steered_by,
            head=head,
            unfreeze_from=where.name,
            activations_kept=upper is not None,
        )
        for line in in_words(findings.evaluations[-1]):
            says(line)
        says(f"frozen part: {equal} of {len(before)} tensors equal to the bit")

    kept = Frozen(parameters=parameters, tensors=len(before), equal=equal)
    finish(
        task,
        network,
        spec,
        dataclasses.replace(findings, frozen=kept, by_depth=[Depth(**one) for one in head["by_depth"]]),
    )


def _fitted_head(
    task: Task, network: backbones.Network, spec: Preprocessing, train: Labelled, settings: Recipe
) -> State:
    """A linear classifier on the frozen network's features of the images that train: none that steer are among them."""
    backbones.freeze(network.module)
    ends = depths.stage_ends(network, str(task.parameters["stages"]))
    wanted = [*depths.blocks_of(ends, deviations=False), depths.LAST]
    kept = Augmentation.of(train.images, spec, settings.augmentation, settings.flips)
    with task.reader.keeping(kept.name, kept.source):  # for what is computed up to the cut, or for the epochs
        seen = frozen.look(task, network, spec, wanted=wanted, splits=["train"])
    rows = frozen.training_rows(task, seen, train.images)
    head = logistic.fit(
        seen.extraction.features[rows.rows],
        rows.labels,
        rows.fold_of,
        rows.penalties,
        classes=len(task.classes),
        bias=network.has_bias,
        should_stop=task.should_stop,
    )
    by_depth = frozen.by_depth(task, seen, rows, curve.singles(ends, deviations=False), all_images=False)
    frozen.draw(task, by_depth, depths.LAST)
    first = trained.first_classifier(task, network, head, seen.images(rows.rows), train, settings)
    return {**first, "by_depth": [dataclasses.asdict(one.depth) for one in by_depth]}


def _upper(
    task: Task, network: backbones.Network, where: Cut, whole: Trainee, settings: Recipe
) -> Trainee | None:
    """The part from the cut on as a trainee of its own, fed from memory; None where that can't be."""
    loader = whole.batches
    if settings.augmentation != "none" or settings.mixup or not isinstance(loader, Loader):
        return None
    images = task.images("train", "val", "test")
    sample = next(iter(loader.plain(task.images("train")[:2])))
    network.module.eval()
    module, given = cut.upper(network, where, sample), cut.below(network, where, sample)
    if module is None or 4 * given[0].numel() * len(images) > task.number("activations_gb") * 1e9:
        return None
    activations = cut.activations(network, where, loader, images, task.should_stop)
    batches = CutBatches.of(loader, images, activations, task.classes)
    return dataclasses.replace(whole, module=module, batches=batches)


def _in_words(where: Cut, trainee: Trainee) -> str:
    if isinstance(trainee.batches, CutBatches):
        size = trainee.batches.activations.nbytes / 1e9
        return f"what comes before {where.name} is computed once for each image and kept, {size:.2g} GB"
    return f"what comes before {where.name} is computed in every epoch: its images or its memory do not allow less"


def _fingerprint(network: backbones.Network, where: Cut) -> dict[str, str]:
    return {
        f"{name}.{tensor}": digest
        for name in where.below
        for tensor, digest in backbones.fingerprint(network.module.get_submodule(name)).items()
    }
