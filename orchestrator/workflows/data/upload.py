"""`tlvm upload DIR`: from a folder of labelled images to a dataset version in the store.

A folder that looks as it did, of which HEAD says that nobody else published: nothing is read, listed or written. Else
files are read, checked, packed and sent in one pass; manifest and HEAD follow when the check has passed, in this order:
a version that can be seen is whole. Interrupted anywhere and run again, it goes on, since the same packs come out.
Two uploads at once meet at HEAD: the second plans anew against the first's version.

An upload that has something to write looks whether each pack that it names is there, with the size and checksum that
the manifest tells, and repairs what it can. One that has nothing to write does not; `verify` and `replace` always look.
"""

from __future__ import annotations

import dataclasses
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from orchestrator.datasets.checks.cache import Cache
from orchestrator.datasets.checks.check import Outcome, check, prepare
from orchestrator.datasets.checks.convert import AS_IT_IS, Conversion
from orchestrator.datasets.checks.leaks import leaks, require_none
from orchestrator.datasets.checks.offer import Offer
from orchestrator.datasets.folder.labels import survey_by_table
from orchestrator.datasets.folder.meanwhile import came_and_went, is_touched
from orchestrator.datasets.folder.names import SetAside
from orchestrator.datasets.folder.remembered import Last, Remembered, fingerprint
from orchestrator.datasets.folder.scan import LABELLED, Scan, Survey, survey
from orchestrator.datasets.packs.pack import PACK_BYTES
from orchestrator.datasets.packs.scratch import spool
from orchestrator.datasets.publishing.basis import Seen
from orchestrator.datasets.publishing.plan import Plan, Wishes
from orchestrator.datasets.publishing.publication import Publication, first_plan
from orchestrator.datasets.splits.grouping import grouped
from orchestrator.errors import ConfigError, PartialError, TlvmError
from orchestrator.records import SeenRecord
from orchestrator.workflows.data.upload_as_before import conversion_now
from orchestrator.workflows.data.upload_result import UploadResult, again, and_missed, report, result_of
from orchestrator.workflows.workspace import Workspace
from remote.contract.dataset_manifest import Flips
from remote.contract.wording import count, listed, listed_in_lines

__all__ = ["UploadResult", "require_all", "upload"]

_LISTED_MAX = 10
_NAMED_MAX = 5


@contextmanager
def _uncollected() -> Iterator[None]:
    """What is made for each image holds no cycles: the collector would only walk over all of it, time and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@_uncollected()
def upload(
    workspace: Workspace,
    folder: Path,
    *,
    name: str | None = None,
    check_only: bool = False,
    replace: bool = False,
    verify: bool = False,
    allow_shrink: bool = False,
    flips: Flips | None = None,
    strict: bool = False,
    group_by: str | None = None,
    labels: Path | None = None,
    conversion: Conversion = AS_IT_IS,
    ask: Callable[[Offer], bool] | None = None,
    processes: int | None = None,
    pack_bytes: int = PACK_BYTES,
    stored: Callable[[str], None] | None = None,
) -> list[UploadResult]:
    """Upload every dataset that `folder` holds; all are checked before the last pack of each, and a version, is sent.

    name            of the dataset, where there is one; default: the folder's
    check_only      stop after the check; the store is not asked
    replace         the folder is right, whatever others published meanwhile; what is damaged is repaired
    verify          look at every pack in the store, and repair what is damaged, also where nothing has changed
    allow_shrink    many images may be gone
    strict          images on two sides of the split are an error
    group_by        a pattern over paths, or a table: what stays on one side
    labels          a table (path, label, optional split and group), instead of folders
    conversion      what becomes of images before they travel; None is as the last time, 0 and False as they are
    ask             whether photos that are much larger than models see are to be sent smaller; None: only say so
    pack_bytes      at most so many in a pack
    stored          told the hash of each pack that is sent, once the store has it; several threads call it
    DataError       a dataset can't be used; ConflictError: others published what this folder contradicts
    ConfigError     to look into the store, and not to ask it

    Files that vanished, changed or appeared meanwhile, and those that can't be read, stand in `missed`: what the
    version before has of them is kept. `require_all` makes them an error.
    """
    if check_only and verify:
        raise ConfigError(
            "--check-only asks no store, --verify looks into it", next="Give one of them, then the other."
        )
    began = time.monotonic()

    def look() -> Survey:
        return survey_by_table(folder, labels, name=name) if labels else survey(folder, name=name)

    found = look()
    _warn_of_ignored(workspace, found.ignored)
    scans = [grouped(scan, group_by) if group_by else scan for scan in found.datasets]
    conversion = conversion_now(workspace, scans, conversion, ask, sending=not check_only)
    wishes = Wishes(flips, replace, allow_shrink, group_by, conversion)
    with closing(Cache(workspace.records.cache, how=conversion.how)) as cache:
        if check_only:
            return [_look(workspace, scan, wishes, cache, processes, began, strict=strict) for scan in scans]
        with spool(workspace.records.cache) as place:
            uploads = [
                _Upload(workspace, scan, wishes, place / str(number), began, pack_bytes, verify, stored)
                for number, scan in enumerate(scans)
            ]
            try:
                for one in uploads:
                    one.take_in(cache, processes)
                for one in uploads:
                    one.settle(strict=strict)
                return _with_meanwhile([one.publish() for one in uploads], scans, look)
            finally:
                for one in uploads:
                    one.stop()


def require_all(results: Sequence[UploadResult]) -> None:
    """PartialError naming the files that vanished, changed or appeared during the upload, or can't be read, if any."""
    missed = [(result.name, item) for result in results for item in result.missed]
    if missed:
        raise PartialError(
            f"{count(len(missed), 'file')} vanished, changed or appeared meanwhile, or can't be read; the rest is uploaded",
            detail=listed_in_lines(
                missed, _LISTED_MAX, lambda one: f"{one[0]}: {one[1].path}: {one[1].reason}"
            ),
            next="Run it again when all of it can be read and nothing writes into the folder.",
        )


def _with_meanwhile(
    results: Sequence[UploadResult], scans: Sequence[Scan], look: Callable[[], Survey]
) -> list[UploadResult]:
    """With the files that came or went since the first look. Where nothing was sent there was no time for that."""
    touched = {
        scan.name: scan
        for scan, result in zip(scans, results, strict=True)
        if not result.unchanged and is_touched(scan)
    }
    if not touched:
        return list(results)
    try:
        now = {scan.name: scan for scan in look().datasets}
    except TlvmError as error:
        changed = {name: [SetAside(".", f"it changed meanwhile: {error.what}")] for name in touched}
    else:
        changed = {
            name: came_and_went(scan, now.get(name, dataclasses.replace(scan, files=LABELLED.rows())))
            for name, scan in touched.items()
        }
    return [and_missed(result, changed.get(result.name, [])) for result in results]


def _warn_of_ignored(workspace: Workspace, ignored: Sequence[SetAside]) -> None:
    if ignored:
        named = listed(ignored, _NAMED_MAX, lambda item: item.path)
        workspace.progress.warn(f"Not part of a dataset: {named}")


def _look(
    workspace: Workspace,
    scan: Scan,
    wishes: Wishes,
    cache: Cache,
    processes: int | None,
    began: float,
    *,
    strict: bool,
) -> UploadResult:
    outcome = check(scan, workspace.progress, processes=processes, cache=cache)
    result = result_of(scan, outcome, first_plan(scan, outcome, wishes), time.monotonic() - began)
    if strict:
        require_none(scan.name, result.leaks)
    return result


class _Upload:
    """One dataset: `take_in`, `settle`, `publish`, and `stop` in any case."""

    def __init__(
        self,
        workspace: Workspace,
        scan: Scan,
        wishes: Wishes,
        folder: Path,
        began: float,
        pack_bytes: int,
        verify: bool,
        stored: Callable[[str], None] | None,
    ) -> None:
        folder.mkdir()
        self._scan = scan
        self._began = began
        self._store, self._records = workspace.store, workspace.records
        before = self._records.seen(scan.root, self._store.url, scan.name)
        self._seen = Seen(before.version, before.differing) if before else None
        self._how = wishes.conversion.how
        self._how_before = before.how if before else ""
        self._remembered = Remembered(self._records.cache, scan.root, self._store.url, scan.name)
        self._fingerprint = "" if wishes.replace else fingerprint(scan, wishes)
        self._publication = Publication(
            self._store,
            scan,
            wishes,
            self._seen,
            self._remembered,
            workspace.progress,
            folder,
            pack_bytes=pack_bytes,
            verify=verify,
            stored=stored,
        )
        self._verify = verify
        self._same: UploadResult | None = None  # nothing has changed
        self._outcome: Outcome | None = None
        self._plan: Plan | None = None

    def take_in(self, cache: Cache, processes: int | None) -> None:
        prepare(self._scan, cache)
        head = self._publication.find_head()
        last = self._remembered.last()
        known = last is not None and last.head == head and last.fingerprint == self._fingerprint != ""
        if last is not None and known and not self._verify:
            self._same = again(last.result)
        if self._same is None:
            self._outcome = self._publication.take_in(cache, processes=processes)

    def settle(self, *, strict: bool) -> None:
        if self._same is not None:
            found = self._same.leaks
        else:
            assert self._outcome is not None
            self._plan = self._publication.settle()
            found = leaks(self._plan.manifest.images, self._outcome.near) if strict else []
        if strict:
            require_none(self._scan.name, found)

    def publish(self) -> UploadResult:
        if self._same is not None:
            return dataclasses.replace(self._same, seconds=time.monotonic() - self._began)
        assert self._outcome is not None
        assert self._plan is not None
        done = self._publication.publish(self._plan)
        if Seen(done.version, done.plan.kept) != self._seen or self._how != self._how_before:
            self._records.save_seen(
                SeenRecord(
                    str(self._scan.root),
                    self._store.url,
                    self._scan.name,
                    done.version,
                    done.plan.kept,
                    self._how,
                )
            )
        seconds = time.monotonic() - self._began
        result = result_of(self._scan, self._outcome, done.plan, seconds, store=self._store.url, done=done)
        look = "" if result.missed else self._fingerprint
        self._remembered.keep(Last(look, done.head.version, done.head.generation, report(result)))
        return result

    def stop(self) -> None:
        self._publication.stop()
