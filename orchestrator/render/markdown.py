"""Results as Markdown that GitHub renders, for the summary of a CI job: tables, and nothing that other people's text can turn.

Names of classes, images, machines and models come from a machine or a bucket. Each is one `escaped` piece of a line: it
ends no cell, begins no link, image, mention or formula, and carries no HTML.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from orchestrator.errors import TlvmError
from orchestrator.render import compare as compared
from orchestrator.render import lines
from orchestrator.render.figures import CLASSES_MAX, class_rows
from orchestrator.render.text import clean, duration, moment, paid, price
from orchestrator.workflows.machines.down import DownResult
from orchestrator.workflows.results.compare import CompareResult
from orchestrator.workflows.results.evaluate import EvaluateResult
from orchestrator.workflows.runs.attempts import AttemptLine, ended_as
from orchestrator.workflows.runs.line import LineResult
from orchestrator.workflows.runs.overview import RunsResult
from orchestrator.workflows.runs.rehearse import RehearsalResult
from orchestrator.workflows.runs.run import RunResult
from remote.contract import document
from remote.contract.document import ContractError
from remote.contract.metrics import Metrics
from remote.contract.wording import count

RUNS_MAX = 50
_LENGTH_MAX = 200  # of one piece of other people's text
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#!|~$&@^]|:(?=/))")
_ADDRESS = re.compile(r"(?i)\b(www)\.")


def run(result: RunResult) -> str:
    """The measured result of a run, or that it goes on by itself."""
    return _text(_run(result))


def line(result: LineResult) -> str:
    """A line of runs: what each scenario reached, for how much."""
    return _text(_line(result))


def rehearsal(result: RehearsalResult) -> str:
    """That it would run, and how it is done in earnest."""
    return _text(_rehearsal(result))


def runs(result: RunsResult) -> str:
    return _text(_runs(result))


def compare(result: CompareResult) -> str:
    return _text(_compare(result))


def evaluate(result: EvaluateResult) -> str:
    return _text(_evaluate(result))


def problem(error: TlvmError) -> str:
    """What failed, with which thing, what to do next: a job whose run failed has a summary, too."""
    return _text(_problem(error))


def escaped(text: object) -> str:
    """One line that shows these very characters, wherever it stands within a line."""
    plain = clean(text)
    if len(plain) > _LENGTH_MAX:
        plain = plain[:_LENGTH_MAX] + "…"
    return _ADDRESS.sub(r"\1\\.", _SPECIAL.sub(r"\\\1", plain))


def table(rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """The first row is the head; each cell is escaped."""
    for number, row in enumerate(rows):
        yield "| " + " | ".join(escaped(cell) for cell in row) + " |"
        if number == 0:
            yield "|" + "---|" * len(row)


def _text(shown: Iterable[str]) -> str:
    return "\n".join(shown) + "\n"


def _run(result: RunResult) -> Iterator[str]:
    what = f"{escaped(result.scenario)} on {escaped(result.dataset)} {escaped(result.dataset_version[:8])}"
    if result.detached:
        yield f"### {what}: started"
        yield ""
        yield f"`{_code(result.run_id)}` on {escaped(result.machine)}; it goes on by itself. {escaped(result.ends)}".rstrip()
        return
    yield from _measured(what, result.metrics)
    yield ""
    if result.unchanged:
        yield f"Unchanged since `{_code(result.run_id)}`: nothing was rented."
        yield ""
    yield from table(
        [
            ("run", result.run_id),
            ("model", f"{result.model}, {result.weights}"),
            ("took", duration(result.seconds)),
            ("estimated cost", price(result.cost)),
            ("machine", _machine(result.machine, result.down)),
        ]
    )
    yield from _attempts(result.attempts)


def _line(result: LineResult) -> Iterator[str]:
    if result.detached:
        earlier = [run.answered_by for run in result.runs if run.answered_by]
        started = count(len(result.runs) - len(earlier), "run")
        yield (
            f"### {started} started on {escaped(result.machine)}" if result.machine else "### No run started"
        )
        if earlier:
            yield ""
            names = ", ".join(f"`{_code(run_id)}`" for run_id in earlier)
            yield f"{count(len(earlier), 'earlier run')} did the same, or {'is' if len(earlier) == 1 else 'are'} at it: {names}."
        yield ""
        yield f"They go on by themselves. {escaped(result.ends)}".rstrip()
        return
    good = sum(run.result is not None for run in result.runs)
    of = count(len(result.runs), "run")
    yield f"### {good} of {of} succeeded{'' if result.machine else '; nothing was rented'}"
    yield ""
    head = ("scenario", "accuracy", "95 %", "took", "estimated cost", "run")
    yield from table([head, *(lines.row(run, run.run_id) for run in result.runs)])


def _rehearsal(result: RehearsalResult) -> Iterator[str]:
    yield f"### Rehearsed in {duration(result.seconds)} on {escaped(result.provider)}; nothing was rented"
    yield ""
    rows = [
        (one.scenario, f"{one.model}, {one.weights}", duration(one.seconds), _changes(one.changed))
        for one in result.runs
    ]
    yield from table([("scenario", "model", "took", "smaller"), *rows])
    yield ""
    yield f"Next: `{_code(result.next)}`"


def _changes(changed: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {how}" for name, how in changed.items())


def _machine(name: str, ended: DownResult | None) -> str:
    return f"{name}, which is gone" if ended and (ended.deleted or not ended.was_there) else name


def _attempts(attempts: Sequence[AttemptLine]) -> Iterator[str]:
    if len(attempts) < 2:
        return
    yield ""
    head = ("attempt", "machine", "place", "began", "at work", "estimated cost", "ended as")
    rows = [
        (one.number, one.machine, f"{one.place}{', spot' if one.spot else ''}", one.began, duration(one.seconds),
         paid(one.cost, one.price_per_hour), ended_as(one))
        for one in attempts
    ]  # fmt: skip
    yield from table([head, *rows])


def _measured(what: str, metrics: Mapping[str, Any]) -> Iterator[str]:
    """A head with the figure, and the figures of each class. What a machine wrote may be anything."""
    try:
        read = document.decode(Metrics, json.dumps(metrics), what="metrics.json")
        shown = [*_figures(what, read)]
    except (ContractError, StopIteration, RuntimeError, IndexError, ArithmeticError, ValueError) as error:
        shown = [f"### {what}", "", f"Its figures can't be read: {escaped(error)}"]
    yield from shown


def _figures(what: str, metrics: Metrics) -> Iterator[str]:
    found = metrics.result
    low, high = found.accuracy_interval
    yield f"### {what}: {found.accuracy:.3f} (95 %: {low:.3f} – {high:.3f})"
    yield ""
    yield (
        f"{found.correct:,} of {found.n:,} {escaped(found.split)} images right, which chose {escaped(found.chose)}; "
        f"guessing {found.guessing:.3f}; calibration error {found.calibration_error:.3f}; "
        f"{metrics.trained_parameters:,} of {metrics.trained_parameters + metrics.frozen.parameters:,} parameters trained."
    )
    if metrics.cut_short:
        yield ""
        yield f"Its max_hours were over {escaped(metrics.cut_short)}: a longer `--max-hours` gives it more."
    yield ""
    yield from table(class_rows(found))
    if len(found.classes) > CLASSES_MAX:
        yield ""
        yield f"... and {len(found.classes) - CLASSES_MAX} more classes in metrics.json"


def _runs(result: RunsResult) -> Iterator[str]:
    if not result.runs:
        yield f"There is no run in {escaped(result.store)} yet."
        return
    head = ("run", "state", "model", "dataset", "created", "took", "")
    rows = []
    shown = result.shown(RUNS_MAX)
    for one in shown:
        started, finished = moment(one.started or ""), moment(one.finished or "")
        took = duration((finished - started).total_seconds()) if started and finished else ""
        data = f"{one.dataset} {one.dataset_version[:8]}"
        rows.append(
            (one.run_id, one.state.lower(), one.model, data, one.created, took, one.doubt or one.message)
        )
    yield from table([head, *rows])
    if more := result.older + len(result.runs) - len(shown):
        yield ""
        yield f"... and {more} more that have ended"
    for text in result.problems:
        yield ""
        yield escaped(text)


def _compare(result: CompareResult) -> Iterator[str]:
    names = compared.names_of(result)
    yield f"### {escaped(compared.head(result))}"
    yield ""
    head = ("run", "trained", "accuracy (95 %)", "difference", "(95 %)", "p", "took")
    rows = [compared.row(names[one.run_id], one, len(result.runs)) for one in result.runs]
    yield from table([head, *rows])
    yield ""
    yield escaped(compared.verdict(result, names))


def _evaluate(result: EvaluateResult) -> Iterator[str]:
    what = f"{escaped(result.run_id)} on {escaped(result.split)} of {escaped(result.dataset)} "
    yield from _measured(what + escaped(result.dataset_version[:8]), result.metrics)
    if result.left_out:
        yield ""
        yield f"{count(result.left_out, 'image')} left out: the model was trained on them."
    if result.adjusted:
        yield ""
        yield f"At the shares given: accuracy {result.adjusted.accuracy:.3f} ({result.adjusted.before:.3f} as decided before)."
        yield ""
        rows = [
            (one.name, f"{one.share:.3g}", _share(one.recall), _share(one.precision))
            for one in result.adjusted.classes
        ]
        yield from table([("class", "share", "recall", "precision"), *rows])


def _problem(error: TlvmError) -> Iterator[str]:
    yield f"### {escaped(error.what)}"
    for line in error.detail.splitlines()[:30]:
        yield f"> {escaped(line)}  "
    if error.next:
        yield ""
        yield f"Next: {escaped(error.next)}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _code(text: str) -> str:
    return clean(text).replace("`", "'")
