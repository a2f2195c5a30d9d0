"""What the check says of a dataset as a whole: errors that stop it, warnings, equal images, the intensity window."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from orchestrator.datasets.checks.checked import Checked, Images
from orchestrator.datasets.checks.near import NOTHING, Near
from orchestrator.datasets.checks.signature import DEEP
from orchestrator.datasets.columns.hashes import Hashes, Lookup, digests, is_among, ordered
from orchestrator.datasets.columns.images import IMAGES
from orchestrator.datasets.columns.rows import Rows, column
from orchestrator.datasets.columns.words import Words
from orchestrator.datasets.tally import counts
from orchestrator.errors import DataError
from remote.contract.dataset_manifest import Flips, Image, Split
from remote.contract.wording import count, listed

FEW = 10  # train images of a class, below which a figure says little
UNEVEN = 10  # times as many images in the largest class as in the smallest
WINDOW_SHARES = (0.001, 0.999)
NEAR_COPY = "near copy of"
_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
_SHOWN = 5


def without_leaks(images: Rows[Image], near: Near = NOTHING) -> Rows[Image]:
    """The same images; a copy in `train` of an image that measures, equal or near, is left out of training.

    images          in path order
    """
    codes, splits = images.codes("split")
    training = np.isin(codes, [code for code, split in enumerate(splits) if split == "train"])
    measuring = np.flatnonzero(~training)
    said = list(images.columns["excluded"])
    if not len(measuring) and not any(said):
        return images
    hashes = images.hashes("sha256")
    stands = near.same.of(hashes)
    path = images.columns["path"]
    measured = path.take(measuring)
    equal, alike = Lookup(hashes[measuring]), Lookup(stands[measuring])
    copies = _paired(near, alike)
    paths = {measured[at] for at in equal.firsts.tolist()} if any(said) else set()
    equal_to, alike_to = equal.find(hashes), alike.find(stands)
    paired = is_among(stands, digests(copies)) if copies else np.zeros(len(images), dtype=bool)
    told = np.array([text is not None for text in said], dtype=bool)
    for at in np.flatnonzero((equal_to >= 0) | (alike_to >= 0) | paired | told).tolist():
        if not training[at]:
            said[at] = None
        elif equal_to[at] >= 0:
            said[at] = f"equal to {measured[int(equal_to[at])]}"
        elif alike_to[at] >= 0:
            said[at] = f"{NEAR_COPY} {measured[int(alike_to[at])]}"
        elif paired[at]:
            said[at] = f"{NEAR_COPY} {measured[copies[Hashes.of(stands[at : at + 1])[0]]]}"
        elif said[at].removeprefix(f"{NEAR_COPY} ") not in paths:  # else found where the files were
            said[at] = None
    return images.but(excluded=Words.of_values(said))


def _paired(near: Near, alike: Lookup) -> dict[str, int]:
    """By content: a near copy of it that measures, of the pairs whose pixels were compared."""
    copies: dict[str, int] = {}
    for pair in near.confirmed():
        for one, other in ((pair.one, pair.other), (pair.other, pair.one)):
            at = int(alike.find(digests([other]))[0])
            if at >= 0:
                copies.setdefault(one, at)
    return copies


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
        said.append(
            "No image in val: there are too few, or they are too much alike, to set some of them aside"
        )
    return said + _equal(images) + _kinds(images)


def _equal(images: Sequence[Image]) -> list[str]:
    hashes = IMAGES.rows(images).hashes("sha256")
    order = ordered(hashes)
    twice = np.append(hashes[order][1:] == hashes[order][:-1], False)
    copies: dict[str, list[Image]] = defaultdict(list)
    for at in sorted({*order[twice].tolist(), *order[np.flatnonzero(twice) + 1].tolist()}):
        copies[images[at].sha256].append(images[at])
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
    modes = set(column(images, "mode"))
    deep = modes & DEEP
    said = []
    if deep & {"F"} and deep - {"F"}:
        said.append("Float and 16-bit images share one intensity window: their values are hardly comparable")
    if deep and modes - DEEP:
        said.append("Some images have 8 bits, others more: only the latter go through the intensity window")
    return said + _pages(images)


def _pages(images: Sequence[Image]) -> list[str]:
    if set(column(images, "pages")) == {1}:
        return []
    each = zip(column(images, "path"), column(images, "pages"), strict=True)
    several = [path.lower() for path, pages in each if pages > 1]
    previews = sum(path.endswith(_JPEG) for path in several)
    said = []
    if previews:
        said.append(f"Previews beside the picture (MPO) in {count(previews, 'photo')}: the picture is used")
    if chosen := len(several) - previews:
        said.append(f"Of several pages one is used, as --page says: {count(chosen, 'image')}")
    return said


def window(images: Sequence[Checked], splits: Sequence[Split]) -> list[float] | None:
    """What becomes black and white in 16-bit and float images: one window for the whole dataset.

    The 0.1 and 99.9 percentiles of 1,024 pixels of each such image of `train` (of all, where train has none).
    None when there is no such image.
    """
    columns = Images.of(images)
    if not DEEP & set(columns.verdicts.columns["mode"]):
        return None
    deep = list(zip(columns.verdicts.columns["sample"], splits, strict=True))
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


def _few(items: Iterable[str]) -> str:
    return listed(list(items), _SHOWN)
