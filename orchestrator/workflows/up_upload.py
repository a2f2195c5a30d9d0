"""`tlvm up --upload DIR`: the images travel while the machine boots."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

from orchestrator.errors import TlvmError
from orchestrator.progress import Bar, Progress, Silent
from orchestrator.workflows.up import UpResult, up
from orchestrator.workflows.upload import UploadResult, upload
from orchestrator.workflows.workspace import Workspace


def up_and_upload(
    workspace: Workspace, folder: Path, *, bring_up: Callable[[Workspace], UpResult] = up
) -> tuple[UpResult, list[UploadResult]]:
    """Both at once; returns when both are done.

    Whichever fails, the other one is brought to its end: its error says what became of that. Where both fail, the
    machine's error is raised and names the upload's.
    """
    quiet = _Quiet(workspace.progress)
    with ThreadPoolExecutor(1, thread_name_prefix="upload") as pool:
        uploading = pool.submit(upload, Workspace(workspace.settings, quiet), folder)
        try:
            made = bring_up(workspace)
        except TlvmError as error:
            raise _with(error, _end_of(uploading)) from error
    try:
        uploaded = uploading.result()
    except TlvmError as error:
        machine = made.machine.name if made.machine else "machine"
        raise _with(error, f"The {machine} is up; tlvm down ends it.") from error
    for line in quiet.said:
        workspace.progress.warn(line)
    versions = {result.name: result.version for result in uploaded}
    return dataclasses.replace(made, uploaded=versions), uploaded


def _end_of(uploading: Future[list[UploadResult]]) -> str:
    try:
        names = ", ".join(result.name for result in uploading.result())
    except TlvmError as error:
        return f"The upload failed too: {error.what}"
    return f"The upload is done: {names}"


def _with(error: TlvmError, line: str) -> TlvmError:
    detail = "\n".join(part for part in (error.detail, line) if part)
    return type(error)(error.what, detail=detail, next=error.next)


class _Quiet:
    """The upload's progress: one line at a time on a screen that shows the machine's; warnings wait for the end."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.said: list[str] = []

    def say(self, label: str, text: str) -> None:
        self._progress.say(label, text)

    def warn(self, text: str) -> None:
        self.said.append(text)

    def bar(self, label: str, total: int, unit: str) -> AbstractContextManager[Bar]:
        return Silent().bar(label, total, unit)
