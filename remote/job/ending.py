"""How an attempt of a run ends: what it came to is published and said, or kept for the attempt that goes on."""

from __future__ import annotations

import dataclasses
import sys
import traceback
from collections.abc import Callable

from remote.contract.layout import RunFolder
from remote.contract.run_spec import RunSpec
from remote.contract.run_status import PUBLISHING, ResultManifest, State
from remote.job.asked import forget_environment
from remote.job.beside import beside
from remote.job.outcome import Outcome, without_result
from remote.job.publish import Publisher, now
from remote.job.reasons import Reasons
from remote.job.record import Record
from remote.job.training_process import TAIL_LINES, Limits
from remote.store import StoreError


class Ending:
    """Of one attempt, whose `publisher` works in the background until then.

    alive       called all the time while the result is published
    """

    def __init__(
        self,
        spec: RunSpec,
        folder: RunFolder,
        record: Record,
        publisher: Publisher,
        reasons: Reasons,
        limits: Limits,
        *,
        alive: Callable[[], None],
    ) -> None:
        self._spec = spec
        self._folder = folder
        self._record = record
        self._publisher = publisher
        self._reasons = reasons
        self._limits = limits
        self._alive = alive

    def come_to(self, outcome: Outcome) -> State:
        """Publish what there is and say how it ended; the state that it really came to. Superseded"""
        if self._publisher.superseded:
            return self.stand_back(self._publisher.superseded)
        if outcome.state == "INTERRUPTED":
            return self._interrupt(outcome)
        self._decide(outcome)
        if outcome.state == "SUCCEEDED":
            self._record.save(message=PUBLISHING)
        self._record.say(outcome.state, outcome.message)
        manifest = beside(lambda: self._publish(outcome.state), self._alive, poll_s=self._limits.poll_s)
        if manifest is None and self._reasons.why() == "interrupted":
            return self._interrupt(dataclasses.replace(outcome, message="interrupted while publishing"))
        self._record.close(
            outcome.state,
            message=without_result(outcome.message) if manifest is None else outcome.message,
            finished=now(),
            exit_code=outcome.exit_code,
            log_tail=outcome.log_tail,
            published=manifest is not None,
        )
        self._publisher.send_status(patience_s=self._limits.grace_s)
        return outcome.state

    def stand_back(self, why: str) -> State:
        """Another attempt speaks for this run: nothing of this one may reach the store any more."""
        self._publisher.stop(patience_s=self._limits.grace_s)
        self._record.state("CANCELLED", why)
        self._record.close("CANCELLED", finished=now(), published=True)
        forget_environment(self._folder)
        return "CANCELLED"

    def break_down(self, error: BaseException) -> None:
        """A mistake of ours ends it, and not the training."""
        last = "".join(traceback.format_exception(error)).splitlines()[-TAIL_LINES:]
        broke = Outcome("FAILED", f"The supervisor broke: {error!r}", log_tail=last)
        self._decide(self._record.supervisor.outcome or broke)
        self._record.state("FAILED", broke.message)
        self._record.close("FAILED", finished=now(), log_tail=last)
        if self._publisher.stop(patience_s=self._limits.grace_s):
            self._publisher.send(patience_s=self._limits.grace_s)

    def _decide(self, outcome: Outcome) -> None:
        """Whatever happens from here on, the run is never trained again; so it needs no secrets, published or not."""
        forget_environment(self._folder)
        self._record.remember(dataclasses.replace(self._record.supervisor, outcome=outcome))

    def _publish(self, state: State) -> ResultManifest | None:
        manifest = self._publisher.finish(
            state,
            with_result=state == "SUCCEEDED",
            patience_s=self._limits.publish_s,
            wanted=lambda: self._reasons.why() != "interrupted",
            tell=lambda files, size: self._record.events.emit("published", files=files, bytes=size),
        )
        if manifest is not None:
            self._forget_checkpoints()
        return manifest

    def _forget_checkpoints(self) -> None:
        """Only a run that goes on needs them."""
        try:
            self._publisher.forget_checkpoints()
        except StoreError as error:  # the store's own rule takes them after some days
            print(f"The checkpoints of {self._spec.run_id} stay in the store: {error}", file=sys.stderr)

    def _interrupt(self, outcome: Outcome) -> State:
        self._record.state("INTERRUPTED", outcome.message)
        self._record.close("INTERRUPTED", exit_code=outcome.exit_code)
        if self._publisher.stop(patience_s=self._limits.grace_s):
            self._publisher.send(patience_s=self._reasons.patience_s())
        return "INTERRUPTED"
