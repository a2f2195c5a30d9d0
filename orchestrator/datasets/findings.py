"""What the check says of a dataset as a whole: errors that stop it, warnings, equal images, the intensity window."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from orchestrator.errors import DataError
from remote.contract.dataset_manifest import Flips, Image, Split
from remote.contract.wording import count

from .check import Checked
from .near import NOTHING, Near
from .signature import DEEP
from .tally import counts

FEW = 10  # train images of a class, below which a figure says little
UNEVEN = 10  # times as many images in the largest class as in the smallest
WINDOW_SHARES = (0.001, 0.999)
NEAR_COPY = "near copy of"
_SHOWN = 5


def without_leaks(images: Sequence[Image], near: Near = NOTHING) -> list[Image]:
    """The same images; a copy in `train` of an image that measures, equal or near, is left out of training."""
    equal: dict[str, str] = {}
    alike: dict[str, str] = {}  # by the content that stands for those that look the same
    measuring = [image for image in images if image.split != "train"]
    for image in sorted(measuring, key=lambda image: image.path):
        equal.setdefault(image.sha256, image.path)
        alike.setdefault(near.stands_for(image.sha256), image.path)
    copies = dict(alike)
    for pair in near.confirmed():
        for one, other in ((pair.one, pair.other), (pair.other, pair.one)):
            if other in alike:
                copies.setdefault(one, alike[other])
    paths = set(equal.values())
    found = [_leak(image, equal, copies, paths, near) for image in images]
    return [
        image if image.excluded == excluded else dataclasses.replace(image, excluded=excluded)
        for image, excluded in zip(images, found, strict=True)
    ]


def _leak(
    image: Image, equal: Mapping[str, str], copies: Mapping[str, str], paths: set[str], near: Near
) -> str | None:
    if image.split != "train":
        return None
    if image.sha256 in equal:
        return f"equal to {equal[image.sha256]}"
    if (path := copies.get(near.stands_for(image.sha256))) is not None:
        return f"{NEAR_COPY} {path}"
    kept = image.excluded is not None and image.excluded.removeprefix(f"{NEAR_COPY} ") in paths
    return image.excluded if kept else None  # found where the files were


def require_usable(name: str, images: Sequence[Image], *, found: set[str]) -> None:
    """DataError when nothing honest can be learnt from these images.

    found           classes that have files, usable or not
    """
    by_split = counts(images)
    train = by_split.get("train", {})
    if not images:
        raise DataError(
            f"The dataset {name} holds no usable image", next="See the files that were set aside."
        )
    if not train:
        raise DataError(
            f"The dataset {name} has no images to train on",
            detail="Only " + " and ".join(by_split),
            next="Put images into train/<class>/.",
        )
    if missing := sorted(found - set(train)):
        elsewhere = {split: sorted(set(missing) & set(by_split[split])) for split in by_split}
        where = "; ".join(f"{split}: {_few(classes)}" for split, classes in elsewhere.items() if classes)
        raise DataError(
            f"The dataset {name} has no usable image in train of: {_few(missing)}",
            detail=f"There are some in {where}" if where else "None of their files can be used",
            next="Add images to train, or remove these classes everywhere.",
        )
    if len(train) < 2:
        raise DataError(
            f"The dataset {name} has one class only: {next(iter(train))}",
            next="A classifier needs two: put the images of each class into a folder of its own.",
        )


def warnings(images: Sequence[Image]) -> list[str]:
    """What the user should know, although the dataset can be used."""
    by_split = counts(images)
    train = by_split["train"]
    said = []
    if few := [f"{label} ({n})" for label, n in train.items() if n < FEW]:
        said.append(f"Fewer than {FEW} images in train: {_few(few)}")
    if max(train.values()) > UNEVEN * min(train.values()):
        most, least = max(train, key=train.__getitem__), min(train, key=train.__getitem__)
        said.append(f"Uneven classes in train: {most} has {train[most]}, {least} has {train[least]}")
    for split, classes in by_split.items():
        if absent := sorted(set(train) - set(classes)):
            said.append(f"No image in {split} of: {_few(absent)}")
    if "val" not in by_split:
        said.append("No image in val")
    return said + _equal(images) + _kinds(images)


def left_out(images: Sequence[Image]) -> list[str]:
    """One line about the images of train that are left out of training, for where they are not listed anyway."""
    named = [f"{image.path} {image.excluded}" for image in images if image.excluded]
    return [f"Left out of training, {len(named)}: {_few(named)}"] if named else []


def _equal(images: Sequence[Image]) -> list[str]:
    times = Counter([image.sha256 for image in images])
    copies: dict[str, list[Image]] = defaultdict(list)
    for image in images:
        if times[image.sha256] > 1:
            copies[image.sha256].append(image)
    repeated = list(copies.values())
    said = []
    if within := [same for same in repeated if any(_twice(same))]:
        said.append(f"The same image more than once in a split, {len(within)}: {_few(map(_paths, within))}")
    if mixed := [same for same in repeated if len({image.class_name for image in same}) > 1]:
        said.append(f"The same image in two classes, {len(mixed)}: {_few(map(_paths, mixed))}")
    if measured := [same for same in repeated if {"val", "test"} <= {image.split for image in same}]:
        said.append(f"The same image in val and test, {len(measured)}: {_few(map(_paths, measured))}")
    return said


def _twice(same: Sequence[Image]) -> list[bool]:
    return [n > 1 for n in Counter(image.split for image in same if not image.excluded).values()]


def _paths(same: Sequence[Image]) -> str:
    return " = ".join(image.path for image in same[:3])


def _kinds(images: Sequence[Image]) -> list[str]:
    deep = {image.mode for image in images} & DEEP
    said = []
    if deep & {"F"} and deep - {"F"}:
        said.append("Float and 16-bit images share one intensity window: their values are hardly comparable")
    if deep and any(image.mode not in DEEP for image in images):
        said.append("Some images have 8 bits, others more: only the latter go through the intensity window")
    if several := sum(image.pages > 1 for image in images):
        said.append(f"Previews beside the picture (MPO) in {count(several, 'photo')}: the picture is used")
    return said


def window(images: Sequence[Checked], splits: Sequence[Split]) -> list[float] | None:
    """What becomes black and white in 16-bit and float images: one window for the whole dataset.

    The 0.1 and 99.9 percentiles of 1,024 pixels of each such image of `train` (of all, where train has none).
    None when there is no such image.
    """
    deep = [(image.verdict.sample, split) for image, split in zip(images, splits, strict=True)]
    samples = [sample for sample, split in deep if split == "train" and sample] or [s for s, _ in deep if s]
    if not samples:
        return None
    values = np.sort(np.frombuffer(b"".join(samples), dtype=np.float32))
    below, above = (share * (values.size - 1) for share in WINDOW_SHARES)
    low, high = float(values[math.floor(below)]), float(values[math.ceil(above)])  # values that occur
    return [low, high if high > low else low + 1.0]


def flips(classes: Sequence[str]) -> Flips:
    """Which flips leave the meaning alone, guessed from the names of the classes: digits and letters bear none."""
    return "none" if all(_is_character(label) for label in classes) else "horizontal"


def _is_character(label: str) -> bool:
    written = {"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"}
    return len(label) == 1 or label.isdecimal() or label.lower() in written


def _few(items: Sequence[str] | map[str]) -> str:
    listed = list(items)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more
