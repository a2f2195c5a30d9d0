"""What the scenarios that train layers by gradient share: who steers, the loop's surroundings, the figures."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from remote.contract import document
from remote.contract.dataset_manifest import Image
from remote.contract.metrics import IMBALANCED, Counters, Evaluation, Frozen
from remote.contract.wording import count
from remote.heads.folds import holdout
from remote.heads.logistic import LinearHead
from remote.images.preprocessing import Preprocessing
from remote.measures.evaluation import Floats, fit_temperature, share_weights
from remote.networks import backbones
from remote.result import Findings, measure, sample
from remote.results import sample_page
from remote.results.artefacts import Predicted
from remote.task import Task
from remote.training import compiling
from remote.training.checkpoint import State
from remote.training.compiling import Forward
from remote.training.ending import ended_by
from remote.training.loading import Loader
from remote.training.loop import evaluate
from remote.training.precision import training_precision
from remote.training.recipe import Recipe, shares
from remote.training.trainee import Epoch, Labelled, Position, Trainee

_HELD_OUT, _OUT_OF_FOLD = "train, held out", "train, out of fold"


def recipe(task: Task, train: Labelled, *, learning_rate: float) -> Recipe:
    """The task's parameters, resolved.

    learning_rate   where the parameters leave it open
    """
    balance = str(task.parameters["balance"])
    return Recipe(
        epochs=task.integer("epochs"),
        batch_size=task.integer("batch_size"),
        learning_rate=task.number("learning_rate") or learning_rate,
        first_layers_rate=task.number("first_layers_rate") if "first_layers_rate" in task.parameters else 1.0,
        weight_decay=task.number("weight_decay"),
        warmup_epochs=task.number("warmup_epochs"),
        label_smoothing=task.number("label_smoothing"),
        mixup=task.number("mixup"),
        ema_epochs=task.number("ema_epochs"),
        balanced=balance == "on" or (balance == "auto" and imbalance(task, train) > IMBALANCED),
        augmentation=str(task.parameters["augmentation"]),
        flips=task.manifest.flips,
        patience=task.integer("patience"),
        seed=task.spec.seed,
    )


def steering(task: Task) -> tuple[Labelled, Labelled, str]:
    """The images that train, those that decide when to stop, and what the latter are called.

    Where there is a test split it is the figure that is reported, so val may steer. Else a part of train does.
    """
    train = task.images("train")
    if task.images("test") and task.images("val"):
        return labelled(task, train), labelled(task, task.images("val")), "val"
    out = holdout(train, share=task.number("holdout"), seed=task.spec.seed)
    kept = [image for image, is_out in zip(train, out, strict=True) if not is_out]
    held = [image for image, is_out in zip(train, out, strict=True) if is_out]
    return labelled(task, kept), labelled(task, held), _HELD_OUT


def labelled(task: Task, images: list[Image]) -> Labelled:
    return Labelled(images, task.labels(images))


def class_counts(task: Task, train: Labelled) -> list[int]:
    found = Counter(image.class_name for image in train.images)
    return [found[name] for name in task.classes]


def imbalance(task: Task, train: Labelled) -> float:
    """How many times more images the largest class has than the smallest."""
    counts = class_counts(task, train)
    return max(counts) / max(1, min(counts))


def trainee(
    task: Task,
    network: backbones.Network,
    spec: Preprocessing,
    recipe: Recipe,
    train: Labelled,
    save: Callable[[State], object],
) -> Trainee:
    """The network on its device, with its images, and the run that hears of it."""
    loader = Loader(train, recipe, spec, task.reader, task.device, task.workers)
    _show(task, loader)

    def tell(text: str) -> None:
        print(text, flush=True)
        task.events.log(text, level="warning")

    return Trainee(
        module=backbones.place(network.module, task.device),
        batches=loader,
        class_counts=class_counts(task, train),
        device=task.device,
        should_stop=task.should_stop,
        due=task.checkpoints.due,
        save=save,
        on_batch=lambda epoch, done: task.events.progress(
            "train", done, len(train.images), "images", epoch=epoch
        ),
        on_epoch=lambda epoch: _tell(task, recipe, epoch),
        tell=tell,
        left_s=task.left_s,
        measured=len(task.images("val", "test")),
        compiler=_compiler(task, recipe, spec, train, tell),
        dtype=training_precision(task.device, str(task.parameters["precision"])),
    )


def _compiler(
    task: Task, recipe: Recipe, spec: Preprocessing, train: Labelled, tell: Callable[[str], None]
) -> Callable[[nn.Module, Tensor], Forward]:
    images = recipe.epochs * len(train.images)
    if not compiling.wanted(str(task.parameters["compile"]), task.device, images=images, crop=spec.crop):
        return lambda module, inputs: module
    dtype = training_precision(task.device, str(task.parameters["precision"]))
    return partial(compiling.compiled, dtype=dtype, folder=task.home.cache / "compiled", tell=tell)


def augmentation_in_words(recipe: Recipe) -> str:
    flips = {"none": "no flips", "horizontal": "flips left to right", "all": "flips and turns"}[recipe.flips]
    mixup = f", images mixed in pairs ({recipe.mixup:g})" if recipe.mixup else ""
    return f"augmentation {recipe.augmentation}, {flips}{mixup}"


def in_words(recipe: Recipe, position: Position, steered_by: str) -> str:
    """What the loop came to."""
    start = "the classifier alone" if position.best_epoch == 0 else f"epoch {position.best_epoch}"
    more = "; its hours did not last for more" if ended_by(recipe, position) == "max_hours" else ""
    if position.compiled:
        more += "; compiled"
    if position.micro_batch < recipe.batch_size:
        more += f"; memory took {position.micro_batch} of {recipe.batch_size} images at a time"
    return f"{start} of {count(position.epoch, 'epoch')} kept, by {steered_by}{more}"


def first_classifier(
    task: Task,
    network: backbones.Network,
    head: LinearHead,
    images: Sequence[Image],
    train: Labelled,
    recipe: Recipe,
) -> State:
    """The classifier that training begins with, as checkpoints keep it, and what it says of images it was not fitted on.

    Trained networks have seen all of train, so these are the only probabilities that can tell doubtful labels there.
    images  that it was fitted on, fold by fold
    """
    logits, bias, prior = head.held_out_logits, head.bias, None
    if recipe.balanced and network.has_bias:  # so that it starts where the balanced loss leads to
        of_classes = shares(class_counts(task, train), bias.device)
        logits, bias, prior = logits - of_classes.double().numpy(), bias - of_classes, _equal(task)
    judging = [image for image, out in zip(images, head.held_out, strict=True) if out]
    labels = task.labels(judging)
    temperature = fit_temperature(logits, labels, share_weights(labels, prior))
    chose = "the penalty of the classifier that training began with"
    said = measure(task, _OUT_OF_FOLD, judging, logits, temperature=temperature, chose=chose, prior=prior)
    return {
        "weight": head.weight,
        "bias": bias,
        "penalty": head.penalty,
        "accuracy": head.accuracy,
        "temperature": temperature,
        "said": document.encode(said),
    }


def findings(
    task: Task,
    network: backbones.Network,
    trainee: Trainee,
    recipe: Recipe,
    position: Position,
    held: Labelled,
    steered_by: str,
    *,
    head: State | None = None,
    **more: Any,
) -> Findings:
    """Measured on the images that steered, then val, then test: the last one that is there is the result.

    head    the classifier that training began with
    more    what `training` in metrics.json says besides
    """
    # What is trained to count all classes alike gives probabilities for a world in which they are equally frequent.
    prior = _equal(task) if recipe.balanced else None
    found = _measured(task, trainee, position, held, steered_by, head, prior)
    if head:
        more["classifier"] = {"penalty": head["penalty"], "held_out_accuracy": round(head["accuracy"], 6)}
    network.module.to("cpu")
    seconds = sum(epoch["seconds"] for epoch in position.history)
    passed = sum(epoch["train_loss"] is not None for epoch in position.history)
    learned = sum(trainee.class_counts) * passed
    measured = len(held.images) * len(position.history) + sum(len(one.images) for one in found.predicted)
    return Findings(
        evaluations=found.evaluations,
        predicted=found.predicted,
        temperature=found.temperature,
        temperature_from=found.temperature_from,
        trained_parameters=sum(p.numel() for p in network.module.parameters() if p.requires_grad),
        frozen=Frozen(parameters=0, tensors=0, equal=0),
        counters=Counters(
            images=len(task.images("train", "val", "test")),
            decoded=task.reader.decoded,
            forwarded=learned + measured,
        ),
        images_per_s=learned / max(seconds, 1e-9),
        training={
            "recipe": asdict(recipe),
            "epochs": position.history,
            "best_epoch": position.best_epoch,
            "ended_by": ended_by(recipe, position),
            "steered_by": steered_by,
            "trained_on": sum(trainee.class_counts),
            "micro_batch": position.micro_batch,
            "precision": "bf16" if trainee.dtype == torch.bfloat16 else "fp32",
            "compiled": position.compiled,
            # On a GPU its kernels are chosen by timing them: another process may choose others, with other last bits.
            "exact_resume": not (position.compiled and trainee.device.type == "cuda"),
            "imbalance": round(max(trainee.class_counts) / max(1, min(trainee.class_counts)), 2),
            **more,
        },
        prior=prior,
    )


def _show(task: Task, loader: Loader) -> None:
    """Images of the first batch, into the result: as they are measured, and as they are trained on."""
    images, batches = loader.images(0, 0)[: sample_page.IMAGES_MAX], loader.epoch(0, 0)
    try:
        augmented = sample_page.as_pixels(loader.spec, next(batches).inputs[: len(images)])
    finally:
        batches.close()
    sample_page.write(
        task.folder.result,
        title=task.spec.run_id,
        spec=loader.spec,
        augmentation=augmentation_in_words(loader.recipe),
        samples=[
            sample_page.Sample(image, sample(task, loader.spec, image), seen)
            for image, seen in zip(images, augmented, strict=True)
        ],
    )


@dataclass
class _Measured:
    """What the network says of images that it was not trained on."""

    evaluations: list[Evaluation] = field(default_factory=list)
    predicted: list[Predicted] = field(default_factory=list)
    temperature: float = 1.0
    temperature_from: str = ""


def _measured(
    task: Task,
    trainee: Trainee,
    position: Position,
    held: Labelled,
    steered_by: str,
    head: State | None,
    prior: list[float] | None,
) -> _Measured:
    """The temperature comes from out-of-fold logits where the first classifier is what is kept, else from the images that steered."""
    found = _Measured()

    def add(name: str, images: Sequence[Image], logits: Floats, chose: str) -> None:
        temperature = found.temperature
        found.evaluations.append(
            measure(task, name, images, logits, temperature=temperature, chose=chose, prior=prior)
        )
        if name in ("val", "test"):
            found.predicted.append(Predicted(images, logits))

    if head:
        said = document.decode(Evaluation, head["said"], what="the first classifier's figures")
        if position.best_epoch == 0:
            found.temperature, found.temperature_from = head["temperature"], said.split
            said = dataclasses.replace(said, chose=f"{said.chose}, and the temperature")
        found.evaluations.append(said)
    if len(held.images):
        logits, chose = evaluate(trainee, held.images, position), "when training stopped"
        if not found.temperature_from:
            weights = share_weights(held.labels, prior)
            found.temperature, found.temperature_from = (
                fit_temperature(logits, held.labels, weights),
                steered_by,
            )
            chose += ", and the temperature"
        add(steered_by, held.images, logits, chose)
    for split in ("val", "test"):
        if (images := task.images(split)) and split != steered_by:
            add(split, images, evaluate(trainee, images, position), "nothing")
    return found


def _equal(task: Task) -> list[float]:
    return [1 / len(task.classes)] * len(task.classes)


def _tell(task: Task, recipe: Recipe, epoch: Epoch) -> None:
    if epoch.epoch:
        task.events.emit(
            "epoch",
            epoch=epoch.epoch,
            of=recipe.epochs,
            train_loss=epoch.train_loss,
            held_out_loss=epoch.held_out_loss,
            held_out_accuracy=epoch.held_out_accuracy,
            seconds=round(epoch.seconds, 3),
        )
    name = f"epoch {epoch.epoch} of {recipe.epochs}" if epoch.epoch else "before the first epoch"
    loss = "" if epoch.train_loss is None else f": loss {epoch.train_loss:.3f}"
    held = (
        f", held out: loss {epoch.held_out_loss:.3f}, accuracy {epoch.held_out_accuracy:.3f}"
        if epoch.held_out_loss is not None
        else ""
    )
    print(f"{name}{loss}{held}, {epoch.seconds:.1f} s", flush=True)
