"""`tlvm datasets rm NAME`: a version, or a dataset with all of them, goes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator.errors import ConflictError, NotFoundError
from orchestrator.workflows.data.dataset_runs import consequence, named_by, refuse_unfinished
from orchestrator.workflows.data.datasets import meant, versions_of
from orchestrator.workflows.workspace import Workspace
from remote.contract import layout


@dataclass(frozen=True)
class DatasetRemoved:
    name: str
    versions: list[str]
    all_of_it: bool
    removed: bool = True  # False: the user said no
    named_by: list[str] = field(default_factory=list)  # runs that can't be repeated without it


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
