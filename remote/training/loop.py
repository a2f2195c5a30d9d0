"""The training loop that scenarios share: `fit`, `train_one_epoch`, `evaluate`.

Everything random is a function of (seed, epoch, step or image), and a checkpoint holds the rest, so a run that is
killed anywhere and goes on ends like one that was never stopped, bit for bit on the same device.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from remote import devices
from remote.contract.dataset_manifest import Image
from remote.contract.wording import count
from remote.errors import CannotRun, Stopped
from remote.measures.evaluation import Floats, Labels, fit_temperature, log_losses
from remote.networks import memory
from remote.training import precision, recipe
from remote.training.averaging import Average
from remote.training.checkpoint import State
from remote.training.compiling import Forward
from remote.training.ending import is_late, is_next
from remote.training.mixup import mixed
from remote.training.recipe import Recipe, learning_rate, optimiser
from remote.training.trainee import Batch, Epoch, Labelled, Position, Trainee

T = TypeVar("T")

_LOOK = 20  # steps between two looks at the loss: each look waits for a GPU
_TEMPERED = 5_000  # images at most from which the temperature of an epoch is taken


@dataclass
class _Training:
    """What changes while training."""

    position: Position
    optimiser: torch.optim.Optimizer
    average: Average | None
    best: dict[str, Tensor]
    loss_sum: Tensor  # on the device, so that reading it is rare
    forward: Forward | None = None  # the pass of training; None: no batch was seen yet


def fit(
    trainee: Trainee, settings: Recipe, steering: Labelled, *, start_counts: bool, resumed: State | None
) -> Position:
    """Train until the steering images stop getting better, or no time is left; the network ends as in its best epoch.

    steering        images that decide when to stop; without any, all epochs run and the last one counts
    start_counts    the network as it is given may turn out to be the best one
    resumed         what `save` was given last, when this run was stopped
    Stopped         between two batches, when the trainee should; saved before
    CannotRun       the loss is no number any more, or one image does not fit into memory
    """
    training = _resumed(trainee, settings, resumed) if resumed else _begun(trainee, settings)
    position = training.position
    try:
        if start_counts and len(steering.images) and not position.history:
            _finish_epoch(trainee, settings, training, steering)
        while is_next(settings, position) and not is_late(trainee, position, settings.epochs):
            train_one_epoch(trainee, settings, training)
            position.epoch += 1
            inside = position.step_seconds
            try:
                _finish_epoch(trainee, settings, training, steering)
            except Stopped:
                position.epoch -= 1  # all of its steps are done: it is measured again
                position.step_seconds = inside
                raise
            if trainee.due():
                _save(trainee, settings, training)
    except Stopped:
        _save(trainee, settings, training)
        raise
    _save(trainee, settings, training)
    trainee.module.load_state_dict(training.best)
    return position


def train_one_epoch(trainee: Trainee, settings: Recipe, training: _Training) -> None:
    """The rest of the epoch from the position, which moves along. Stopped, CannotRun between batches."""
    position, steps = training.position, trainee.batches.steps
    train_mode(trainee.module)
    mark = time.perf_counter()
    for batch in trainee.batches.epoch(position.epoch, position.step):
        if trainee.should_stop():
            raise Stopped(f"in epoch {position.epoch + 1}")
        if trainee.due():
            _save(trainee, settings, training)
        if training.forward is None:
            training.forward = _forward(trainee, position, batch)
        step = position.epoch * steps + position.step
        began = time.perf_counter()
        recipe.set_rate(training.optimiser, learning_rate(settings, step, steps))
        loss = _gradients(trainee, settings, training, batch, step)
        training.optimiser.step()
        if training.average:
            training.average.update(trainee.module, step)
        training.loss_sum += loss * len(batch.labels)
        position.step += 1
        position.images += len(batch.labels)
        if position.step % _LOOK == 0 or position.step == steps:
            _look(training, settings)
        now = time.perf_counter()
        position.step_seconds += now - began
        position.seconds += now - mark
        mark = now
        trainee.on_batch(position.epoch + 1, position.images)


def evaluate(trainee: Trainee, images: Sequence[Image], position: Position) -> Floats:
    """The logits of the network for each image, (images, classes), without augmentation. Stopped between batches."""
    trainee.module.eval()
    found: list[Floats] = []

    def work(inputs: Tensor, micro_batch: int) -> list[Floats]:
        return [trainee.module(part).cpu().double().numpy() for part in memory.parts(inputs, micro_batch)]

    with torch.inference_mode():
        for inputs in trainee.batches.plain(images):
            if trainee.should_stop():
                raise Stopped("while images were measured")
            began = time.perf_counter()
            found.extend(_within_memory(trainee, position, len(inputs), partial(work, inputs)))
            position.step_seconds += time.perf_counter() - began
    return np.concatenate(found)


def train_mode(module: nn.Module) -> None:
    """Training mode for what trains. What is frozen stays in eval mode: its normalisation keeps its statistics."""
    module.train()
    for part in module.modules():
        parameters = list(part.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            part.eval()


def _forward(trainee: Trainee, position: Position, batch: Batch) -> Forward:
    """The pass of training, compiled where it is wanted and possible."""
    forward = trainee.compiler(trainee.module, batch.inputs[: position.micro_batch])
    compiled = forward is not trainee.module
    if position.compiled != compiled and (position.epoch or position.step):
        trainee.tell("Begun compiled and going on without, or the other way round: not with the same bits")
    position.compiled = compiled
    return forward


def _gradients(trainee: Trainee, settings: Recipe, training: _Training, batch: Batch, step: int) -> Tensor:
    """Forward and backward over one batch, in as many parts as memory asks for; the mean loss, on the device."""
    inputs, targets = batch.inputs, batch.labels
    if settings.mixup:
        inputs, targets = mixed(
            inputs, targets, len(trainee.class_counts), settings.mixup, seed=settings.seed, step=step
        )

    forward = trainee.module if training.forward is None else training.forward

    def work(micro_batch: int) -> Tensor:
        training.optimiser.zero_grad(set_to_none=True)
        torch.manual_seed((settings.seed * 1_000_003 + step) % 2**63)  # dropout
        return _added_up(trainee, settings, forward, inputs, targets, micro_batch)

    return _within_memory(trainee, training.position, len(inputs), work)


def _within_memory(trainee: Trainee, position: Position, images: int, work: Callable[[int], T]) -> T:
    """Call `work` with the number of images that may pass together, which is halved until they fit."""
    while True:
        try:
            return work(position.micro_batch)
        except RuntimeError as error:
            if not memory.ran_out(error):
                raise
        # Beyond the handler, where the error no longer holds on to what filled the memory.
        position.micro_batch = memory.halved(min(position.micro_batch, images), trainee.device)
        trainee.tell(
            f"Out of memory in epoch {position.epoch + 1}: from here on {position.micro_batch} images pass at a "
            "time, and gradients are added up over the same batch; normalisation layers see fewer images"
        )


def _added_up(
    trainee: Trainee, settings: Recipe, forward: Forward, inputs: Tensor, targets: Tensor, micro_batch: int
) -> Tensor:
    prior = recipe.shares(trainee.class_counts, trainee.device) if settings.balanced else None
    total = torch.zeros((), device=trainee.device)
    pairs = zip(memory.parts(inputs, micro_batch), memory.parts(targets, micro_batch), strict=True)
    for part, wanted in pairs:
        with precision.mixed(trainee.device, trainee.dtype):
            logits = forward(part).float()
        if prior is not None:
            logits = logits + prior  # balanced softmax (Ren et al., arXiv 2007.10740)
        loss = functional.cross_entropy(logits, wanted, label_smoothing=settings.label_smoothing)
        loss = loss * (len(part) / len(inputs))
        torch.autograd.backward(loss)
        total += loss.detach()
    return total


def _finish_epoch(trainee: Trainee, settings: Recipe, training: _Training, steering: Labelled) -> None:
    """Measure the steering images, remember the best network, begin the next epoch."""
    position, module = training.position, trainee.module
    began = time.perf_counter()
    held_out_loss, held_out_accuracy = None, None
    weights = training.average.tensors if training.average else module.state_dict()
    if len(steering.images):
        logits = _logits(trainee, training, steering.images)
        held_out_loss = _tempered_loss(logits, steering.labels, balanced=settings.balanced)
        held_out_accuracy = float((logits.argmax(1) == steering.labels).mean())
    if held_out_loss is None or held_out_loss < position.best_loss:
        position.best_epoch = position.epoch
        position.best_loss = position.best_loss if held_out_loss is None else held_out_loss
        training.best = _on_the_host(weights)
    measured_s = time.perf_counter() - began
    done = Epoch(
        position.epoch,
        float(training.loss_sum) / position.images if position.images else None,
        held_out_loss,
        held_out_accuracy,
        round(position.seconds + measured_s, 4),
        round(position.step_seconds, 4),
        round(measured_s, 4),
    )
    position.history.append(asdict(done))
    position.step, position.images = 0, 0
    position.seconds, position.step_seconds = 0.0, 0.0
    training.loss_sum.zero_()
    trainee.on_epoch(done)


def _logits(trainee: Trainee, training: _Training, images: Sequence[Image]) -> Floats:
    """Of the averaged weights where there are some: they are the ones that would be kept."""
    if training.average is None:
        return evaluate(trainee, images, training.position)
    with training.average.in_place_of(trainee.module):
        return evaluate(trainee, images, training.position)


def _tempered_loss(logits: Floats, labels: Labels, *, balanced: bool) -> float:
    """The log-loss after calibration, so that a network is not passed over for being too sure of itself.

    balanced    each class counts as much as another
    """
    some = slice(None, None, 1 + len(labels) // _TEMPERED)
    losses = log_losses(logits, labels, fit_temperature(logits[some], labels[some]))
    weights = 1 / np.bincount(labels)[labels] if balanced else np.ones(len(labels))
    return float(np.average(losses, weights=weights))


def _look(training: _Training, settings: Recipe) -> None:
    """CannotRun when the loss is no number any more."""
    value = float(training.loss_sum)
    if not math.isfinite(value):
        raise _broken(training.position, settings, f"the loss became {value}")


def _save(trainee: Trainee, settings: Recipe, training: _Training) -> None:
    """Only what can be gone on from: CannotRun when the loss or a weight is no number any more."""
    _look(training, settings)
    module = dict(trainee.module.state_dict())
    finite = [tensor.isfinite().all() for tensor in module.values() if tensor.is_floating_point()]
    if not bool(torch.stack(finite).all()):
        raise _broken(training.position, settings, "weights became infinite or no numbers")
    training.position.loss_sum = float(training.loss_sum)
    trainee.save(
        {
            "module": module,
            "optimiser": training.optimiser.state_dict(),
            "average": dict(training.average.tensors) if training.average else None,
            "best": training.best,
            "position": asdict(training.position),
            "threads": torch.get_num_threads(),
            "device": trainee.device.type,
        }
    )


def _broken(position: Position, settings: Recipe, what: str) -> CannotRun:
    return CannotRun(
        f"Stopped in epoch {position.epoch + 1} after {count(position.step, 'step')}: {what}. The last checkpoint "
        f"from before it is kept. Try a smaller learning_rate ({settings.learning_rate / 10:.2g}) or a longer warmup_epochs "
        f"({2 * settings.warmup_epochs + 1:g})."
    )


def _begun(trainee: Trainee, settings: Recipe) -> _Training:
    return _Training(
        position=Position(micro_batch=settings.batch_size),
        optimiser=optimiser(trainee.module, settings),
        average=_average(trainee, settings),
        best=_on_the_host(trainee.module.state_dict()),
        loss_sum=_sum(0.0, trainee.device),
    )


def _resumed(trainee: Trainee, settings: Recipe, state: State) -> _Training:
    training = _begun(trainee, settings)
    trainee.module.load_state_dict(state["module"])
    training.optimiser.load_state_dict(state["optimiser"])
    if training.average:
        for name, tensor in training.average.tensors.items():
            tensor.copy_(state["average"][name])
    torch.set_num_threads(state["threads"])  # sums are added up in another order with another number
    if state["device"] != trainee.device.type:
        trainee.tell(f"Begun on {state['device']}, going on on {trainee.device.type}: not with the same bits")
    training.best = state["best"]
    training.position = Position(**state["position"])
    training.loss_sum = _sum(training.position.loss_sum, trainee.device)
    return training


def _average(trainee: Trainee, settings: Recipe) -> Average | None:
    if not settings.ema_epochs:
        return None
    return Average(trainee.module, steps=settings.ema_epochs * trainee.batches.steps)


def _sum(value: float, device: torch.device) -> Tensor:
    return torch.tensor(value, dtype=devices.of_sums(device), device=device)


def _on_the_host(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
