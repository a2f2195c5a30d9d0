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

from orchestrator.datasets.collect import Collected
from orchestrator.render.console import SCHEMA
from orchestrator.workflows.authorize import AuthorizeResult
from orchestrator.workflows.cancel import CancelResult
from orchestrator.workflows.compare import CompareResult
from orchestrator.workflows.dataset_care import DatasetDiff, DatasetRemoved, DatasetShown
from orchestrator.workflows.datasets import DatasetSummary
from orchestrator.workflows.demo import DemoResult
from orchestrator.workflows.doctor import DoctorResult
from orchestrator.workflows.down import DownResult
from orchestrator.workflows.download import DownloadResult
from orchestrator.workflows.evaluate import EvaluateResult
from orchestrator.workflows.gc import GcResult
from orchestrator.workflows.gpus import GpusResult
from orchestrator.workflows.init import InitResult
from orchestrator.workflows.launch import DetachedRun
from orchestrator.workflows.line import LineResult
from orchestrator.workflows.power import ExtendResult, StartResult, StopResult
from orchestrator.workflows.predict import PredictResult
from orchestrator.workflows.pull import PullAllResult, PullResult
from orchestrator.workflows.quota import QuotaRequests, QuotaResult
from orchestrator.workflows.rehearse import RehearsalResult
from orchestrator.workflows.run import RunResult
from orchestrator.workflows.run_care import RunsRemoved, TagResult
from orchestrator.workflows.runs import RunsResult
from orchestrator.workflows.ssh import SshResult
from orchestrator.workflows.status import StatusResult
from orchestrator.workflows.up import UpResult
from orchestrator.workflows.upload import UploadResult
from orchestrator.workflows.weights import WeightsResult

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
and then the fields below; lists stand under `"items"`. Fields may be added within a schema; none is renamed, removed or
changes its meaning. Times are ISO 8601 in UTC, paths are text.

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
