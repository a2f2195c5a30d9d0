"""`tlvm pull RUN`: the result of a run, verified, in a folder of its own; again costs nothing, partial is resumed.

Everything that MANIFEST.json says is somebody else's word: no path leaves the folder, no size is believed, and no file
that was not pulled from here is ever replaced.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.errors import CloudError, ConflictError, NotFoundError, TlvmError
from orchestrator.workflows.results.fetch_files import Damaged, bring
from orchestrator.workflows.results.looks import keep_looks
from orchestrator.workflows.results.pulled_files import FILES_MAX, LocalFile, local_files
from orchestrator.workflows.results.record import FILES, write_record
from orchestrator.workflows.runs.attempts import as_record
from orchestrator.workflows.runs.documents import StoredRun, read_runs, result_manifest, stored_run
from orchestrator.workflows.runs.index import run_index
from orchestrator.workflows.runs.overview import called, find
from orchestrator.workflows.runs.remembered import RememberedRuns
from orchestrator.workflows.workspace import Workspace
from remote.contract.document import ContractError
from remote.contract.run_status import FINAL, ResultManifest

__all__ = ["FILES_MAX", "LocalFile", "PullAllResult", "PullResult", "local_files", "pull", "pull_all"]

_AT_ONCE = 4  # runs; each of them fetches several files at once


@dataclass(frozen=True)
class PullResult:
    run_id: str
    folder: Path
    state: str  # of the run, when its manifest was written
    files: int
    bytes: int
    fetched: int  # files that were not there yet


@dataclass(frozen=True)
class PullAllResult:
    pulled: list[PullResult]  # the newest first
    failed: dict[str, str] = field(default_factory=dict)  # run -> why it is not here
    problems: list[str] = field(default_factory=list)  # documents in the store that can't be read

    @property
    def exit_code(self) -> int:
        return 3 if self.failed else 0


def pull(workspace: Workspace, run: str) -> PullResult:
    """Copy what MANIFEST.json names into <project folder>/runs/<run id>/, every file verified by size and sha256.

    Then the run counts in the ledger of looks; a store that refuses that is a warning.

    run             an id, or the end of one
    NotFoundError   no such run, or it has no result yet
    ConflictError   a file is in the way that is not the result's
    CloudError      the manifest or a file is not what it should be, or the disk is full
    """
    run_id = find(workspace, run)
    try:
        manifest = result_manifest(workspace.store, run_id)
        files = local_files(manifest, run_id) if manifest else []
    except ContractError as error:
        raise CloudError(f"The result of {run_id} can't be trusted", detail=str(error)) from None
    if manifest is None:
        raise NotFoundError(
            f"The run {run_id} has no result in the store yet",
            next=f"tlvm logs -f {called(workspace, run_id)} follows it; tlvm status shows its state.",
        )
    folder = _folder(workspace, run_id)
    try:
        fetched = bring(workspace, run_id, folder, files)
        _record(workspace, manifest, folder, {file.path for file in files})
    except OSError as error:
        raise CloudError(
            f"The result of {run_id} can't be written to {folder}",
            detail=str(error),
            next=f"Make room there, then tlvm pull {called(workspace, run_id)} goes on.",
        ) from None
    except (ConflictError, Damaged):
        raise
    except TlvmError as error:
        error.next = f"{error.next} tlvm pull {called(workspace, run_id)} goes on.".strip()
        raise
    _count_looks(workspace, run_id, folder)
    _remember(workspace, run_id, folder)
    return PullResult(run_id, folder, manifest.state, len(files), sum(file.size for file in files), fetched)


def pull_all(workspace: Workspace) -> PullAllResult:
    """Every finished run of this owner and project whose result is not here; one that fails stops no other."""
    index = run_index(workspace.store)
    away = [run_id for run_id in index.ids if run_id in index.over and not _is_here(workspace, run_id)]
    remembered = RememberedRuns(workspace.records.cache, workspace.store.url)
    runs, problems = read_runs(workspace.store, away, remembered)
    mine = (workspace.settings.owner_label, workspace.settings.project)
    wanted = [
        run.spec.run_id
        for run in reversed(runs)
        if (run.spec.owner, run.spec.project) == mine and _is_over(run)
    ]
    pulled, failed = [], {}
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="pull") as pool:
        for run_id, waiting in [(run_id, pool.submit(pull, workspace, run_id)) for run_id in wanted]:
            try:
                pulled.append(waiting.result())
            except TlvmError as error:
                failed[run_id] = str(error)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    return PullAllResult(pulled, failed, problems)


def _is_over(run: StoredRun) -> bool:
    return run.status is not None and run.status.state in FINAL and run.status.published


def _is_here(workspace: Workspace, run_id: str) -> bool:
    return (_folder(workspace, run_id) / FILES[-1]).is_file()


def _folder(workspace: Workspace, run_id: str) -> Path:
    return workspace.project_folder / "runs" / run_id


def _record(workspace: Workspace, manifest: ResultManifest, folder: Path, files: set[str]) -> None:
    """What the store says of the run, once; without it the result is no less whole."""
    if not files or _is_here(workspace, manifest.run_id):
        return
    try:
        if found := stored_run(workspace.store, manifest.run_id):
            write_record(folder, found, manifest.state, files)
    except (ContractError, TlvmError) as error:
        workspace.progress.warn(f"What {manifest.run_id} took can't be told: {error}")


def _remember(workspace: Workspace, run_id: str, folder: Path) -> None:
    """Also of a run that another computer started: `runs` says from now on that it is here."""
    if workspace.records.run(run_id) is None:
        try:
            if found := stored_run(workspace.store, run_id):
                workspace.records.save_run(as_record(workspace, found))
        except (ContractError, TlvmError) as error:
            workspace.progress.warn(f"That {run_id} lies here can't be remembered: {error}")
    workspace.records.pulled(run_id, folder)


def _count_looks(workspace: Workspace, run_id: str, folder: Path) -> None:
    try:
        keep_looks(workspace.store, run_id, folder / "metrics.json")
    except TlvmError as error:
        workspace.progress.warn(f"That {run_id} looked at these images could not be counted: {error.what}")
