"""The training loop that scenarios share: `fit`, `train_one_epoch`, `evaluate`.

Everything random is a function of (seed, epoch, step or image), so a run that is stopped anywhere and goes on ends
like one that was never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from . import augmentation
from .contract.dataset_manifest import Flips, Image
from .data import Reader, batches
from .errors import CannotRun, Stopped
from .evaluation import Floats, Labels, log_loss
from .preprocessing import Pixels, Preprocessing, network_input


@dataclass(frozen=True)
class Recipe:
    """How to train."""

    epochs: int
    batch_size: int
    learning_rate: float  # the highest
    weight_decay: float
    warmup_epochs: float
    label_smoothing: float
    augmentation: str  # none, light, strong
    flips: Flips
    patience: int
    seed: int


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to; the last two are those of the images that steer."""

    epoch: int
    train_loss: float
    val_loss: float | None
    val_accuracy: float | None
    seconds: float


@dataclass
class Position:
    """Where the training is: all of it, beside network and optimiser, that a checkpoint holds."""

    epoch: int = 0
    step: int = 0  # of this epoch: batches already learned from
    loss_sum: float = 0.0  # of this epoch's images
    images: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best_loss: float = math.inf


@dataclass(frozen=True)
class Trainee:
    """The network and how its images are read."""

    module: nn.Module
    spec: Preprocessing
    reader: Reader
    device: torch.device
    workers: int
    on_batch: Callable[[int], None]  # images learned from in this epoch
    should_stop: Callable[[], bool]


@dataclass(frozen=True)
class Labelled:
    images: Sequence[Image]
    labels: Labels


def fit(
    trainee: Trainee,
    recipe: Recipe,
    train: Labelled,
    steering: Labelled,
    *,
    checkpoint: dict[str, Any] | None,
    on_epoch: Callable[[Epoch], None],
    save: Callable[[dict[str, Any]], None],
) -> Position:
    """Train until the steering images stop getting better; the network ends as it was in its best epoch.

    steering    images that decide when to stop; without any, all epochs run and the last one counts
    checkpoint  what `save` was given when this run was stopped
    Stopped     after saving, between two batches, when the trainee should
    """
    optimiser = _optimiser(trainee.module, recipe)
    position, best = _resumed(trainee, optimiser, checkpoint)

    def state() -> dict[str, Any]:
        module, own = trainee.module.state_dict(), optimiser.state_dict()
        return {"module": module, "optimiser": own, "best": best, "position": asdict(position)}

    while position.epoch < recipe.epochs and position.epoch - position.best_epoch < recipe.patience:
        began = time.perf_counter()
        try:
            train_one_epoch(trainee, recipe, train, optimiser, position)
        except Stopped:
            save(state())
            raise
        position.epoch += 1
        train_loss = position.loss_sum / max(1, position.images)
        val_loss, val_accuracy = None, None
        if len(steering.images):
            logits = evaluate(trainee, steering.images, batch_size=recipe.batch_size)
            val_loss = log_loss(logits, steering.labels)
            val_accuracy = float((logits.argmax(1) == steering.labels).mean())
        if val_loss is None or val_loss < position.best_loss:
            position.best_epoch = position.epoch
            position.best_loss = position.best_loss if val_loss is None else val_loss
            best = {
                name: tensor.detach().cpu().clone() for name, tensor in trainee.module.state_dict().items()
            }
        done = Epoch(
            position.epoch, train_loss, val_loss, val_accuracy, round(time.perf_counter() - began, 3)
        )
        position.history.append(asdict(done))
        position.step, position.loss_sum, position.images = 0, 0.0, 0
        on_epoch(done)
        save(state())
    trainee.module.load_state_dict(best)
    return position


def train_one_epoch(
    trainee: Trainee, recipe: Recipe, train: Labelled, optimiser: torch.optim.Optimizer, position: Position
) -> None:
    """The rest of the epoch from `position`, which moves along. Stopped, CannotRun (not a number) between batches."""
    trainee.module.train()
    loss_of = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    order = augmentation.order(len(train.images), seed=recipe.seed, epoch=position.epoch)
    steps = steps_per_epoch(len(train.images), recipe.batch_size)
    todo = order[position.step * recipe.batch_size : _whole(len(train.images), recipe.batch_size)]

    def load(index: int) -> Pixels:
        image = train.images[index]
        rgb = trainee.reader.rgb(image)
        return augmentation.augmented(
            rgb,
            image,
            trainee.spec,
            recipe.augmentation,
            recipe.flips,
            seed=recipe.seed,
            epoch=position.epoch,
        )

    for batch in batches(todo, load, batch_size=recipe.batch_size, workers=trainee.workers):
        if trainee.should_stop():
            raise Stopped(f"in epoch {position.epoch + 1}")
        step = position.epoch * steps + position.step
        torch.manual_seed(recipe.seed * 1_000_003 + step)  # dropout
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(recipe, step, steps)
        labels = torch.from_numpy(train.labels[list(batch.items)]).to(trainee.device)
        loss = loss_of(
            trainee.module(network_input(trainee.spec, np.stack(batch.loaded), trainee.device)), labels
        )
        value = float(loss.detach())
        if not math.isfinite(value):
            raise CannotRun(
                f"The loss became {value} in epoch {position.epoch + 1}. Try a smaller learning_rate "
                f"({recipe.learning_rate / 10:g}) or a longer warmup_epochs."
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        position.step += 1
        position.images += len(labels)
        position.loss_sum += value * len(labels)
        trainee.on_batch(position.images)


def evaluate(trainee: Trainee, images: Sequence[Image], *, batch_size: int) -> Floats:
    """The logits of the network for each image, (images, classes), without augmentation."""
    trainee.module.eval()
    parts: list[Floats] = []

    def load(image: Image) -> Pixels:
        return trainee.reader.pixels(image, trainee.spec)

    with torch.inference_mode():
        for batch in batches(images, load, batch_size=batch_size, workers=trainee.workers):
            logits = trainee.module(network_input(trainee.spec, np.stack(batch.loaded), trainee.device))
            parts.append(logits.double().cpu().numpy())
    return np.concatenate(parts)


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Rises in a line over the warm-up, then falls along a cosine to nothing at the end of the last epoch."""
    warmup = recipe.warmup_epochs * steps
    if step < warmup:
        return recipe.learning_rate * (step + 1) / (warmup + 1)
    share = (step - warmup) / max(1.0, recipe.epochs * steps - warmup)
    return recipe.learning_rate * (1 + math.cos(math.pi * min(1.0, share))) / 2


def steps_per_epoch(images: int, batch_size: int) -> int:
    return math.ceil(_whole(images, batch_size) / batch_size)


def _whole(images: int, batch_size: int) -> int:
    """The images that an epoch learns from: a last batch of one is left out, which normalisation can't take.

    The order differs in every epoch, so no image is left out of all.
    """
    return images - 1 if images % batch_size == 1 and images > 1 else images


def _optimiser(module: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW, which trains every architecture of torchvision with one rate; norms and biases do not decay."""
    decaying = [p for p in module.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in module.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [
        {"params": decaying, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


def _resumed(
    trainee: Trainee, optimiser: torch.optim.Optimizer, checkpoint: dict[str, Any] | None
) -> tuple[Position, dict[str, torch.Tensor]]:
    if checkpoint is None:
        return Position(), dict(trainee.module.state_dict())
    trainee.module.load_state_dict(checkpoint["module"])
    optimiser.load_state_dict(checkpoint["optimiser"])
    return Position(**checkpoint["position"]), checkpoint["best"]
