"""A run that says nothing: is it a long epoch, or does nothing move any more?"""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.workflows.clock import Clock
from orchestrator.workflows.runs.overview import called
from orchestrator.workflows.workspace import Workspace
from remote.contract.run_spec import RunSpec
from remote.contract.wording import duration

LOOK_S = (
    120.0  # without a word of the run, until its supervisor is looked at; it writes its status twice a minute
)


class Watch:
    """Says when nothing moves any more: no word came, and the supervisor of the run has not written its status meanwhile.

    Only our own clock is asked, and only whether the status changes: the machine's clock may be wrong.
    """

    def __init__(self, workspace: Workspace, spec: RunSpec, clock: Clock) -> None:
        self._workspace, self._spec, self._clock = workspace, spec, clock
        self.came()

    def came(self) -> None:
        """A word of the run."""
        self._since = self._looked = self._clock.now()
        self._word = ""

    def look(self, last_word: Callable[[], str]) -> None:
        """Now and then. The last word of the supervisor is "" when it need not say any."""
        now = self._clock.now()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        word = last_word()
        if not word or word != self._word:
            self._word, self._since = word, now
            return
        name = called(self._workspace, self._spec.run_id)
        self._workspace.progress.warn(
            f"Nothing moves: the supervisor of {self._spec.run_id} on {self._spec.machine} has said nothing for "
            f"{duration(now - self._since)} and seems frozen. tlvm cancel {name} asks it to end; tlvm down --force ends "
            f"the machine, and tlvm attach --recover {name} then goes on elsewhere"
        )
