"""`tlvm run A B C`, `tlvm run all`: scenarios in one line on one machine, which share what it has fetched and computed.

All are started at once and wait on the machine, in order, so the line goes on without this computer. Here they are
followed one after the other; one that fails keeps none of the others from being followed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.config import nearest
from orchestrator.errors import ConfigError, TlvmError
from orchestrator.providers.base import Machine
from orchestrator.workflows.machines.up import ensure
from orchestrator.workflows.results.result import RunResult, collected, started
from orchestrator.workflows.runs.documents import StoredRun
from orchestrator.workflows.runs.launch import Detached, ship
from orchestrator.workflows.runs.overview import called
from orchestrator.workflows.runs.recover import Recovery, follow_through
from orchestrator.workflows.runs.run import begin
from orchestrator.workflows.runs.unchanged import answer, unchanged_each
from orchestrator.workflows.runs.wish import Wish, data_and_weights, initial, resolve
from orchestrator.workflows.workspace import Workspace
from remote.contract import scenarios
from remote.contract.run_spec import RunSpec, WeightsRef

ALL = "all"
# What a program should learn of several ends: what failed for good, before what may still go on.
_WORST_FIRST = (1, 9, 11, 5, 6, 2, 10, 4, 7, 8, 12, 3, 0)


@dataclass(frozen=True)
class LineError:
    """Why a run of the line has no result here."""

    kind: str  # the class of the error: "RunFailed"
    exit_code: int
    what: str
    detail: str
    next: str


@dataclass(frozen=True)
class LineRun:
    run_id: str
    scenario: str
    result: RunResult | None
    error: LineError | None  # None when it has a result
    answered_by: str = ""  # the earlier run that did the same, which is this one; "" where one was started


@dataclass(frozen=True)
class LineResult:
    machine: str  # "" where none was asked for
    detached: bool
    runs: list[LineRun]  # in the order of the line
    exit_code: int = 0  # of the worst
    ends: str = ""  # detached on a machine of its own: what will end it


@dataclass(frozen=True)
class Line:
    """The scenarios of one line, each with its own parameters."""

    scenarios: list[str] = field(default_factory=list)
    parameters: dict[str, dict[str, Any]] = field(default_factory=dict)

    @staticmethod
    def of(names: Sequence[str], given: Mapping[str, Any]) -> Line:
        """A parameter goes to those scenarios that know it. ConfigError when none does, or a scenario comes twice."""
        wanted = list(scenarios.SCENARIOS) if list(names) == [ALL] else list(names)
        for name in wanted:
            if name not in scenarios.SCENARIOS:
                raise ConfigError(
                    f"There is no scenario {name[:80]!r}", next=nearest(name, [*scenarios.SCENARIOS, ALL])
                )
            if wanted.count(name) > 1:
                raise ConfigError(f"{name} stands twice in the line", next="Name each scenario once.")
        known = {
            name: {parameter.name for parameter in scenarios.SCENARIOS[name].parameters} for name in wanted
        }
        for key in given:
            if not any(key in names for names in known.values()):
                raise ConfigError(
                    f"No scenario of the line has a parameter {key[:80]!r}",
                    next=nearest(key, sorted(set().union(*known.values()))),
                )
        return Line(
            wanted,
            {name: {key: given[key] for key in given if key in known[name]} for name in wanted},
        )


def run_line(
    workspace: Workspace,
    line: Line,
    *,
    data: Path | None = None,
    if_changed: bool = False,
    detach: bool = False,
    recover: bool | None = None,
    environment: Mapping[str, str] | None = None,
    on_event: Callable[[dict[str, Any]], None] | None = None,
    run_id: str | None = None,
    bring_up: Callable[[Workspace], Machine] = ensure,
) -> LineResult:
    """Start all, follow one after the other; arguments as of `run`, `run_id` of the first one that is started.

    if_changed      scenarios that an earlier run answers are not started; with nothing to start, no machine is asked for
    Detached        on Ctrl-C once one has started: all of them go on
    and what `run` raises before the first one has started; later, each error belongs to its run
    """
    wishes, given = wishes_of(workspace, line, data), environment or {}
    recovery = Recovery(recover, environment=given)
    earlier = unchanged_each(workspace, wishes, given) if if_changed else [None] * len(wishes)
    new = [wish for wish, run in zip(wishes, earlier, strict=True) if run is None]
    specs = _begun(workspace, new, recovery, run_id, bring_up) if new else []
    starting = iter(specs)
    places = [run or next(starting) for run in earlier]
    runs: list[LineRun] = []
    for number, place in enumerate(places):
        if not detach:
            workspace.progress.say("line", f"{number + 1} of {len(places)}: {_spec(place).run_id}")
        try:
            runs.append(_told(workspace, place, recovery, detach, on_event))
        except KeyboardInterrupt as error:
            rest = [later for later in places[number + 1 :] if isinstance(later, RunSpec)]
            raise _left(workspace, error, rest) from None
    codes = {run.error.exit_code if run.error else 0 for run in runs}
    return LineResult(
        machine=specs[0].machine if specs else "",
        detached=any(run.result.detached for run in runs if run.result),
        runs=runs,
        exit_code=next((code for code in _WORST_FIRST if code in codes), max(codes)),
    )


def wishes_of(workspace: Workspace, line: Line, data: Path | None) -> list[Wish]:
    """Everything is looked up, and a folder is uploaded; no machine is asked. In a line, weights are for those that begin with some."""
    run = workspace.settings.run
    resolved = [resolve(workspace, name, line.parameters[name]) for name in line.scenarios]

    def weights() -> list[WeightsRef]:
        wanted = ["none" if name == "from-scratch" else run.weights for name in line.scenarios]
        return [
            initial(workspace, name, run.model, one) for name, one in zip(line.scenarios, wanted, strict=True)
        ]

    dataset, begin_with = data_and_weights(workspace, data, weights)
    return [
        Wish(name, parameters, dataset, begins_with, run.model, run.seed, run.max_hours)
        for name, parameters, begins_with in zip(line.scenarios, resolved, begin_with, strict=True)
    ]


def _begun(
    workspace: Workspace,
    wishes: Sequence[Wish],
    recovery: Recovery,
    run_id: str | None,
    bring_up: Callable[[Workspace], Machine],
) -> list[RunSpec]:
    """All of them started, on one machine."""
    machine = bring_up(workspace)
    specs: list[RunSpec] = []
    with workspace.connect(machine) as connection:
        shipped = ship(workspace, machine, connection)
        try:
            for wish in wishes:
                first = run_id if not specs else None
                specs.append(begin(workspace, wish, machine, connection, shipped, recovery, run_id=first))
        except KeyboardInterrupt as error:
            raise _detached(workspace, specs, error, len(wishes)) from None
        except TlvmError as error:
            if specs:
                error.next = f"{error.next} {_what_goes_on(workspace, specs)}".strip()
            raise
    return specs


def _told(
    workspace: Workspace,
    place: RunSpec | StoredRun,
    recovery: Recovery,
    detach: bool,
    on_event: Callable[[dict[str, Any]], None] | None,
) -> LineRun:
    """One that was started, or the earlier run that is the answer: its result, or why it has none here."""
    spec = _spec(place)
    result, lost = None, None
    try:
        result = _result(workspace, place, recovery, detach, on_event)
    except TlvmError as error:
        workspace.progress.warn(f"{spec.run_id}: {error.what}")
        lost = LineError(type(error).__name__, error.exit_code, error.what, error.detail, error.next)
    earlier = spec.run_id if isinstance(place, StoredRun) else ""
    return LineRun(spec.run_id, spec.scenario, result, lost, earlier)


def _result(
    workspace: Workspace,
    place: RunSpec | StoredRun,
    recovery: Recovery,
    detach: bool,
    on_event: Callable[[dict[str, Any]], None] | None,
) -> RunResult:
    if isinstance(place, StoredRun):
        return answer(workspace, place, recovery, detach=detach, on_event=on_event)
    if detach:
        return started(place)
    status = follow_through(workspace, place, None, on_event, recovery=recovery)
    return collected(workspace, place, status)


def _spec(place: RunSpec | StoredRun) -> RunSpec:
    return place.spec if isinstance(place, StoredRun) else place


def _detached(
    workspace: Workspace, specs: Sequence[RunSpec], error: KeyboardInterrupt, of: int
) -> KeyboardInterrupt:
    """Ctrl-C while they were being started."""
    begun = [spec.run_id for spec in specs]
    if isinstance(error, Detached) and error.run.run_id not in begun:
        begun.append(error.run.run_id)
    if not begun:
        return error
    found = Detached(begun[0], name=called(workspace, begun[0]))
    if len(begun) > 1:
        found.add(f"{', '.join(begun[1:])} go on too.")
    if len(begun) < of:
        found.add(f"{of - len(begun)} of {of} were not started.")
    return found


def _left(workspace: Workspace, error: KeyboardInterrupt, rest: Sequence[RunSpec]) -> KeyboardInterrupt:
    """Ctrl-C while one of them was followed, or brought here: those behind it go on all the same."""
    if isinstance(error, Detached) and rest:
        error.add(_what_goes_on(workspace, rest))
    if isinstance(error, Detached) or not rest:
        return error
    found = Detached(rest[0].run_id, name=called(workspace, rest[0].run_id))
    if rest[1:]:
        found.add(_what_goes_on(workspace, rest[1:]))
    return found


def _what_goes_on(workspace: Workspace, specs: Sequence[RunSpec]) -> str:
    names = ", ".join(called(workspace, spec.run_id) for spec in specs)
    return f"In the line behind it, and on the machine all the same: {names}; tlvm status shows them."
