"""A few images of each class and split of a dataset version, as a version of its own in another store: for rehearsals."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from orchestrator.datasets.packs.pack import write_members
from orchestrator.datasets.packs.repack import members_of
from orchestrator.datasets.packs.scratch import scratch
from orchestrator.datasets.publishing import versions
from orchestrator.stores.base import Store
from remote.contract.dataset_manifest import DatasetManifest, Image, Split

Cell = tuple[Split, str]  # split, class


def put_few(
    source: Store, manifest: DatasetManifest, target: Store, *, each: Mapping[Split, int]
) -> tuple[str, int, int]:
    """The version in `target`, how many images it has, and how many packs were fetched from `source` for them.

    each            at most so many images of each class
    NotFoundError   a pack is missing
    DataError       a pack is damaged: each is verified
    """
    images = few(manifest.images, each)
    packs = {image.pack for image in images}
    chosen = dataclasses.replace(manifest, images=images, pack_bytes={}, pack_crc32c={})
    with scratch() as fetched, scratch() as folder:
        written = write_members(sorted(members_of(source, chosen, packs, fetched)), folder)
        versions.put_pack(target, written.path, written.sha256)
    moved = [
        dataclasses.replace(image, pack=written.sha256, offset=written.offsets[image.sha256])
        for image in images
    ]
    version, _ = versions.put_manifest(target, dataclasses.replace(chosen, images=moved))
    head = versions.read_head(target, manifest.dataset)
    versions.move_head(target, manifest.dataset, version, head=head)
    return version, len(moved), len(packs)


def few(images: Iterable[Image], each: Mapping[Split, int]) -> list[Image]:
    """So many of each class, split by split, or all there are, out of as few packs as a greedy choice finds; in path order.

    Of different groups where a pack has them. Where they are of one group, they lose it: with so few images, it would
    leave nothing to hold out.
    """
    by_pack: dict[str, dict[Cell, list[Image]]] = defaultdict(lambda: defaultdict(list))
    wanted: Counter[Cell] = Counter()
    seen: set[tuple[Cell, str]] = set()
    for image in images:
        cell = (image.split, image.class_name)
        if image.excluded is None and (cell, image.sha256) not in seen:
            seen.add((cell, image.sha256))
            by_pack[image.pack][cell].append(image)
            wanted[cell] = min(each[image.split], wanted[cell] + 1)
    chosen: dict[Cell, list[Image]] = defaultdict(list)
    while any(wanted.values()):
        pack = max(sorted(by_pack), key=lambda name: _gain(by_pack[name], wanted))
        for cell, there in by_pack.pop(pack).items():
            picked = _apart(there, chosen[cell])[: wanted[cell]]
            chosen[cell] += picked
            wanted[cell] -= len(picked)
    found = [image for picked in chosen.values() for image in _told_apart(picked)]
    return sorted(found, key=lambda image: image.path)


def _gain(cells: dict[Cell, list[Image]], wanted: Counter[Cell]) -> int:
    return sum(min(wanted[cell], len(there)) for cell, there in cells.items())


def _apart(there: Sequence[Image], chosen: Sequence[Image]) -> list[Image]:
    """The same, first one of each group that is not among the chosen."""
    groups = {image.group for image in chosen}
    first: list[Image] = []
    rest: list[Image] = []
    for image in there:
        (first if image.group is None or image.group not in groups else rest).append(image)
        groups.add(image.group)
    return first + rest


def _told_apart(picked: Sequence[Image]) -> list[Image]:
    if len({image.group for image in picked}) > 1:
        return list(picked)
    return [dataclasses.replace(image, group=None) for image in picked]
