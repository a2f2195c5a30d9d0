"""Supervise one run: wait in line, fetch, train in a subprocess, publish, finish. Survives what training does not.

QUEUED ─▶ STARTING (fetch) ─▶ RUNNING (train, then publish) ─▶ SUCCEEDED | FAILED | CANCELLED
                                    └─▶ INTERRUPTED: the machine is taken away; started again, the run goes on
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from remote.contract import document
from remote.contract.attempts import Attempts
from remote.contract.document import ContractError
from remote.contract.layout import MachineHome, RunFolder
from remote.contract.run_spec import RunSpec
from remote.contract.run_status import State
from remote.job import line, training_process
from remote.job.fetch import fetch
from remote.job.follow import read_status
from remote.job.news import News
from remote.job.publish import Publisher, now
from remote.job.record import Record, begin, is_over, read_spec
from remote.job.signals import asked_to_end
from remote.job.training_process import LIMITS, End, Limits, Why, in_words, tail
from remote.store import StoreError, open_store

TRAIN = (sys.executable, "-m", "remote", "train")
EXIT_CODES = {"SUCCEEDED": 0, "FAILED": 9, "CANCELLED": 130, "INTERRUPTED": 12}
RESULT = {
    "train": ("model/model.safetensors", "model/model.json", "metrics.json"),
    "evaluate": ("metrics.json", "predictions.csv"),
}
UNUSABLE_EXIT = 3  # of the training: data or settings can't be used; the last error event says why
INTERRUPTED_EXIT = 12  # of the training: checkpointed, goes on when it is started again
_BEGUN_AGAIN = 2  # times at most, after it was killed


@dataclass(frozen=True)
class Outcome:
    state: State
    message: str = ""
    exit_code: int | None = None
    log_tail: list[str] = dataclasses.field(default_factory=list)


class Stopped(Exception):
    """Somebody wants the run to end now."""

    def __init__(self, why: Why) -> None:
        super().__init__(why)
        self.why = why


def supervise(
    spec_path: Path,
    home: MachineHome,
    *,
    command: Sequence[str] = TRAIN,
    limits: Limits = LIMITS,
    lock: int | None = None,
    echo: bool = False,
) -> int:
    """Carry out a run to its end in this process; the exit code of EXIT_CODES.

    command         what trains, followed by the path of the spec
    lock            the run's lock when whoever started us has taken it already
    echo            copy the training's log to stdout
    AlreadyActive   when another process supervises this run
    ContractError   when the spec is not one
    """
    spec = read_spec(spec_path)
    held = line.hold_run(home.locks, spec.run_id) if lock is None else lock
    folder = prepare(home, spec, spec_path)
    status = read_status(folder)
    if status and is_over(status):
        return EXIT_CODES[status.state]
    with asked_to_end() as asked:
        record = begin(folder, spec)
        code = _Job(spec, home, folder, record, command, limits, held, asked, echo).carry_out()
    if echo:
        print(f"{record.status.state} {record.status.message}".strip())
    return code


def prepare(home: MachineHome, spec: RunSpec, spec_path: Path) -> RunFolder:
    """The run's folder with the spec in it."""
    folder = home.run(spec.run_id)
    for path in (home.root, home.runs, folder.root, folder.result, folder.checkpoints, home.locks):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if spec_path.resolve() != folder.spec.resolve():
        document.write(folder.spec, spec)
    return folder


def cancel_mark(folder: RunFolder) -> Path:
    return folder.root / "cancel"


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
        asked: threading.Event,
        echo: bool,
    ) -> None:
        self._spec = spec
        self._home = home
        self._folder = folder
        self._record = record
        self._command = command
        self._limits = limits
        self._lock = lock
        self._asked = asked
        self._publisher = Publisher(
            lambda: open_store(
                spec.store, attempts=Attempts(count=1)
            ),  # the publisher has patience of its own
            spec.run_id,
            folder,
            warn=self._warn_of_the_store,
        )
        self._news = News(folder, echo)

    def carry_out(self) -> int:
        self._publisher.start()
        try:
            outcome = self._attempt()
            return EXIT_CODES[self._end(outcome)]
        except BaseException as error:
            last = "".join(traceback.format_exception(error)).splitlines()[-training_process.TAIL_LINES :]
            self._record.state("FAILED", f"The supervisor broke: {error!r}")
            self._record.save(finished=now(), log_tail=last)
            if self._publisher.stop(patience_s=self._limits.grace_s):
                self._publisher.send(patience_s=self._limits.grace_s)
            raise
        finally:
            os.close(self._lock)

    def _attempt(self) -> Outcome:
        """Everything up to the result in the run's folder."""
        if self._record.supervisor.trained:
            return Outcome("SUCCEEDED", exit_code=0)
        try:
            self._check()
            places = self._wait_in_line()
        except Stopped as stopped:
            return _stopped(stopped.why)
        except ContractError as error:
            return Outcome("FAILED", str(error))
        try:
            self._record.state("STARTING", "fetching what it needs")
            self._record.save(started=self._record.status.started or now())
            self._fetch()
            self._record.state("RUNNING")
            return self._judge(self._train_to_the_end(places))
        except Stopped as stopped:
            return _stopped(stopped.why)
        except ContractError as error:
            return Outcome("FAILED", str(error))
        finally:
            places.release()

    def _wait_in_line(self) -> line.Places:
        there = line.accelerators()
        count = max(1, self._spec.accelerators)
        if self._spec.accelerators > there:
            raise ContractError(
                f"The run asks for {self._spec.accelerators} accelerators, this machine has {there}"
            )
        ticket = line.join(self._home.locks)
        try:
            told = -1
            while (places := ticket.try_take(count, max(1, there))) is None:
                ahead = ticket.ahead()
                if ahead != told:
                    waits = f"waits for {ahead} other runs" if ahead else "next in line"
                    self._record.state("QUEUED", waits)
                    told = ahead
                self._check()
                time.sleep(self._limits.poll_s)
        except BaseException:
            ticket.leave()
            raise
        return places

    def _fetch(self) -> None:
        """In a thread, so that a run can be stopped while a transfer hangs. ContractError says what is missing."""

        def tell(done: int, total: int) -> None:
            if total:
                self._record.events.progress("fetch", done, total, "files")

        def again(error: Exception, wait_s: float) -> None:
            self._record.events.log(f"{error}; tried again in {wait_s:.0f} s", level="warning")

        attempts = Attempts(tell=again)
        pool = ThreadPoolExecutor(1, thread_name_prefix="fetch")
        fetching = pool.submit(
            lambda: fetch(self._spec, self._home, open_store(self._spec.store, attempts=attempts), tell)
        )
        try:
            while not wait([fetching], self._limits.poll_s).done:
                self._check()
            fetching.result()
        except (StoreError, ContractError, OSError) as error:
            raise ContractError(f"What the run needs can't be fetched: {error}") from error
        finally:
            pool.shutdown(wait=False)

    def _train_to_the_end(self, places: line.Places) -> End:
        """A training that somebody kills goes on from what it has kept. One killed for memory would be killed again."""
        end = self._train(places)
        for _ in range(_BEGUN_AGAIN):
            if end.exit_code != -signal.SIGKILL or end.why or end.out_of_memory:
                break
            self._record.events.log(
                "The training was killed; it goes on from what it has kept", level="warning"
            )
            end = self._train(places)
        return end

    def _train(self, places: line.Places) -> End:
        began, used = time.monotonic(), self._record.supervisor.used_s
        try:
            return training_process.train(
                self._command,
                self._folder,
                accelerators=places.numbers if line.accelerators() else [],
                keep=[*places.descriptors, self._lock],
                limits=self._limits,
                remaining_s=self._spec.max_hours * 3600 - used,
                stop=self._why,
                tick=self._read_news,
            )
        finally:
            spent = used + time.monotonic() - began
            self._record.remember(dataclasses.replace(self._record.supervisor, used_s=spent))

    def _judge(self, end: End) -> Outcome:
        whole = all((self._folder.result / name).is_file() for name in RESULT[self._spec.job])
        trained = end.exit_code == 0 and whole
        self._record.remember(
            dataclasses.replace(self._record.supervisor, trained=trained, exit_code=end.exit_code)
        )
        if trained:
            return Outcome("SUCCEEDED", exit_code=0)
        if end.why == "cancelled":
            return Outcome("CANCELLED", "cancelled", end.exit_code)
        if end.why == "interrupted" or (not end.why and end.exit_code == INTERRUPTED_EXIT):
            return Outcome("INTERRUPTED", "the machine is being taken away", end.exit_code)
        if end.why == "overtime":
            message = f"Stopped after its max_hours of {self._spec.max_hours:g}"
        elif end.why == "hung":
            message = f"Stopped: no sign of life for {self._limits.hang_s:g} s"
        elif end.exit_code == 0:
            message = "The training ended without a result"
        elif end.exit_code == UNUSABLE_EXIT and self._news.error:
            message = self._news.error
        else:
            message = in_words(end)
        return Outcome("FAILED", message, end.exit_code, tail(self._folder.log))

    def _end(self, outcome: Outcome) -> State:
        """Publish what there is and say how it ended; the state that it really came to."""
        self._read_news()
        if outcome.state == "INTERRUPTED":
            return self._interrupt(outcome)
        if outcome.state == "SUCCEEDED":
            self._record.save(message="publishing the result")
        self._record.say(outcome.state, outcome.message)
        self._publisher.stop()
        manifest = self._publisher.finish(
            outcome.state,
            with_result=outcome.state == "SUCCEEDED",
            patience_s=self._limits.publish_s,
            wanted=lambda: self._why() != "interrupted",
            tell=lambda files, size: self._record.events.emit("published", files=files, bytes=size),
        )
        if manifest is None and self._why() == "interrupted":
            return self._interrupt(dataclasses.replace(outcome, message="interrupted while publishing"))
        message = outcome.message
        if manifest is None:
            message = (
                f"{message} The result is on the machine only: the store refused it all the time".strip()
            )
        self._record.save(
            state=outcome.state,
            message=message,
            finished=now(),
            exit_code=outcome.exit_code,
            log_tail=outcome.log_tail,
            published=manifest is not None,
        )
        self._publisher.send_status(patience_s=self._limits.grace_s)
        return outcome.state

    def _interrupt(self, outcome: Outcome) -> State:
        self._record.state("INTERRUPTED", outcome.message)
        self._record.save(exit_code=outcome.exit_code)
        if self._publisher.stop(patience_s=self._limits.grace_s):
            self._publisher.send(patience_s=self._limits.grace_s)
        return "INTERRUPTED"

    def _read_news(self) -> None:
        self._news.read()
        if self._news.step != self._record.status.step:
            self._record.save(step=self._news.step)

    def _check(self) -> None:
        if why := self._why():
            raise Stopped(why)

    def _why(self) -> Why:
        if cancel_mark(self._folder).exists():
            return "cancelled"
        return "interrupted" if self._asked.is_set() else ""

    def _warn_of_the_store(self, text: str) -> None:
        self._record.events.log(text, level="warning")


def _stopped(why: Why) -> Outcome:
    if why == "cancelled":
        return Outcome("CANCELLED", "cancelled")
    return Outcome("INTERRUPTED", "the machine is being taken away")
