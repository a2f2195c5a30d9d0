"""How a run ended: what the end of its training means."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from remote.contract import document
from remote.contract.document import ContractError
from remote.contract.layout import RunFolder
from remote.contract.metrics import Metrics
from remote.contract.run_spec import RunSpec
from remote.contract.run_status import State
from remote.job.passes import Pass
from remote.job.training_process import End, Limits, Why, in_words, tail

EXIT_CODES = {"SUCCEEDED": 0, "FAILED": 9, "CANCELLED": 130, "INTERRUPTED": 12}
RESULT = {
    "train": ("model/model.safetensors", "model/model.json", "metrics.json"),
    "evaluate": ("metrics.json", "predictions.csv"),
}
UNUSABLE_EXIT = 3  # of the training: data or settings can't be used; the last error event says why
INTERRUPTED_EXIT = 12  # of the training: checkpointed, goes on when it is started again
NO_ROOM_EXIT = 13  # of the training: the disk took no more
_REFUSED = "The result is on the machine only: the store refused it all the time"
TAKEN_AWAY = "the machine is being taken away"


@dataclass(frozen=True)
class Outcome:
    state: State
    message: str = ""
    exit_code: int | None = None
    log_tail: list[str] = dataclasses.field(default_factory=list)


def without_result(message: str) -> str:
    """The message of a run whose store refused all the time."""
    return f"{message} {_REFUSED}".strip()


def without_excuse(message: str) -> str:
    """The message that it had before."""
    return message.removesuffix(_REFUSED).rstrip()


class Stopped(Exception):
    """Somebody wants the run to end now; the text says why."""

    def __init__(self, why: Why, text: str) -> None:
        super().__init__(text)
        self.why = why


def judged(
    end: End, spec: RunSpec, folder: RunFolder, limits: Limits, *, error: str, passing: Pass | None = None
) -> Outcome:
    """Of a training that has ended by itself, or was stopped for what it did.

    error       the last that it said in its events
    passing     how far it had come, as they tell
    """
    whole = all((folder.result / name).is_file() for name in RESULT[spec.job])
    if end.exit_code == 0 and whole:
        return Outcome("SUCCEEDED", _cut_short(folder), exit_code=0)
    if not end.why and end.exit_code == INTERRUPTED_EXIT:
        return Outcome("INTERRUPTED", TAKEN_AWAY, end.exit_code)
    if end.why == "overtime":
        message = _out_of_hours(spec, passing)
    elif end.why == "hung":
        message = f"Stopped: no sign of life for {limits.hang_s:g} s"
    elif end.exit_code == 0:
        message = "The training ended without a result"
    elif end.exit_code == UNUSABLE_EXIT and error:
        message = error
    elif end.exit_code == NO_ROOM_EXIT:
        message = (
            f"The disk of the machine is full, and no room came within {limits.room_s / 60:.0f} minutes. "
            "Remove what fills it, or choose a machine with more disk_gb"
        )
    else:
        message = in_words(end)
    return Outcome("FAILED", message, end.exit_code, tail(folder.log))


def _out_of_hours(spec: RunSpec, passing: Pass | None) -> str:
    name = spec.run_id[-4:]
    stopped = f"Stopped after its max_hours of {spec.max_hours:g}, before there was a result"
    more = f"tlvm run --spec {name} --max-hours H does it with more"
    if passing:
        stopped += f": {passing.in_words}"
        more = passing.more_hours(name, spec.max_hours)
    return f"{stopped}{'. ' if passing else ': '}{more}" if spec.job == "train" else stopped


def _cut_short(folder: RunFolder) -> str:
    """Where it ended well, and early; "" where nothing is to be said, or what a training wrote can't be read."""
    try:
        metrics = document.decode(Metrics, (folder.result / "metrics.json").read_bytes(), what="metrics.json")
    except (OSError, ContractError):
        return ""
    return f"its max_hours were over {metrics.cut_short}" if metrics.cut_short else ""


def stopped(why: Why, text: str, exit_code: int | None = None) -> Outcome:
    """Of a run that somebody wants to end."""
    return Outcome("INTERRUPTED" if why == "interrupted" else "CANCELLED", text, exit_code)
