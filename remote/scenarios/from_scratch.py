"""Lots of new data, different from the old: the architecture is reused, all its weights are computed anew."""

from __future__ import annotations

from remote import backbones, checkpoint, stages
from remote.artefacts import Predicted
from remote.contract.dataset_manifest import Image
from remote.contract.metrics import Counters, Evaluation, Frozen
from remote.evaluation import fit_temperature
from remote.folds import holdout
from remote.preprocessing import of_weights, with_image_size
from remote.result import Findings, finish, in_words, measure
from remote.start import select
from remote.task import Task, device_name
from remote.training import Epoch, Labelled, Recipe, Trainee, evaluate, fit

_CHOSE = "when training stopped, and the temperature"


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
        spec = with_image_size(of_weights(task.spec.model), task.integer("image_size"))
        task.events.emit("network", stages=stages.as_event(stages.stages(network, spec.crop)))
        trained = backbones.parameter_count(network.module)
        says(
            f"{network.feature_count} features → {len(task.classes)} classes; {trained:,} parameters train (100 %)"
        )

    with task.step("preprocess") as says:
        recipe = _recipe(task)
        flips = {"none": "no flips", "horizontal": "flips left to right", "all": "flips and turns"}[
            recipe.flips
        ]
        says(f"turned by EXIF, {spec.text}; augmentation {recipe.augmentation}, {flips}")

    with task.step("extract") as says:
        says("nothing ahead of training: the features are what is trained")

    with task.step("train") as says:
        train, steering, steered_by = _steering(task)
        steps = task.progress("train", len(train.images), "images")
        trainee = Trainee(
            module=backbones.place(network.module, task.device),
            spec=spec,
            reader=task.reader,
            device=task.device,
            workers=task.workers,
            on_batch=steps,
            should_stop=task.should_stop,
        )
        position = fit(
            trainee,
            recipe,
            train,
            steering,
            checkpoint=checkpoint.load(task.folder.checkpoints, task.spec.run_id),
            on_epoch=lambda epoch: _tell(task, recipe, epoch),
            save=lambda state: checkpoint.save(task.folder.checkpoints, task.spec.run_id, state),
        )
        says(
            f"epoch {position.best_epoch} of {position.epoch} kept, by {steered_by}; {device_name(task.device)}"
        )

    with task.step("evaluate") as says:
        evaluations, predicted, temperature = _measured(
            task, trainee, steering, steered_by, recipe.batch_size
        )
        for line in in_words(evaluations[-1]):
            says(line)
        network.module.to("cpu")

    findings = Findings(
        evaluations=evaluations,
        predicted=predicted,
        temperature=temperature,
        trained_parameters=trained,
        frozen=Frozen(parameters=0, tensors=0, equal=0),
        counters=Counters(
            images=len(task.images("train", "val", "test")),
            decoded=task.reader.decoded,
            forwarded=task.reader.decoded,
        ),
        images_per_s=len(train.images) * position.epoch / sum(epoch["seconds"] for epoch in position.history),
        training={
            "epochs": position.history,
            "best_epoch": position.best_epoch,
            "steered_by": steered_by,
        },
    )
    finish(task, network, spec, findings)


def _recipe(task: Task) -> Recipe:
    return Recipe(
        epochs=task.integer("epochs"),
        batch_size=task.integer("batch_size"),
        learning_rate=task.number("learning_rate"),
        weight_decay=task.number("weight_decay"),
        warmup_epochs=task.number("warmup_epochs"),
        label_smoothing=task.number("label_smoothing"),
        augmentation=str(task.parameters["augmentation"]),
        flips=task.manifest.flips,
        patience=task.integer("patience"),
        seed=task.spec.seed,
    )


def _steering(task: Task) -> tuple[Labelled, Labelled, str]:
    """The images that train, those that decide when to stop, and what the latter are called."""
    train = task.images("train")
    if task.images("test") and task.images("val"):
        return _labelled(task, train), _labelled(task, task.images("val")), "val"
    out = holdout(train, share=task.number("holdout"), seed=task.spec.seed)
    kept = [image for image, is_out in zip(train, out, strict=True) if not is_out]
    steering = [image for image, is_out in zip(train, out, strict=True) if is_out]
    return _labelled(task, kept), _labelled(task, steering), "train, held out"


def _labelled(task: Task, images: list[Image]) -> Labelled:
    return Labelled(images, task.labels(images))


def _measured(
    task: Task, trainee: Trainee, steering: Labelled, steered_by: str, batch_size: int
) -> tuple[list[Evaluation], list[Predicted], float]:
    """The images that steered, then val, then test: the last one that is there is the result. The temperature."""
    evaluations, predicted, temperature = [], [], 1.0
    if len(steering.images):
        logits = evaluate(trainee, steering.images, batch_size=batch_size)
        temperature = fit_temperature(logits, steering.labels)
        figures = measure(task, steered_by, steering.images, logits, temperature=temperature, chose=_CHOSE)
        evaluations.append(figures)
        if steered_by == "val":
            predicted.append(Predicted(steering.images, logits))
    for split in ("val", "test"):
        images = task.images(split)
        if images and split != steered_by:
            logits = evaluate(trainee, images, batch_size=batch_size)
            evaluations.append(measure(task, split, images, logits, temperature=temperature, chose="nothing"))
            predicted.append(Predicted(images, logits))
    return evaluations, predicted, temperature


def _tell(task: Task, recipe: Recipe, epoch: Epoch) -> None:
    task.events.emit(
        "epoch",
        epoch=epoch.epoch,
        of=recipe.epochs,
        train_loss=epoch.train_loss,
        val_loss=epoch.val_loss,
        val_accuracy=epoch.val_accuracy,
        seconds=epoch.seconds,
    )
    val = (
        ""
        if epoch.val_loss is None
        else f", held out: loss {epoch.val_loss:.3f}, accuracy {epoch.val_accuracy:.3f}"
    )
    print(
        f"epoch {epoch.epoch} of {recipe.epochs}: loss {epoch.train_loss:.3f}{val}, {epoch.seconds:.1f} s",
        flush=True,
    )
