"""`tlvm datasets show, diff, rm, gc`: what a version holds, what changed, and what may go."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from orchestrator.datasets import tally
from orchestrator.datasets.checks import findings
from orchestrator.datasets.folder.names import SetAside
from orchestrator.datasets.packs.collect import GRACE_HOURS, Collected, collect
from orchestrator.errors import ConfigError, ConflictError, NotFoundError
from orchestrator.stores.base import Store
from orchestrator.workflows.data.dataset_runs import consequence, named_by, refuse_unfinished
from orchestrator.workflows.data.datasets import meant, resolve, versions_of
from orchestrator.workflows.runs.documents import stored_runs
from orchestrator.workflows.workspace import Workspace
from remote.contract import layout
from remote.contract.dataset_manifest import DatasetManifest


@dataclass(frozen=True)
class DatasetShown:
    """One version of a dataset."""

    name: str
    version: str
    newest: bool
    versions: list[str]  # all that the store holds
    images: int
    image_bytes: int
    packs: int
    classes: list[str]
    counts: Mapping[str, Mapping[str, int]]  # images by split and class, those left out of training aside
    split_source: str
    label_sources: Mapping[str, int]
    groups: int  # sets that stay on one side: patients, slides, videos, near copies
    flips: str
    intensity_window: list[float] | None
    modes: Mapping[str, int]
    turned: int  # images that EXIF turns
    longer_sides: Mapping[str, int]  # images by the pixels of their longer side: "up to 512"
    excluded: list[SetAside]
    warnings: list[str]


@dataclass(frozen=True)
class DatasetDiff:
    """What the second version has that the first has not, and the other way round. Paths are percent-encoded."""

    first: str  # name@version
    second: str
    added: list[str]
    removed: list[str]
    changed: list[str]  # another content under the same path
    moved: list[list[str]]  # from, to: the same content under another path
    relabelled: list[str]  # of another class
    resplit: list[str]  # on another side
    new_bytes: int  # of contents that only the second has
    settings: Mapping[str, list[str]]  # flips, split_source ...: before, after


@dataclass(frozen=True)
class DatasetRemoved:
    name: str
    versions: list[str]
    all_of_it: bool
    removed: bool = True  # False: the user said no
    named_by: list[str] = field(default_factory=list)  # runs that can't be repeated without it


def show(workspace: Workspace, name: str | None, version: str | None = None) -> DatasetShown:
    """NotFoundError when there is no such dataset or version."""
    chosen, wanted, manifest = resolve(workspace, name, version)
    versions, head = versions_of(workspace, chosen)
    images = manifest.images
    return DatasetShown(
        name=chosen,
        version=wanted,
        newest=wanted == head,
        versions=sorted(versions),
        images=len(images),
        image_bytes=sum(image.size for image in images),
        packs=len(manifest.packs()),
        classes=manifest.classes,
        counts=tally.counts(images),
        split_source=manifest.split_source,
        label_sources=dict(Counter(image.label_source for image in images).most_common()),
        groups=len({image.group for image in images} - {None}),
        flips=manifest.flips,
        intensity_window=manifest.intensity_window,
        modes=dict(Counter(image.mode for image in images).most_common()),
        turned=sum(image.orientation > 1 for image in images),
        longer_sides=tally.longer_sides(images),
        excluded=[SetAside(image.path, image.excluded) for image in images if image.excluded],
        warnings=findings.warnings(images),
    )


def diff(workspace: Workspace, first: str, second: str) -> DatasetDiff:
    """Each is NAME, NAME@VERSION, or a version of the dataset that the other one names (or that is configured)."""
    one, other = _named(workspace, first, second), _named(workspace, second, first)
    (name_a, version_a, a), (name_b, version_b, b) = one, other
    before = {image.path: image for image in a.images}
    after = {image.path: image for image in b.images}
    gone = {image.sha256: path for path, image in reversed(before.items()) if path not in after}
    moved = [
        [gone.pop(image.sha256), path]
        for path, image in after.items()
        if path not in before and image.sha256 in gone
    ]
    arrived, left = {to for _, to in moved}, {source for source, _ in moved}
    both = [(before[path], image) for path, image in after.items() if path in before]
    contents = {image.sha256 for image in a.images}
    return DatasetDiff(
        first=f"{name_a}@{version_a}",
        second=f"{name_b}@{version_b}",
        added=[path for path in after if path not in before and path not in arrived],
        removed=[path for path in before if path not in after and path not in left],
        changed=[new.path for old, new in both if old.sha256 != new.sha256],
        moved=moved,
        relabelled=[new.path for old, new in both if old.class_name != new.class_name],
        resplit=[new.path for old, new in both if old.split != new.split],
        new_bytes=sum({i.sha256: i.size for i in b.images if i.sha256 not in contents}.values()),
        settings=_settings(a, b),
    )


def remove(
    workspace: Workspace,
    name: str,
    version: str | None = None,
    *,
    force: bool = False,
    confirm: Callable[[str], bool] | None = None,
) -> DatasetRemoved:
    """Remove a version, or a dataset with all its versions; its images go with a later `gc`.

    HEAD goes first: what is left of a removal that is cut off is no dataset any more, and is removed by the next one.
    force           also while runs on it are not finished
    confirm         asked once, with the runs that name it
    ConflictError   the newest version of several, or a run on it is not finished
    """
    store = workspace.store
    if version is not None:
        chosen, wanted = meant(workspace, name, version)
        versions, head = versions_of(workspace, chosen)
        if wanted == head and len(versions) > 1:
            raise ConflictError(
                f"{wanted[:12]} is the newest version of {chosen}, and there are {len(versions) - 1} others",
                next=f"Upload what shall be the newest one first; or remove all: tlvm datasets rm {chosen}",
            )
        if wanted != head:
            gone = _agreed(workspace, DatasetRemoved(chosen, [wanted], all_of_it=False), force, confirm)
            if gone.removed:
                store.delete(layout.manifest_key(chosen, wanted))
            return gone
        name = chosen
    versions, _ = versions_of(workspace, name)
    if not versions and store.get(layout.head_key(name)) is None:
        raise NotFoundError(
            f"There is no dataset {name} in {store.url}", next="tlvm datasets lists what there is."
        )
    gone = _agreed(workspace, DatasetRemoved(name, sorted(versions), all_of_it=True), force, confirm)
    if gone.removed:
        store.delete(layout.head_key(name))
        for each in versions:
            store.delete(layout.manifest_key(name, each))
    return gone


def _agreed(
    workspace: Workspace, gone: DatasetRemoved, force: bool, confirm: Callable[[str], bool] | None
) -> DatasetRemoved:
    """What will be removed, with the runs that name it; or that nothing will."""
    what = f"The dataset {gone.name}" if gone.all_of_it else f"{gone.name}@{gone.versions[0][:12]}"
    named = named_by(workspace, gone.name, gone.versions)
    if not force:
        refuse_unfinished(what, named)
    question = ". ".join(part for part in (consequence(named), f"Remove {_in_words(gone)}?") if part)
    return dataclasses.replace(
        gone,
        removed=confirm is None or confirm(question),
        named_by=[*named.unfinished, *named.finished],
    )


def _in_words(gone: DatasetRemoved) -> str:
    if gone.all_of_it:
        return f"the dataset {gone.name}, all versions"
    return f"version {gone.versions[0][:12]} of the dataset {gone.name}"


def gc(workspace: Workspace, *, grace_hours: float = GRACE_HOURS, dry_run: bool = False) -> Collected:
    """Delete packs that no version names, `grace_hours` after they were first found so; pack anew what wastes room."""
    store = workspace.store
    return collect(
        store,
        now=time.time(),
        grace_hours=grace_hours,
        dry_run=dry_run,
        named_by_runs=lambda: _named_by_runs(store),
    )


def _named_by_runs(store: Store) -> set[tuple[str, str]] | None:
    """Dataset and version of every run; None when a run can't be read."""
    runs, problems = stored_runs(store)
    if problems:
        return None
    refs = [run.spec.dataset for run in runs]
    refs += [run.spec.evaluates.trained_on for run in runs if run.spec.evaluates]
    return {(ref.name, ref.version) for ref in refs}


def split_name(text: str) -> tuple[str, str | None]:
    """NAME@VERSION."""
    name, _, version = text.partition("@")
    return name, version or None


def _named(workspace: Workspace, text: str, beside: str) -> tuple[str, str, DatasetManifest]:
    name, version = split_name(text)
    if version is None:
        try:
            return resolve(workspace, name)
        except NotFoundError as error:
            for owner in (split_name(beside)[0], workspace.settings.dataset.name):
                try:
                    return resolve(workspace, owner, name)
                except (
                    NotFoundError,
                    ConfigError,
                ):  # it is no version either; or the other one is none of a dataset
                    continue
            raise error
    return resolve(workspace, name, version)


def _settings(a: DatasetManifest, b: DatasetManifest) -> dict[str, list[str]]:
    pairs = {
        "flips": (a.flips, b.flips),
        "split_source": (a.split_source, b.split_source),
        "intensity_window": (a.intensity_window, b.intensity_window),
        "classes": (", ".join(a.classes), ", ".join(b.classes)),
    }
    return {key: [str(old), str(new)] for key, (old, new) in pairs.items() if old != new}
