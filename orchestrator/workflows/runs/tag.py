"""`tlvm runs tag`: what is said of a run, added to and taken away."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.errors import CloudError, ConfigError, ConflictError
from orchestrator.stores.base import Store
from orchestrator.workflows.runs.notes import RunNotes, read_notes, write_notes
from orchestrator.workflows.runs.overview import find
from orchestrator.workflows.workspace import Workspace
from remote.contract import layout
from remote.contract.document import ContractError

NOTE_LENGTH_MAX = 1000
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_TAGS_MAX = 50
_TRIES = 5


@dataclass(frozen=True)
class TagResult:
    run_id: str
    tags: list[str]
    note: str


def tag(
    workspace: Workspace,
    run: str,
    *,
    add: Sequence[str] = (),
    remove: Sequence[str] = (),
    note: str | None = None,
) -> TagResult:
    """Add and take away tags of a run, and replace its note; without either, what it has.

    note            "" takes it away; None leaves it
    ConfigError     a tag or a note that can't be one
    NotFoundError   no such run
    """
    for one in [*add, *remove]:
        if not _TAG.fullmatch(one):
            raise ConfigError(
                f"{one[:80]!r} is not a tag", next="Letters, digits, '.', '_' and '-', at most 40 of them."
            )
    if note is not None and len(note) > NOTE_LENGTH_MAX:
        raise ConfigError(f"The note has {len(note):,} letters", next=f"At most {NOTE_LENGTH_MAX:,} fit.")
    run_id = find(workspace, run)
    for _ in range(_TRIES):
        before, generation = _notes(workspace.store, run_id)
        tags = sorted({*before.tags, *add} - set(remove))
        if len(tags) > _TAGS_MAX:
            raise ConfigError(f"{run_id} would have {len(tags)} tags", next=f"At most {_TAGS_MAX} fit.")
        said = before.note if note is None else note.strip()
        after = dataclasses.replace(before, tags=tags, note=said)
        try:
            if after != before:
                write_notes(workspace.store, run_id, after, generation)
        except ConflictError:  # somebody else wrote at the same time
            continue
        return TagResult(run_id, after.tags, after.note)
    raise ConflictError(f"The tags of {run_id} are being changed by somebody else", next="Try again.")


def _notes(store: Store, run_id: str) -> tuple[RunNotes, int]:
    try:
        return read_notes(store, run_id)
    except ContractError as error:
        key = layout.notes_key(run_id)
        raise CloudError(
            f"The tags of {run_id} can't be read", detail=str(error), next=f"Delete {key} in {store.url}."
        ) from None
