"""`tlvm datasets`: what the store holds, and which dataset a command means."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.config import nearest
from orchestrator.datasets import tally
from orchestrator.datasets.publishing.versions import load_manifest, read_head
from orchestrator.errors import ConfigError, DataError, NotFoundError
from orchestrator.stores.base import Store
from orchestrator.workflows.workspace import Workspace
from remote.contract import layout
from remote.contract.dataset_manifest import DatasetManifest
from remote.contract.document import ContractError

__all__ = ["DatasetSummary", "datasets", "load_manifest", "meant", "resolve", "split_name", "versions_of"]

_VERSION_DIGITS_MIN = 4


@dataclass(frozen=True)
class DatasetSummary:
    """The newest version of a dataset. One that can't be read has a problem, and no images."""

    name: str
    version: str
    versions: int  # that the store holds
    images: int
    image_bytes: int
    classes: list[str]
    counts: Mapping[str, Mapping[str, int]]  # images by split and class, those left out of training aside
    problem: str = ""  # why it can't be read


def datasets(workspace: Workspace) -> list[DatasetSummary]:
    """Every dataset that has a HEAD, by name; also those whose newest version can't be read, with the problem."""
    found = _versions(workspace.store)
    return [_summary(workspace.store, name, len(found[name])) for name in sorted(found)]


def resolve(
    workspace: Workspace, name: str | None, version: str | None = None
) -> tuple[str, str, DatasetManifest]:
    """The dataset and version that a command means, with its manifest.

    name            default: the configured one, else the only one there is
    version         the whole hash, or the first four digits or more; default: the newest
    NotFoundError   no such dataset or version; ConfigError: there are several
    """
    chosen, wanted = meant(workspace, name, version)
    return chosen, wanted, load_manifest(workspace.store, chosen, wanted)


def meant(workspace: Workspace, name: str | None, version: str | None = None) -> tuple[str, str]:
    """The same without the manifest, which is not read."""
    store = workspace.store
    chosen = _checked(name or workspace.settings.dataset.name) or _only(store)
    if version:
        known = _versions(store)
        if chosen not in known:
            raise _no_dataset(store, chosen, list(known))
        return chosen, _version(chosen, version, known[chosen])
    head = read_head(store, chosen).version
    if not head:
        raise _no_dataset(store, chosen, list(_versions(store)))
    return chosen, head


def versions_of(workspace: Workspace, name: str) -> tuple[list[str], str]:
    """Every complete version of a dataset, and the newest one ("": there is none, or HEAD can't be read)."""
    prefix = layout.manifests_prefix(_checked(name) or name)
    keys = filter(layout.is_manifest_key, (blob.key for blob in workspace.store.blobs(prefix)))
    found = [version for _, version in map(layout.manifest_of, keys)]
    return found, read_head(workspace.store, name, may_be_damaged=True).version


def split_name(text: str) -> tuple[str, str | None]:
    """NAME@VERSION."""
    name, _, version = text.partition("@")
    return name, version or None


def _checked(name: str | None) -> str | None:
    try:
        return layout.dataset_name(name) if name else None
    except ContractError as error:
        raise ConfigError(str(error), next="tlvm datasets lists the names.") from None


def _only(store: Store) -> str:
    names = sorted(_versions(store))
    if not names:
        raise NotFoundError(f"There is no dataset in {store.url}", next="tlvm upload DIR makes one.")
    if len(names) > 1:
        raise ConfigError(
            "There are several datasets", detail=", ".join(names), next="Name one with --dataset."
        )
    return names[0]


def _no_dataset(store: Store, name: str, known: list[str]) -> NotFoundError:
    return NotFoundError(
        f"There is no dataset {name} in {store.url}",
        next=nearest(name, sorted(known)) if known else "tlvm upload DIR makes one.",
    )


def _version(name: str, wanted: str, known: list[str]) -> str:
    digits = wanted.lower().removeprefix("v")
    found = [version for version in known if version.startswith(digits)]
    if len(found) == 1 and len(digits) >= _VERSION_DIGITS_MIN:
        return found[0]
    what = "several versions" if len(found) > 1 else "no version"
    raise NotFoundError(
        f"The dataset {name} has {what} {wanted[:70]}",
        detail=", ".join(sorted(version[:12] for version in known)[:20]),
        next=f"Give {_VERSION_DIGITS_MIN} digits or more of one of these.",
    )


def _versions(store: Store) -> dict[str, list[str]]:
    """The complete versions of every dataset that has a HEAD."""
    versions: dict[str, list[str]] = defaultdict(list)
    headed: set[str] = set()
    for blob in store.blobs(layout.DATASETS):
        name, _, rest = blob.key.removeprefix(layout.DATASETS).partition("/")
        if rest == "HEAD":
            headed.add(name)
        elif layout.is_manifest_key(blob.key):
            versions[name].append(layout.manifest_of(blob.key)[1])
    return {name: versions[name] for name in headed}


def _summary(store: Store, name: str, count: int) -> DatasetSummary:
    version = ""
    try:
        version = read_head(store, name).version
        manifest = load_manifest(store, name, version)
    except (DataError, NotFoundError) as error:
        problem = ": ".join(part for part in (error.what, error.detail) if part)
        return DatasetSummary(name, version, count, 0, 0, [], {}, problem)
    return DatasetSummary(
        name=name,
        version=version,
        versions=count,
        images=len(manifest.images),
        image_bytes=sum(image.size for image in manifest.images),
        classes=manifest.classes,
        counts=tally.counts(manifest.images),
    )
