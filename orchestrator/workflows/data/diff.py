"""`tlvm datasets diff A B`: what changed from one version to another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.errors import ConfigError, NotFoundError
from orchestrator.workflows.data.datasets import resolve, split_name
from orchestrator.workflows.workspace import Workspace
from remote.contract.dataset_manifest import DatasetManifest


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
    again = [*both, *((before[source], after[to]) for source, to in moved)]
    contents = {image.sha256 for image in a.images}
    return DatasetDiff(
        first=f"{name_a}@{version_a}",
        second=f"{name_b}@{version_b}",
        added=[path for path in after if path not in before and path not in arrived],
        removed=[path for path in before if path not in after and path not in left],
        changed=[new.path for old, new in both if old.sha256 != new.sha256],
        moved=moved,
        relabelled=[new.path for old, new in again if old.class_name != new.class_name],
        resplit=[new.path for old, new in again if old.split != new.split],
        new_bytes=sum({i.sha256: i.size for i in b.images if i.sha256 not in contents}.values()),
        settings=_settings(a, b),
    )


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
