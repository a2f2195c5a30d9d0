"""`tlvm up --upload DIR`: the images travel while the machine boots, which then fetches packs as they are stored."""

from __future__ import annotations

import dataclasses
import re
import shlex
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

from orchestrator.datasets.folder.names import printable
from orchestrator.errors import Interruption, NotFoundError, TlvmError
from orchestrator.progress import Bar, Progress
from orchestrator.workflows.data.datasets import load_manifest
from orchestrator.workflows.data.prefetch import Prefetching
from orchestrator.workflows.data.upload import UploadResult, upload
from orchestrator.workflows.machines.up import UpResult, up
from orchestrator.workflows.workspace import Workspace

PATIENCE_S = 2.0  # with an upload that was told to stop; what is on a slow line is not waited for
AHEAD_S = 5.0  # until the machine has the last packs; with a large dataset that was stored before, a run need not wait
_OPTION = re.compile(r"--(allow-shrink|dataset|group-by|labels|page|replace)\b")  # that only upload has

Stored = Callable[[str], None]  # told each pack that the store has
Send = Callable[[Workspace, Path, Stored], list[UploadResult]]


def up_and_upload(
    workspace: Workspace,
    folder: Path,
    *,
    bring_up: Callable[[Workspace], UpResult] = up,
    send: Send | None = None,
    patience_s: float = PATIENCE_S,
    ahead_s: float = AHEAD_S,
) -> tuple[UpResult, list[UploadResult]]:
    """Both at once; returns when both are done.

    Whichever fails, the other one is brought to its end: its error says what became of that. Where both fail, the
    machine's error is raised and names the upload's. That the machine fetches packs ahead is a courtesy: where it
    fails, one line says so.
    NotFoundError   there is no such folder; no machine was asked for
    Interruption    on Ctrl-C, which ends both: says what stands
    """
    if not folder.is_dir():
        raise NotFoundError(f"There is no folder {printable(str(folder))}", next="Check the path.")
    ahead = Prefetching(Workspace(workspace.settings, workspace.progress))
    uploading = _Uploading(workspace, folder, send or _send, ahead.stored)
    machine = ""  # what became of it
    try:
        try:
            made = bring_up(workspace)
        except TlvmError as error:
            machine = error.what
            raise _with(error, uploading.end()) from error
        machine = f"The machine{f' {made.machine.name}' if made.machine else ''} is up"
        if made.machine is not None:
            ahead.begin(made.machine)
        try:
            uploaded = uploading.result()
        except TlvmError as error:
            raise _with(_by_itself(error, folder), f"{machine}; tlvm down ends it.") from error
        ahead.end(ahead_s)
    except KeyboardInterrupt as error:
        asked = error.what if isinstance(error, Interruption) else "No machine was asked for"
        raise _interrupted(machine or asked, uploading.stop(patience_s), folder) from None
    finally:
        ahead.stop()
    for line in uploading.warned:
        workspace.progress.warn(line)
    versions = {result.name: result.version for result in uploaded}
    return dataclasses.replace(made, uploaded=versions), uploaded


def _send(workspace: Workspace, folder: Path, stored: Stored) -> list[UploadResult]:
    uploaded = upload(workspace, folder, stored=stored)
    for result in uploaded:
        if result.packs_reused:
            with suppress(TlvmError):  # a version that can't be read is said by the run that needs it
                for pack in load_manifest(workspace.store, result.name, result.version).packs():
                    stored(pack)
    return uploaded


class _Uploading:
    """An upload in a thread of its own, which ends with the process: Ctrl-C waits for no slow line."""

    def __init__(self, workspace: Workspace, folder: Path, send: Send, stored: Stored) -> None:
        self._future: Future[list[UploadResult]] = Future()
        self._quiet = _Quiet(workspace.progress)
        own = Workspace(workspace.settings, self._quiet)
        self._thread = threading.Thread(
            target=self._run, args=(own, folder, send, stored), name="upload", daemon=True
        )
        self._thread.start()

    @property
    def warned(self) -> list[str]:
        return self._quiet.warned

    def result(self) -> list[UploadResult]:
        return self._future.result()

    def end(self) -> str:
        """How it ended, when it has."""
        try:
            names = ", ".join(result.name for result in self.result())
        except TlvmError as error:
            return f"The upload failed too: {error.what}"
        return f"The upload is done: {names}"

    def stop(self, patience_s: float) -> list[str]:
        """The datasets that it has published all the same; none when it was broken off."""
        self._quiet.stop()
        self._thread.join(patience_s)
        if not self._future.done() or self._future.exception() is not None:
            return []
        return [result.name for result in self.result()]

    def _run(self, workspace: Workspace, folder: Path, send: Send, stored: Stored) -> None:
        try:
            self._future.set_result(send(workspace, folder, stored))
        except BaseException as error:  # noqa: BLE001  # raised where the result is asked for
            self._future.set_exception(error)


def _by_itself(error: TlvmError, folder: Path) -> TlvmError:
    """What helps may be an option that `up` does not have."""
    if not _OPTION.search(error.next) or "tlvm " in error.next:
        return error
    alone = f"tlvm upload {shlex.quote(str(folder))}"
    next = f"Upload it first: {alone} takes what up does not, then tlvm up goes on without --upload. {error.next}"
    return type(error)(error.what, detail=error.detail, next=next)


def _with(error: TlvmError, line: str) -> TlvmError:
    detail = "\n".join(part for part in (error.detail, line) if part)
    return type(error)(error.what, detail=detail, next=error.next)


def _interrupted(machine: str, published: list[str], folder: Path) -> Interruption:
    down = "tlvm status shows what exists, tlvm down ends a machine."
    if published:
        return Interruption(f"{machine}; the upload is done: {', '.join(published)}", next=down)
    again = f"tlvm upload {shlex.quote(str(folder))}"
    return Interruption(f"{machine}; the upload is not finished", next=f"{again} goes on with it; {down}")


class _Stopped(Exception):
    """Ends the upload where it has something to say."""


class _Quiet:
    """The upload's progress: one line at a time on a screen that shows the machine's; warnings wait for the end."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._stopped = threading.Event()
        self._thread = 0  # the upload's
        self.warned: list[str] = []

    def stop(self) -> None:
        self._stopped.set()

    def say(self, label: str, text: str) -> None:
        self._end_if_stopped()
        self._progress.say(label, text)

    def warn(self, text: str) -> None:
        self._end_if_stopped()
        self.warned.append(text)

    def bar(self, label: str, total: int, unit: str) -> AbstractContextManager[Bar]:
        self._end_if_stopped()
        self._thread = threading.get_ident()
        return nullcontext(self)

    def advance(self, amount: int = 1, size_bytes: int = 0) -> None:
        if threading.get_ident() == self._thread:  # those that send packs end by themselves
            self._end_if_stopped()

    def _end_if_stopped(self) -> None:
        if self._stopped.is_set():
            raise _Stopped
