"""Supervise one run: wait in line, fetch, train in a subprocess, publish, finish. Survives what training does not.

QUEUED ─▶ STARTING (fetch) ─▶ RUNNING (train, then publish) ─▶ SUCCEEDED | FAILED | CANCELLED
                                    └─▶ INTERRUPTED: the machine is taken away; started again, the run goes on
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from remote.contract import document
from remote.contract.attempts import Attempts
from remote.contract.document import ContractError
from remote.contract.layout import MachineHome, RunFolder
from remote.contract.run_spec import RunSpec
from remote.job import line, training_process
from remote.job.again import Again
from remote.job.asked import environment, forget_environment, read_asked
from remote.job.beside import beside
from remote.job.claim import Superseded
from remote.job.ending import Ending
from remote.job.fetch import fetch
from remote.job.follow import read_status
from remote.job.news import LogMarks, News
from remote.job.outcome import EXIT_CODES, Outcome, Stopped, judged, stopped
from remote.job.passes import Foresight
from remote.job.publish import Publisher, now
from remote.job.reasons import Reasons, cancel_mark
from remote.job.record import Record, begin, is_over, read_spec
from remote.job.reserve import reserved
from remote.job.resources import Gauge
from remote.job.signals import asked_to_end
from remote.job.taking_up import CannotTakeUp, take_up
from remote.job.training_process import LIMITS, End, Limits
from remote.job.waiting import wait_in_line
from remote.store import StoreError, open_store

__all__ = ["EXIT_CODES", "cancel_mark", "prepare", "supervise"]

TRAIN = (sys.executable, "-m", "remote", "train")


def supervise(
    spec_path: Path,
    home: MachineHome,
    *,
    command: Sequence[str] = TRAIN,
    limits: Limits = LIMITS,
    lock: int | None = None,
    ticket: str | None = None,
    echo: bool = False,
) -> int:
    """Carry out a run to its end in this process; the exit code of EXIT_CODES.

    command         what trains, followed by the path of the spec
    lock            the run's lock when whoever started us has taken it already
    ticket          its place in the line, likewise
    echo            copy the training's log to stdout
    AlreadyActive   when another process supervises this run
    ContractError   when the spec is not one
    """
    spec = read_spec(spec_path)
    held = line.hold_run(home.locks, spec.run_id) if lock is None else lock
    place = line.taken_over(home.locks, ticket, spec.run_id) if ticket else line.join(home.locks, spec.run_id)
    try:
        folder = prepare(home, spec)
        with asked_to_end() as asked:
            reasons = Reasons(folder, asked, limits)
            try:
                known = take_up(spec, folder, read_asked(folder), limits, reasons.check)
            except (Stopped, CannotTakeUp) as why:
                print(f"{spec.run_id} was not taken up from the store: {why}", file=sys.stderr)
                return EXIT_CODES["INTERRUPTED"]
            status = read_status(folder)
            if status and is_over(status):
                forget_environment(folder)
                return EXIT_CODES[status.state]
            record = begin(folder, spec)
            for text in known:
                record.events.log(text)
            code = _Job(spec, home, folder, record, command, limits, held, place, reasons, echo).carry_out()
    finally:
        place.leave()
        os.close(held)
    if echo:
        print(f"{record.status.state} {record.status.message}".strip())
    return code


def prepare(home: MachineHome, spec: RunSpec) -> RunFolder:
    """The run's folder with the spec in it."""
    folder = home.run(spec.run_id)
    for path in (home.root, home.runs, folder.root, folder.result, folder.checkpoints, home.locks):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not folder.spec.exists():
        document.write(folder.spec, spec)
    return folder


class _Job:
    """One attempt of one run."""

    def __init__(
        self,
        spec: RunSpec,
        home: MachineHome,
        folder: RunFolder,
        record: Record,
        command: Sequence[str],
        limits: Limits,
        lock: int,
        ticket: line.Ticket,
        reasons: Reasons,
        echo: bool,
    ) -> None:
        self._spec = spec
        self._home = home
        self._folder = folder
        self._record = record
        self._command = command
        self._limits = limits
        self._lock = lock
        self._ticket = ticket
        self._reasons = reasons
        self._news = News(folder, echo)
        self._foresight = Foresight(spec, self._warn)
        self._marks = LogMarks(folder, record.events)
        self._publisher = Publisher(
            lambda: open_store(spec.store, attempts=Attempts(count=1)),  # it has patience of its own
            spec.run_id,
            folder,
            attempt=record.status.attempt,
            warn=self._warn,
            position=lambda: (self._news.step, self._news.epoch),
        )
        reasons.publisher = self._publisher
        self._ending = Ending(
            spec, folder, record, self._publisher, reasons, limits, alive=self._show_that_we_live
        )
        self._works_since = self._told_at = time.monotonic()

    def carry_out(self) -> int:
        self._publisher.start()
        try:
            outcome = self._attempt()
            self._read_news()
            return EXIT_CODES[self._ending.come_to(outcome)]
        except Superseded as superseded:
            return EXIT_CODES[self._ending.stand_back(str(superseded))]
        except BaseException as error:
            self._ending.break_down(error)
            raise

    def _attempt(self) -> Outcome:
        """Everything up to the result in the run's folder."""
        if self._record.supervisor.outcome:
            self._ticket.leave()
            return self._record.supervisor.outcome
        try:
            self._reasons.check()
            places = wait_in_line(self._ticket, self._spec, self._record, self._limits, self._check)
        except Stopped as why:
            return stopped(why.why, str(why))
        except ContractError as error:
            return Outcome("FAILED", str(error))
        try:
            self._record.state("STARTING", "fetching what it needs")
            self._record.save(started=self._record.status.started or now(), place=0, waits_for="")
            self._fetch()
            self._record.state("RUNNING")
            return self._judge(self._train_to_the_end(places))
        except Stopped as why:
            return stopped(why.why, str(why))
        except ContractError as error:
            return Outcome("FAILED", str(error))
        finally:
            places.release()

    def _fetch(self) -> None:
        """In a thread, so that a run can be stopped while a transfer hangs. ContractError says what is missing."""

        def tell(done: int, total: int) -> None:
            if total:
                self._record.events.progress("fetch", done, total, "files")

        def again(error: Exception, wait_s: float) -> None:
            self._record.events.log(f"{error}; tried again in {wait_s:.0f} s", level="warning")

        def work() -> None:
            store = open_store(self._spec.store, attempts=Attempts(tell=again))
            fetch(self._spec, self._home, store, tell)

        try:
            beside(work, self._check, poll_s=self._limits.poll_s)
        except (StoreError, ContractError, OSError) as error:
            raise ContractError(f"What the run needs can't be fetched: {error}") from error

    def _train_to_the_end(self, places: line.Places) -> End:
        """As often as it begins again. Waiting for room counts for max_hours, too: the machine is there for it."""
        self._works_since = time.monotonic()
        again = Again(
            self._folder.root,
            self._limits,
            tell=self._warn,
            status=lambda text: self._record.save(message=text),
            check=self._check_and_note,
        )
        while True:
            end = self._train(places)
            try:
                ended = again.after(end, epoch=self._news.epoch, left_s=self._left_s())
            finally:
                self._note_used()
            if ended:
                return ended

    def _train(self, places: line.Places) -> End:
        accelerators = places.numbers if line.accelerators() else []
        gauge = Gauge(self._folder.root, accelerators)

        def tick() -> None:
            self._read_news()
            gauge.look()
            self._note_used(again_after_s=self._limits.tell_s)

        try:
            with reserved(self._folder.root, beyond_bytes=self._limits.room_bytes):
                return training_process.train(
                    self._command,
                    self._folder,
                    accelerators=accelerators,
                    keep=[*places.descriptors, self._lock],
                    environment=environment(self._folder),
                    limits=self._limits,
                    remaining_s=self._left_s(),
                    stop=self._reasons.why,
                    tick=tick,
                )
        finally:
            tick()
            self._note_used()
            self._record.save(resources=gauge.read())

    def _check(self) -> None:
        self._reasons.check()
        self._show_that_we_live()

    def _show_that_we_live(self) -> None:
        """A status that nothing changes is how a frozen supervisor is known."""
        if time.monotonic() - self._told_at >= self._limits.tell_s:
            self._told_at = time.monotonic()
            self._record.save()

    def _check_and_note(self) -> None:
        self._reasons.check()
        self._note_used(again_after_s=self._limits.tell_s)

    def _note_used(self, *, again_after_s: float = 0.0) -> None:
        now_s = time.monotonic()
        if now_s - self._told_at >= again_after_s:
            self._told_at = now_s
            self._record.used(now_s - self._works_since)

    def _left_s(self) -> float:
        """Of max_hours, all attempts together."""
        return self._spec.max_hours * 3600 - self._record.supervisor.used_s

    def _judge(self, end: End) -> Outcome:
        said = self._news
        outcome = judged(end, self._spec, self._folder, self._limits, error=said.error, passing=said.passing)
        if end.why in ("cancelled", "interrupted", "superseded") and outcome.state != "SUCCEEDED":
            return stopped(end.why, self._reasons.text, end.exit_code)
        return outcome

    def _read_news(self) -> None:
        self._news.read()
        self._marks.mark()
        self._foresight.look(self._news.passing, self._left_s())
        if self._news.step != self._record.status.step:
            self._record.save(step=self._news.step)

    def _warn(self, text: str) -> None:
        self._record.events.log(text, level="warning")
