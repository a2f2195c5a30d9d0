"""The loop on a small network whose images are numbers in memory: to the bit, out of memory, not a number."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from remote.contract.dataset_manifest import Image
from remote.errors import CannotRun, Stopped
from remote.images import augmentation
from remote.networks.memory import parts
from remote.training.checkpoint import State, digest
from remote.training.compiling import Forward
from remote.training.ending import ended_by
from remote.training.loop import fit, train_mode
from remote.training.recipe import Recipe, depths, fine_tuning_rate, learning_rate, optimiser
from remote.training.trainee import Batch, Epoch, Labelled, Position, Trainee
from tests import documents

CLASSES = 3
RECIPE = Recipe(
    epochs=3,
    batch_size=8,
    learning_rate=1e-2,
    first_layers_rate=0.1,
    weight_decay=0.05,
    warmup_epochs=1.0,
    label_smoothing=0.1,
    mixup=0.2,
    ema_epochs=0.5,
    balanced=True,
    augmentation="light",
    flips="horizontal",
    patience=5,
    seed=7,
)


class Small(nn.Module):
    """Convolution, normalisation, dropout, classifier; with less memory than asked for, if told so."""

    def __init__(self, *, room: int = 1000, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(8, CLASSES)
        self.room = room

    def forward(self, inputs: Tensor) -> Tensor:
        if len(inputs) > self.room:
            raise torch.OutOfMemoryError(f"{len(inputs)} images")
        maps = torch.relu(self.norm(self.stem(inputs)))
        logits: Tensor = self.head(self.drop(maps.mean((2, 3))))
        return logits


def image(number: int) -> Image:
    return documents.image(
        f"train/{number % CLASSES}/{number}.png", sha256=f"{number:064x}", width=6, height=6
    )


def numbers(count: int, first: int = 0) -> Labelled:
    images = [image(number) for number in range(first, first + count)]
    return Labelled(images, np.array([int(one.class_name) for one in images], dtype=np.int64))


def pixels(one: Image, epoch: int = -1) -> Tensor:
    """Noise around the class: a function of image and epoch."""
    generator = np.random.Generator(np.random.Philox(key=[int(one.sha256, 16), epoch + 1]))
    values = generator.normal(int(one.class_name) - 1, 1.0, (3, 6, 6))
    return torch.from_numpy(values.astype(np.float32))


@dataclass
class InMemory:
    """Batches of numbers, as the protocol asks for them."""

    train: Labelled
    batch_size: int = RECIPE.batch_size

    @property
    def steps(self) -> int:
        return -(-len(self.train.images) // self.batch_size)

    def epoch(self, epoch: int, start: int) -> Iterator[Batch]:
        order = augmentation.order(len(self.train.images), seed=RECIPE.seed, epoch=epoch)
        for first in range(start * self.batch_size, len(order), self.batch_size):
            chosen = order[first : first + self.batch_size]
            inputs = torch.stack([pixels(self.train.images[index], epoch) for index in chosen])
            yield Batch(inputs, torch.from_numpy(self.train.labels[chosen]))

    def plain(self, images: Sequence[Image]) -> Iterator[Tensor]:
        for first in range(0, len(images), self.batch_size):
            yield torch.stack([pixels(one) for one in images[first : first + self.batch_size]])


@dataclass
class Run:
    """One attempt: stops when it was asked for the `stop_at`th time whether it should, saves as often as it is due."""

    module: nn.Module = field(default_factory=Small)
    stop_at: int = 10**9
    asked: int = 0
    due: bool = False
    saved: list[State] = field(default_factory=list)
    epochs: list[Epoch] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    order: list[Tensor] = field(default_factory=list)
    compiler: Callable[[nn.Module, Tensor], Forward] = lambda module, _: module
    epochs_in_its_hours: float = math.inf
    left_s: float = 0.0  # after them
    measured: int = 0

    def fit(
        self, recipe: Recipe = RECIPE, resumed: State | None = None, *, start_counts: bool = True
    ) -> Position:
        trainee = Trainee(
            module=self.module,
            batches=InMemory(numbers(21)),
            class_counts=[7, 7, 7],
            device=torch.device("cpu"),
            should_stop=self._should_stop,
            due=lambda: self.due,
            save=lambda state: self.saved.append(copied(state)),
            on_batch=lambda epoch, done: None,
            on_epoch=self.epochs.append,
            tell=self.told.append,
            left_s=lambda: math.inf if len(self.epochs) - 1 < self.epochs_in_its_hours else self.left_s,
            measured=self.measured,
            compiler=self.compiler,
        )
        return fit(trainee, recipe, numbers(9, first=100), start_counts=start_counts, resumed=resumed)

    @property
    def weights(self) -> str:
        return digest(dict(self.module.state_dict()))

    def _should_stop(self) -> bool:
        self.asked += 1
        return self.asked > self.stop_at


def copied(value: Any) -> Any:
    """As a file would hold it: the tensors of the network go on changing."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    "recipe",
    [
        RECIPE,
        replace(RECIPE, mixup=0.0, ema_epochs=0.0, balanced=False),
        replace(RECIPE, patience=1, learning_rate=0.5),
    ],
    ids=["everything", "plain", "stopping early"],
)
def test_stopped_at_any_moment_and_gone_on_ends_with_the_same_bits(recipe: Recipe) -> None:
    whole = Run()
    position = whole.fit(recipe)
    assert position.history
    for moment in range(whole.asked):
        first = Run(stop_at=moment)
        with pytest.raises(Stopped):
            first.fit(recipe)
        second = Run(Small(seed=moment + 1))
        again = second.fit(recipe, first.saved[-1])
        assert second.weights == whole.weights, moment
        assert [(e["train_loss"], e["held_out_loss"]) for e in again.history] == [
            (e["train_loss"], e["held_out_loss"]) for e in position.history
        ]


def test_hours_that_do_not_last_for_all_epochs_end_in_the_best_so_far() -> None:
    """With more of them it goes on from there, to the same bits."""
    short, whole = Run(epochs_in_its_hours=2), Run()
    position = short.fit()
    assert (position.epoch, ended_by(RECIPE, position)) == (2, "max_hours")
    assert len(short.told) == 1 and short.told[0].startswith(
        f"Stopped after epoch 2 of {RECIPE.epochs}: 0 s of max_hours are left"
    )
    assert ended_by(RECIPE, whole.fit()) == "epochs"
    assert whole.told == []
    again = Run(Small(seed=3))
    again.fit(resumed=short.saved[-1])
    assert again.weights == whole.weights


def test_hours_last_for_measuring_many_more_images_than_trained() -> None:
    few = Run(epochs_in_its_hours=1, left_s=1e6, measured=21)
    assert ended_by(RECIPE, few.fit()) == "epochs"
    many = Run(epochs_in_its_hours=1, left_s=1e6, measured=10**15)
    position = many.fit()
    assert (position.epoch, ended_by(RECIPE, position)) == (1, "max_hours")


def test_every_checkpoint_on_the_way_leads_to_the_same_bits() -> None:
    whole = Run(due=True)
    whole.fit()
    assert len(whole.saved) > 12
    for state in whole.saved:
        second = Run(Small(seed=5))
        second.fit(resumed=state)
        assert second.weights == whole.weights


def test_it_goes_on_with_the_threads_that_it_began_with(threads: None) -> None:
    """Another number would add up in another order; the device is recorded too, and another one is said."""
    torch.set_num_threads(2)
    first = Run(stop_at=3)
    with pytest.raises(Stopped):
        first.fit()
    state = first.saved[-1]
    assert (state["threads"], state["device"]) == (2, "cpu")
    torch.set_num_threads(1)
    second = Run()
    second.fit(resumed=state)
    assert torch.get_num_threads() == 2
    assert second.told == []
    third = Run()
    third.fit(resumed={**state, "device": "cuda"})
    assert third.told == ["Begun on cuda, going on on cpu: not with the same bits"]


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_best_epoch_is_kept_and_may_be_the_start() -> None:
    run = Run()
    before = run.weights
    position = run.fit(replace(RECIPE, learning_rate=10.0, ema_epochs=0.0, patience=2))
    losses = [epoch.held_out_loss for epoch in run.epochs]
    assert position.best_epoch == int(np.argmin([loss for loss in losses if loss is not None]))
    assert (position.best_epoch == 0) == (run.weights == before)
    assert run.epochs[0].train_loss is None


def test_without_steering_images_all_epochs_run() -> None:
    run = Run()
    trainee = Trainee(
        module=run.module,
        batches=InMemory(numbers(9)),
        class_counts=[3, 3, 3],
        device=torch.device("cpu"),
        should_stop=lambda: False,
        due=lambda: False,
        save=run.saved.append,
        on_batch=lambda epoch, done: None,
        on_epoch=run.epochs.append,
        tell=run.told.append,
    )
    position = fit(trainee, RECIPE, numbers(0), start_counts=True, resumed=None)
    assert (position.epoch, position.best_epoch, len(run.epochs)) == (3, 3, 3)


def test_out_of_memory_halves_the_batch_and_adds_gradients_up() -> None:
    run = Run(Small(room=3), due=True)
    position = run.fit()
    assert position.micro_batch == 2
    assert [told.partition(":")[0] for told in run.told] == ["Out of memory in epoch 1"] * 2
    assert "2 images pass at a time" in run.told[-1]
    resumed = Run(Small(room=3, seed=9))
    resumed.fit(resumed=run.saved[-4])
    assert resumed.told == []
    assert resumed.weights == run.weights


def test_parts_have_the_gradient_of_the_whole() -> None:
    recipe = replace(RECIPE, epochs=1, mixup=0.0)
    found = []
    for room in (1000, 4):
        module = Small(room=room)
        module.norm, module.drop = nn.Identity(), nn.Identity()  # type: ignore[assignment]
        Run(module).fit(recipe, start_counts=False)
        found.append(torch.cat([parameter.detach().flatten() for parameter in module.parameters()]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-5)


def test_an_image_that_never_fits_says_so() -> None:
    with pytest.raises(CannotRun, match="2 images of this size do not fit"):
        Run(Small(room=1)).fit(start_counts=False)


@pytest.mark.parametrize("count", range(2, 40))
@pytest.mark.parametrize("micro", [2, 3, 4, 8])
def test_parts_are_even_and_never_one_image(count: int, micro: int) -> None:
    sizes = [len(part) for part in parts(torch.zeros(count, 1), micro)]
    assert sum(sizes) == count
    assert min(sizes) >= 2
    assert max(sizes) <= max(micro, 3)


def test_no_number_ends_the_run_with_what_to_try_and_nothing_broken_is_saved() -> None:
    run = Run(due=True)
    with pytest.raises(CannotRun, match=r"no number|became (nan|inf).*smaller learning_rate") as refused:
        run.fit(replace(RECIPE, learning_rate=1e30, ema_epochs=0.0, mixup=0.0))
    assert "warmup_epochs" in str(refused.value)
    assert run.saved
    for state in run.saved:
        assert all(bool(tensor.isfinite().all()) for tensor in state["module"].values())


def test_what_is_frozen_does_not_move_to_the_bit() -> None:
    run = Run()
    run.module.stem.requires_grad_(False)
    run.module.norm.requires_grad_(False)
    frozen = {name: tensor.clone() for name, tensor in run.module.state_dict().items() if "head" not in name}
    run.fit(replace(RECIPE, ema_epochs=0.0), start_counts=False)
    after = run.module.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in frozen.items())
    train_mode(run.module)
    assert [name for name, part in run.module.named_modules() if name and not part.training] == [
        "stem",
        "norm",
    ]


def test_rare_classes_count_as_much() -> None:
    """Nine in ten images are of one class and nothing tells them apart: the classifier should be undecided."""
    labels = np.array([0] * 18 + [1] * 1 + [2] * 1, dtype=np.int64)
    train = Labelled([image(number) for number in range(20)], labels)

    class Blank(InMemory):
        def epoch(self, epoch: int, start: int) -> Iterator[Batch]:
            yield Batch(torch.zeros(20, 3, 6, 6), torch.from_numpy(self.train.labels))

    shares = {}
    for balanced in (False, True):
        module = Small()
        trainee = Trainee(
            module=module,
            batches=Blank(train, batch_size=20),
            class_counts=[18, 1, 1],
            device=torch.device("cpu"),
            should_stop=lambda: False,
            due=lambda: False,
            save=lambda state: None,
            on_batch=lambda epoch, done: None,
            on_epoch=lambda epoch: None,
            tell=lambda text: None,
        )
        recipe = replace(
            RECIPE,
            epochs=60,
            learning_rate=0.05,
            balanced=balanced,
            mixup=0,
            ema_epochs=0,
            label_smoothing=0,
            weight_decay=0,
        )
        fit(trainee, recipe, Labelled([], labels[:0]), start_counts=False, resumed=None)
        module.eval()
        shares[balanced] = module(torch.zeros(1, 3, 6, 6)).softmax(1)[0, 0].item()
    assert shares[False] > 0.75
    assert shares[True] == pytest.approx(1 / 3, abs=0.1)


def test_the_rate_rises_then_falls_to_nothing() -> None:
    rates = [learning_rate(RECIPE, step, 10) for step in range(30)]
    assert max(rates) == rates[10] == RECIPE.learning_rate
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.01 * RECIPE.learning_rate
    assert learning_rate(replace(RECIPE, epochs=1, warmup_epochs=5.0), 5, 10) == RECIPE.learning_rate


def test_deeper_layers_learn_faster_and_norms_do_not_decay() -> None:
    module = Small()
    assert depths(module) == {
        "stem.weight": 0,
        "stem.bias": 0,
        "norm.weight": 2,
        "norm.bias": 2,
        "head.weight": 4,
        "head.bias": 4,
    }
    groups = optimiser(nn.Sequential(*(Small() for _ in range(4))), RECIPE).param_groups
    shares = [group["share"] for group in groups]
    assert shares == sorted(shares)
    assert shares[0] == pytest.approx(0.1)
    assert shares[-1] == 1.0
    for group in groups:
        dimensions = {parameter.ndim > 1 for parameter in group["params"]}
        assert dimensions == {group["weight_decay"] > 0}


@pytest.mark.parametrize(
    ("model", "rate"),
    [("resnet18", 2e-4), ("vgg16", 1e-5), ("vgg16_bn", 2e-4), ("vit_b_16", 3e-5), ("squeezenet1_1", 5e-5)],
)
def test_each_architecture_has_a_rate_that_suits_it(model: str, rate: float) -> None:
    assert fine_tuning_rate(model) == rate
