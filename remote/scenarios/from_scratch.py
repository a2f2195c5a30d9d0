"""Lots of new data, different from the old: the architecture is reused, all its weights are computed anew."""

from __future__ import annotations

from remote import trained
from remote.images.preprocessing import of_weights
from remote.networks import backbones, stages
from remote.result import finish, in_words, keep_samples
from remote.start import Source, input_spec, select
from remote.task import Task, device_name
from remote.training.loop import fit

_RATE = 1e-3  # of AdamW
_RATE_OF_SQUEEZENET = 2e-4  # its last convolution ends in a ReLU, which higher rates leave dead


def run(task: Task) -> None:
    """From images to a result. Where there is a test split val steers early stopping, else a part of train does."""
    with task.step("select") as says:
        says(select(task))

    with task.step("load") as says:
        network = backbones.build(task.spec.model, len(task.classes), seed=task.spec.seed)
        says(f"the architecture only; new weights from seed {task.spec.seed}")

    with task.step("freeze") as says:
        says("nothing: every layer is trained")

    with task.step("head") as says:
        spec = input_spec(task, Source("none", of_weights(task.spec.model)))
        task.events.emit("network", stages=stages.as_event(stages.stages(network, spec.crop)))
        count = backbones.parameter_count(network.module)
        says(
            f"{network.feature_count} features → {len(task.classes)} classes; {count:,} parameters train (100 %)"
        )

    with task.step("preprocess") as says:
        train, held, steered_by = trained.steering(task)
        keep_samples(task, spec, train.images)
        squeezenet = task.spec.model.startswith("squeezenet")
        recipe = trained.recipe(task, train, learning_rate=_RATE_OF_SQUEEZENET if squeezenet else _RATE)
        says(f"turned by EXIF, {spec.text}; {trained.augmentation_in_words(recipe)}")

    with task.step("extract") as says:
        says("nothing ahead of training: the features are what is trained")

    with task.step("train") as says:
        resumed = task.checkpoints.latest()
        trainee = trained.trainee(task, network, spec, recipe, train, task.checkpoints.save)
        position = fit(trainee, recipe, held, start_counts=False, resumed=resumed)
        says(f"{trained.in_words(recipe, position, steered_by)}; {device_name(task.device)}")

    with task.step("evaluate") as says:
        findings = trained.findings(task, network, trainee, recipe, position, held, steered_by)
        for line in in_words(findings.evaluations[-1]):
            says(line)

    finish(task, network, spec, findings)
