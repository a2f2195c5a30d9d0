"""What was asked of `tlvm run`, and which way it goes: one run, several in a line, or a rehearsal of them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.errors import ConfigError
from orchestrator.workflows.runs.ephemeral_run import run_ephemeral
from orchestrator.workflows.runs.line import ALL, Line, LineResult, run_line, wishes_of
from orchestrator.workflows.runs.rehearse import RehearsalResult, rehearse
from orchestrator.workflows.runs.run import RunResult, run
from orchestrator.workflows.runs.secrets import of_run
from orchestrator.workflows.runs.wish import Repeat, scenario_of, wish_of
from orchestrator.workflows.workspace import Workspace

_REPLACES = ("dataset", "model", "weights", "seed", "max_hours")  # in the run that is repeated


@dataclass(frozen=True)
class Request:
    """In the words of the command line; None, and what is empty, was not said."""

    scenarios: Sequence[str] = ()  # one; several, or "all", are a line
    spec: str | None = None  # a run to do again
    if_changed: bool = False
    rehearse: bool = False
    data: Path | None = None  # a folder to upload first
    dataset: str | None = None
    model: str | None = None
    weights: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)  # of the scenarios
    seed: int | None = None
    max_hours: float | None = None
    detach: bool = False
    recover: bool | None = None
    ephemeral: bool = False
    machine: str | None = None
    provider: str | None = None
    env: Sequence[str] = ()  # NAME or NAME=VALUE
    env_files: Sequence[Path] = ()

    @property
    def is_line(self) -> bool:
        return len(self.scenarios) > 1 or list(self.scenarios) == [ALL]

    @property
    def repeat(self) -> Repeat | None:
        if not self.spec:
            return None
        return Repeat(self.spec, frozenset(name for name in _REPLACES if getattr(self, name) is not None))


def fulfil(
    workspace: Workspace,
    request: Request,
    *,
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> RunResult | LineResult | RehearsalResult:
    """Do what was asked; model, weights, seed, hours, dataset, machine and provider are in the settings already.

    on_event        told everything that happens in the runs; text in it is hostile
    ConfigError     words of the request exclude each other
    and what `run`, `run_line`, `rehearse` and `run_ephemeral` raise
    """
    agree(request)
    environment = of_run(workspace, request.env, request.env_files)
    if request.rehearse:
        return _rehearsal(workspace, request, environment, on_event)
    if request.is_line:
        return _line(workspace, request, environment, on_event)
    return _one(workspace, request, environment, on_event)


def agree(request: Request) -> None:
    """ConfigError where words of it exclude each other, with what to write instead."""
    if request.spec and request.is_line:
        raise ConfigError(
            "--spec repeats one run, of one scenario",
            next=f"Leave the scenarios out: tlvm run --spec {request.spec}",
        )
    if not request.scenarios and not request.spec:
        raise ConfigError(
            "Which scenario?",
            next="For example: tlvm run fixed-extractor; tlvm run --spec RUN repeats a run.",
        )
    if request.ephemeral and request.machine:
        raise ConfigError(
            "--ephemeral makes a machine of its own, named by its run: --machine has no meaning for it",
            next="Leave one of them out.",
        )
    others = {"--if-changed": request.if_changed, "--detach": request.detach}
    for other in [name for name, said in others.items() if said and request.rehearse]:
        raise ConfigError(
            f"A rehearsal leaves nothing behind: {other} has no meaning for it",
            next=f"First with --rehearse, then without it and with {other}.",
        )


def in_earnest(request: Request) -> str:
    """The command that does what was rehearsed; values of variables are not shown."""
    named = {
        "--spec": request.spec, "--data": request.data, "--dataset": request.dataset, "--model": request.model,
        "--weights": request.weights, "--seed": request.seed, "--max-hours": request.max_hours,
        "--machine": request.machine, "--provider": request.provider,
    }  # fmt: skip
    several = {
        "--set": [f"{key}={value}" for key, value in request.parameters.items()],
        "--env": [_without_value(text) for text in request.env],
        "--env-file": request.env_files,
    }
    words = ["tlvm", "run", *request.scenarios]
    words += [word for option, value in named.items() if value is not None for word in (option, str(value))]
    words += [word for option, values in several.items() for value in values for word in (option, str(value))]
    if request.recover is not None:
        words.append("--recover" if request.recover else "--no-recover")
    if request.ephemeral:
        words.append("--ephemeral")
    return shlex.join(words)


def _without_value(variable: str) -> str:
    name, equals, _ = variable.partition("=")
    return f"{name}=..." if equals else name


def _rehearsal(
    workspace: Workspace,
    request: Request,
    environment: Mapping[str, str],
    on_event: Callable[[dict[str, Any]], None] | None,
) -> RehearsalResult:
    if request.is_line:
        wishes = wishes_of(workspace, Line.of(request.scenarios, request.parameters), request.data)
    else:
        wishes = [
            wish_of(
                workspace,
                _scenario(workspace, request),
                request.parameters,
                data=request.data,
                repeat=request.repeat,
                environment=environment,
            )
        ]
    return rehearse(workspace, wishes, next=in_earnest(request), environment=environment, on_event=on_event)


def _line(
    workspace: Workspace,
    request: Request,
    environment: Mapping[str, str],
    on_event: Callable[[dict[str, Any]], None] | None,
) -> LineResult:
    line = Line.of(request.scenarios, request.parameters)
    carry_out = partial(
        run_line,
        line=line,
        data=request.data,
        if_changed=request.if_changed,
        detach=request.detach,
        recover=request.recover,
        environment=environment,
        on_event=on_event,
    )
    return (
        run_ephemeral(workspace, line.scenarios[0], carry_out) if request.ephemeral else carry_out(workspace)
    )


def _one(
    workspace: Workspace,
    request: Request,
    environment: Mapping[str, str],
    on_event: Callable[[dict[str, Any]], None] | None,
) -> RunResult:
    scenario = _scenario(workspace, request)
    carry_out = partial(
        run,
        scenario=scenario,
        data=request.data,
        parameters=request.parameters,
        repeat=request.repeat,
        if_changed=request.if_changed,
        detach=request.detach,
        recover=request.recover,
        environment=environment,
        on_event=on_event,
    )
    return run_ephemeral(workspace, scenario, carry_out) if request.ephemeral else carry_out(workspace)


def _scenario(workspace: Workspace, request: Request) -> str:
    """That of a run that is repeated need not be said."""
    if request.repeat and not request.scenarios:
        return scenario_of(workspace, request.repeat)
    return request.scenarios[0]
