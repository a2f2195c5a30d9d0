"""Train images are cropped, turned and coloured as torchvision would, by (seed, epoch, image) and nothing else."""

from __future__ import annotations

import dataclasses
import importlib

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from torch import Tensor

from remote.contract.dataset_manifest import Flips, Image
from remote.images import augmentation
from remote.images.augmentation import FACTS, NUMBERS, Augmentation, Shares
from remote.images.preprocessing import Pixels, framed, normalised, of_weights
from remote.torchvision_guard import torchvision
from tests.remote.test_training import image

v2 = importlib.import_module(f"{torchvision.__name__}.transforms.v2.functional")
SPEC = dataclasses.replace(of_weights("resnet18"), resize=64, crop=56)


def picture(width: int, height: int, seed: int = 0) -> Pillow.Image:
    """Smooth colours without any symmetry."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Pillow.fromarray(small).resize((width, height), Pillow.Resampling.BICUBIC)


def sized(number: int, width: int, height: int) -> Image:
    return dataclasses.replace(image(number), width=width, height=height)


def shares(**chosen: float) -> Shares:
    """In the middle of everything, unless chosen by the number of its column (`n4=0.9`)."""
    result = np.full(NUMBERS, 0.5)
    result[4:7] = 0.9  # no flips
    result[15] = 0.99  # nothing erased
    for name, value in chosen.items():
        result[int(name[1:])] = value
    return result


def seen(augment: Augmentation, source: Pixels, share: Shares) -> Tensor:
    """The image on a scale from 0 to 255."""
    canvas = np.zeros((1, augment.canvas, augment.canvas, 3), dtype=np.uint8)
    facts = np.empty((1, FACTS), dtype=np.float32)
    augment.cut(source, share, canvas[0], facts[0])
    given = augment.seen(torch.from_numpy(canvas), torch.from_numpy(facts))[0]
    std, mean = (torch.tensor(numbers).view(3, 1, 1) for numbers in (SPEC.std, SPEC.mean))
    return (given * std + mean) * 255


def chw(source: Pixels) -> Tensor:
    return torch.from_numpy(source.copy()).permute(2, 0, 1).float()


@pytest.mark.parametrize(("width", "height"), [(90, 70), (70, 90), (64, 64), (65, 300), (20, 30)])
@pytest.mark.parametrize("strength", ["light", "strong"])
def test_a_crop_is_what_pillow_makes_of_the_same_box(strength: str, width: int, height: int) -> None:
    augment = Augmentation.of([sized(1, width, height)], SPEC, strength, "none")
    source = augment.source(picture(width, height))
    grey = shares(n7=0.5, n8=0.5, n9=0.5)
    for area, across in ((0.0, 0.0), (0.3, 1.0 - 1e-9), (1.0 - 1e-9, 0.4)):
        share = np.where(np.arange(NUMBERS) == 0, area, np.where(np.arange(NUMBERS) == 2, across, grey))
        wide, high = augment._size(source.shape[1], source.shape[0], share[0], share[1])
        left, top = share[2] * (source.shape[1] - wide), share[3] * (source.shape[0] - high)
        found = seen(augment, source, share)
        box = Pillow.fromarray(source).transform(
            (56, 56),
            Pillow.Transform.EXTENT,
            (left, top, left + wide, top + high),
            Pillow.Resampling.BILINEAR,
        )
        inner = (slice(None), slice(3, -3), slice(3, -3))  # Pillow's transform leaves the edge black
        assert (found[inner] - chw(np.asarray(box))[inner]).abs().max() <= 1.5


def test_the_whole_box_is_what_torchvision_resizes_to() -> None:
    augment = Augmentation(framed(SPEC, "whole"), "light", "none", 70)
    source = augment.source(picture(61, 67))
    found = seen(augment, source, shares(n0=1.0 - 1e-12))
    expected = v2.resized_crop(chw(source), 0, 0, 67, 61, [56, 56], antialias=False)
    assert (found - expected).abs().max() < 0.01


@pytest.mark.parametrize("flips", ["none", "horizontal", "all"])
def test_images_are_flipped_as_the_dataset_allows(flips: Flips) -> None:
    augment = Augmentation(SPEC, "none", flips, 64)
    source = augment.source(picture(90, 70))
    plain = chw(source)
    across = seen(augment, source, shares(n4=0.1))
    down = seen(augment, source, shares(n5=0.1))
    turned = seen(augment, source, shares(n6=0.1))
    assert torch.allclose(across, plain if flips == "none" else v2.horizontal_flip(plain), atol=0.01)
    assert torch.allclose(down, v2.vertical_flip(plain) if flips == "all" else plain, atol=0.01)
    assert torch.allclose(turned, plain.transpose(1, 2) if flips == "all" else plain, atol=0.01)


def test_colours_are_changed_as_torchvision_does() -> None:
    augment = Augmentation(SPEC, "strong", "none", 64)
    source = augment.source(picture(64, 64))
    share = shares(n7=0.9, n8=0.2, n9=0.75)
    unchanged = seen(augment, source, shares()) / 255
    expected = v2.adjust_brightness(unchanged, 1 + 0.4 * 0.8)
    expected = v2.adjust_contrast(expected, 1 - 0.4 * 0.6)
    expected = v2.adjust_saturation(expected, 1 + 0.4 * 0.5)
    assert (seen(augment, source, share) / 255 - expected).abs().max() < 1e-4


def test_a_part_is_erased_to_the_mean_colour() -> None:
    augment = Augmentation(SPEC, "strong", "none", 64)
    source = augment.source(picture(64, 64))
    blank, whole = seen(augment, source, shares(n15=0.05)), seen(augment, source, shares())
    changed = (blank - whole).abs().amax(0) > 0.01
    share = changed.float().mean()
    mean = torch.tensor(SPEC.mean) * 255
    assert 0.08 < share < 0.14
    assert torch.allclose(blank[:, changed], mean[:, None].expand(-1, int(changed.sum())), atol=0.01)


def test_without_augmentation_a_train_image_is_seen_as_any_other() -> None:
    augment = Augmentation.of([sized(1, 90, 70)], SPEC, "none", "none")
    source = augment.source(picture(90, 70))
    assert torch.allclose(seen(augment, source, shares(n0=0.3)), chw(source), atol=0.01)
    assert normalised(SPEC, chw(source)[None]).shape == (1, 3, 56, 56)


@pytest.mark.parametrize("framing", ["crop", "whole"])
@pytest.mark.parametrize("strength", ["none", "light", "strong"])
@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (3, 2), (28, 28), (500, 40), (300, 300)])
def test_images_of_every_size_fit_onto_the_canvas(framing: str, strength: str, size: tuple[int, int]) -> None:
    augment = Augmentation.of([sized(1, *size)], framed(SPEC, framing), strength, "all")
    source = augment.source(Pillow.new("RGB", size, (10, 200, 90)))
    assert max(source.shape[:2]) <= 4 * augment.side or strength == "none"
    chance = augmentation.shares([image(number) for number in range(40)], seed=0, epoch=0)
    for drawn in [*chance, np.zeros(NUMBERS), np.full(NUMBERS, 1 - 2.0**-53)]:
        found = seen(
            augment, source, np.where(np.arange(NUMBERS) >= 7, shares(), drawn)
        )  # colours as they are
        assert torch.allclose(found, torch.tensor([10.0, 200.0, 90.0]).view(3, 1, 1), atol=0.01)


def test_small_images_need_little_room() -> None:
    spec = of_weights("resnet18")
    small = Augmentation.of([sized(1, 28, 28)], spec, "light", "none")
    large = Augmentation.of([sized(1, 4000, 3000), sized(2, 28, 28)], spec, "light", "none")
    assert (small.side, small.canvas) == (28, 33)
    assert (large.side, large.canvas) == (259, 275)
    assert large.source(picture(400, 300)).shape == (259, 345, 3)


def test_chance_is_even_and_belongs_to_seed_epoch_and_image() -> None:
    images = [image(number) for number in range(1000)]
    one = augmentation.shares(images, seed=3, epoch=5)
    assert np.array_equal(augmentation.shares(images[400:], seed=3, epoch=5), one[400:])
    for other in (
        augmentation.shares(images, seed=4, epoch=5),
        augmentation.shares(images, seed=3, epoch=6),
        one[::-1],
        one[:, ::-1],
    ):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.03
    assert one.min() >= 0 and one.max() < 1
    assert np.abs(one.mean(0) - 0.5).max() < 0.04
    assert np.abs(np.histogram(one, bins=20, range=(0, 1))[0] / one.size - 0.05).max() < 0.005
    assert len(np.unique(one)) == one.size


def test_pages_of_one_file_have_chances_of_their_own() -> None:
    pages = [dataclasses.replace(image(1), pages=2, page=page) for page in (0, 1)]
    first, second = augmentation.shares(pages, seed=0, epoch=0)
    assert not np.isclose(first, second).any()


def test_the_order_is_another_one_in_every_epoch() -> None:
    orders = [tuple(augmentation.order(50, seed=0, epoch=epoch)) for epoch in range(5)]
    assert len(set(orders)) == 5
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert tuple(augmentation.order(50, seed=0, epoch=3)) == orders[3]
