"""`python -m orchestrator.render.json_schema > docs/json.md`: what `--json` prints, written from the results themselves."""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from pathlib import Path

from orchestrator.datasets.packs.collect import Collected
from orchestrator.render.console import SCHEMA
from orchestrator.workflows.data.datasets import DatasetSummary
from orchestrator.workflows.data.diff import DatasetDiff
from orchestrator.workflows.data.download import DownloadResult
from orchestrator.workflows.data.remove import DatasetRemoved
from orchestrator.workflows.data.show import DatasetShown
from orchestrator.workflows.data.upload import UploadResult
from orchestrator.workflows.data.weights import WeightsResult
from orchestrator.workflows.demo import DemoResult
from orchestrator.workflows.machines.authorize import AuthorizeResult
from orchestrator.workflows.machines.down import DownResult
from orchestrator.workflows.machines.gc import GcResult
from orchestrator.workflows.machines.power import ExtendResult, StartResult, StopResult
from orchestrator.workflows.machines.ssh import SshResult
from orchestrator.workflows.machines.status import StatusResult
from orchestrator.workflows.machines.up import UpResult
from orchestrator.workflows.results.compare import CompareResult
from orchestrator.workflows.results.evaluate import EvaluateResult
from orchestrator.workflows.results.predict import PredictResult
from orchestrator.workflows.results.pull import PullAllResult, PullResult
from orchestrator.workflows.runs.cancel import CancelResult
from orchestrator.workflows.runs.launch import DetachedRun
from orchestrator.workflows.runs.line import LineResult
from orchestrator.workflows.runs.overview import RunsResult
from orchestrator.workflows.runs.rehearse import RehearsalResult
from orchestrator.workflows.runs.remove import RunsRemoved
from orchestrator.workflows.runs.run import RunResult
from orchestrator.workflows.runs.tag import TagResult
from orchestrator.workflows.setup.doctor import DoctorResult
from orchestrator.workflows.setup.gpus import GpusResult
from orchestrator.workflows.setup.init import InitResult
from orchestrator.workflows.setup.quota import QuotaRequests, QuotaResult

RESULTS: Mapping[str, object] = {
    "init": InitResult,
    "up": UpResult,
    "status": StatusResult,
    "upload": list[UploadResult],
    "datasets": list[DatasetSummary],
    "download": DownloadResult,
    "datasets show": DatasetShown,
    "datasets diff": DatasetDiff,
    "datasets rm": DatasetRemoved,
    "datasets gc": Collected,
    "run": RunResult,
    "run A B, run all": LineResult,
    "run --rehearse": RehearsalResult,
    "attach": RunResult,
    "cancel": CancelResult,
    "runs": RunsResult,
    "runs tag": TagResult,
    "runs rm": RunsRemoved,
    "pull": PullResult,
    "pull --all": PullAllResult,
    "predict": PredictResult,
    "evaluate": EvaluateResult,
    "compare": CompareResult,
    "weights": WeightsResult,
    "weights push": WeightsResult,
    "weights list": WeightsResult,
    "ssh": SshResult,
    "authorize": AuthorizeResult,
    "extend": ExtendResult,
    "stop": StopResult,
    "start": StartResult,
    "down": DownResult,
    "gc": GcResult,
    "quota": QuotaResult,
    "quota request": QuotaRequests,
    "gpus": GpusResult,
    "doctor": DoctorResult,
    "demo": DemoResult,
}

_HEAD = f"""# What `--json` prints

One JSON object on stdout, whatever the command; progress stays on stderr. Each has `"schema": {SCHEMA}` and `"command"`,
and then the fields below; a list by itself stands under `"items"`. Fields may be added within a schema; none is
renamed, removed or changes its meaning. Times are ISO 8601 in UTC, paths are text.

An error is `{{"schema": {SCHEMA}, "command": ..., "error": {{"class", "exit_code", "what", "detail", "next"}}}}`, and the
process ends with that exit code (`tlvm COMMAND --help` lists them). `tlvm logs --json` prints an object a line,
`{{"schema": {SCHEMA}, "command": "logs", "line": ...}}`.

Ctrl-C ends the process with 130. Once a run has started, `run` and `evaluate` leave it going on its machine and print
what stands under "after Ctrl-C" below; else the object is an error of the class "Interrupt".

This page is written by `python -m orchestrator.render.json_schema`; a test compares them.
"""


def page() -> str:
    """The page, with a section for each command and each kind of object."""
    parts = [_HEAD]
    kinds: dict[str, type] = {}
    for command, result in RESULTS.items():
        items = typing.get_args(result)
        kind = items[0] if items else result
        parts.append(f"## {command}\n\n" + ("`items`: a list of\n\n" if items else "") + _fields(kind, kinds))
    parts.append("## after Ctrl-C\n\n" + _fields(DetachedRun, kinds))
    done: set[str] = set()
    while pending := sorted(set(kinds) - done):
        done.add(pending[0])
        parts.append(f"### {pending[0]}\n\n" + _fields(kinds[pending[0]], kinds))
    return "\n".join(parts)


def _fields(kind: typing.Any, kinds: dict[str, type]) -> str:
    hints = typing.get_type_hints(kind)
    lines = [f"* `{field.name}`: {_text(hints[field.name], kinds)}" for field in dataclasses.fields(kind)]
    return "\n".join(lines) + "\n"


def _text(hint: typing.Any, kinds: dict[str, type]) -> str:
    """A type as people say it; the kinds of objects it names are noted in `kinds`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join("null" if one is type(None) else _text(one, kinds) for one in arguments)
    if origin is typing.Literal:
        return " or ".join(f'"{one}"' for one in arguments)
    if origin in (list, tuple):
        return f"list of {_text(arguments[0], kinds)}"
    if origin is not None and issubclass(origin, Mapping):
        return f"object of {_text(arguments[1], kinds)}"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return " or ".join(f'"{one.value}"' for one in hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        kinds[hint.__name__] = hint
        return hint.__name__
    names = {
        str: "text",
        int: "integer",
        float: "number",
        bool: "true or false",
        Path: "text",
        datetime: "time",
    }
    return names.get(hint, "anything")


if __name__ == "__main__":
    sys.stdout.write(page())
