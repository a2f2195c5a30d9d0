"""The attempts of a run: one for each time a laptop had it begin or go on, with what it cost. All prices are estimates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from orchestrator.errors import ConflictError
from orchestrator.providers.base import Machine
from orchestrator.records import Life, RunRecord
from orchestrator.stores.documents import write_document
from orchestrator.workflows.runs.documents import StoredRun, short, stored_attempts
from orchestrator.workflows.runs.ended import was_ended
from orchestrator.workflows.workspace import Workspace
from remote.contract import document, layout
from remote.contract.run_attempt import Attempt
from remote.contract.run_status import FINAL, LOST, AttemptTimes, RunStatus


@dataclass(frozen=True)
class AttemptLine:
    """One stay of a run on one machine."""

    number: int
    machine: str
    provider: str
    place: str
    spot: bool
    began: str  # ISO 8601; by the machine's clock once it has spoken, else when it was asked
    ended: str | None  # None: it has not, or nobody saw it
    how: str  # the state in which it ended, KILLED, or LOST with its machine; "" as long as it has not
    starts: int  # of the supervisor there: a machine that restarts begins again
    seconds: float  # at work there
    cost: float  # dollars
    price_per_hour: float = 0  # dollars; 0 where nothing is paid
    machine_id: str = ""  # which one of that name


def attempt_lines(run: StoredRun) -> list[AttemptLine]:
    """From what laptops wrote when they asked and what the machines said; times of hostile machines are bounded below."""
    said = _said(run.status) if run.status else []
    numbers = [attempt.number for attempt in run.attempts] + [2**31]
    lines = [
        _line(run, attempt, [times for times in said if attempt.number <= times.number < next])
        for attempt, next in zip(run.attempts, numbers[1:], strict=True)
    ]
    return [
        replace(line, how=LOST)
        if line.how in ("KILLED", "") and other and other.machine_id != line.machine_id
        else line
        for line, other in zip(lines, [*lines[1:], None], strict=False)
    ]


def counted(lines: Sequence[AttemptLine]) -> str:
    """ "2 attempts", "2 machines", "3 attempts on 2 machines"; "" where one machine did it in one."""
    attempts, machines = len(lines), len({line.machine_id for line in lines})
    if attempts < 2:
        return ""
    if machines == 1:
        return f"{attempts} attempts"
    return f"{machines} machines" if machines == attempts else f"{attempts} attempts on {machines} machines"


def ended_as(line: AttemptLine) -> str:
    """In words."""
    return "lost with its machine" if line.how == LOST else line.how.lower()


def _said(status: RunStatus) -> list[AttemptTimes]:
    """A bundle of an older tlvm says only when the run began and ended."""
    if status.attempts or not status.started:
        return status.attempts
    how = status.state if status.state in FINAL else ""
    return [AttemptTimes(1, "", status.started, status.finished, how)]


def announce(workspace: Workspace, run_id: str, machine: Machine, *, at_least: int) -> Attempt:
    """Write that the run is about to be started there, under a number that no other laptop has taken."""
    number = at_least
    while True:
        attempt = Attempt(
            number,
            machine.name,
            machine.provider,
            machine.place,
            machine.price_per_hour,
            datetime.now(UTC).isoformat(timespec="seconds"),
            spot=machine.settings.get("spot") == "True",
            machine_id=machine.id,
        )
        try:
            key = layout.attempt_key(run_id, number)
            write_document(workspace.store, key, document.encode(attempt), if_generation=0)
        except ConflictError:
            number += 1
        else:
            return attempt


def withdraw(workspace: Workspace, run_id: str, attempt: Attempt) -> None:
    """It never began."""
    workspace.store.delete(layout.attempt_key(run_id, attempt.number))


def next_number(workspace: Workspace, run: StoredRun) -> int:
    """Above every number that is known."""
    asked = [attempt.number for attempt in stored_attempts(workspace.store, run.spec.run_id)]
    return max(run.last_number, *asked, 0) + 1


def cost(run: StoredRun) -> float:
    return sum(line.cost for line in attempt_lines(run))


def may_rent(workspace: Workspace, run_id: str, said: bool | None) -> bool:
    """What was said now, else what was said as the run began; where nobody knows that, whether machines are spot here."""
    if said is not None:
        return said
    record = workspace.records.run(run_id)
    return record.recover if record else workspace.settings.machine.spot


def goes_on_with(workspace: Workspace, run: StoredRun, state: str, known: Sequence[str]) -> str:
    """The command that brings back a run of which nothing runs; "" where none does, or it is not ours."""
    mine = run.spec.owner == workspace.settings.owner_label
    if not mine or state not in (LOST, "INTERRUPTED"):
        return ""
    name = short(run.spec.run_id, known)
    rents = state == LOST and (
        not may_rent(workspace, run.spec.run_id, None) or was_ended(workspace.store, run)
    )
    return f"tlvm attach {'--recover ' if rents else ''}{name}"


def know_lives(workspace: Workspace, run: StoredRun) -> None:
    """What earlier machines have used, on a computer that has no record of them: from the attempts, so at most that."""
    provider = workspace.settings.provider
    if workspace.records.lives(provider, run.machine):
        return
    hours = timedelta(hours=workspace.settings.max_hours)
    lives = []
    for line, attempt in zip(attempt_lines(run), run.attempts, strict=True):
        if attempt.price_per_hour <= 0 or attempt.machine != run.machine:
            continue
        began = datetime.fromisoformat(attempt.asked)
        ended = min(began + timedelta(seconds=line.seconds), began + hours - timedelta(seconds=1))
        lives.append(
            Life(
                f"attempt-{attempt.number}",
                attempt.place,
                began.isoformat(),
                (began + hours).isoformat(),
                attempt.price_per_hour,
                ended.isoformat(),
            )
        )
    if lives:
        workspace.records.save_lives(provider, run.machine, lives)


def as_record(workspace: Workspace, run: StoredRun, machine: Machine | None = None) -> RunRecord:
    """What a computer remembers of a run that it did not start, or has forgotten."""
    last = run.attempts[-1] if run.attempts else None
    return RunRecord(
        run.spec.run_id,
        run.spec.machine,
        last.provider if last else workspace.settings.provider,
        asked=run.spec.created,
        recover=bool(last and last.spot),
        machine_settings=dict(machine.settings) if machine else {},
    )


def _line(run: StoredRun, attempt: Attempt, times: Sequence[AttemptTimes]) -> AttemptLine:
    last = attempt is run.attempts[-1]
    began = min((one.began for one in times), default=attempt.asked)
    seconds = sum(_seconds(one, run, last=last and one is times[-1]) for one in times)
    end = times[-1] if times else None
    return AttemptLine(
        attempt.number,
        attempt.machine,
        attempt.provider,
        attempt.place,
        attempt.spot,
        began,
        end.ended if end else None,
        end.how if end else "",
        len(times),
        seconds,
        seconds / 3600 * max(0.0, attempt.price_per_hour),
        max(0.0, attempt.price_per_hour),
        attempt.machine_id or f"{attempt.machine} in {attempt.place}",
    )


def _seconds(times: AttemptTimes, run: StoredRun, *, last: bool) -> float:
    """From its begin to its end; of one that was killed, to its last word; of one at work, until now."""
    if times.ended is None and last and run.status and run.status.state not in FINAL:
        end = run.status.updated
    else:
        end = times.ended or ""
    try:
        took = datetime.fromisoformat(end) - datetime.fromisoformat(times.began)
    except (ValueError, TypeError):  # the second: one of the two names no zone
        return max(0.0, times.used_s)
    return max(0.0, took.total_seconds())
