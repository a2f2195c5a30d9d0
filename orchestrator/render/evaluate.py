"""A model measured on other images, or at another prevalence."""

from __future__ import annotations

from orchestrator.render.console import Screen
from orchestrator.render.runs import figure_lines
from orchestrator.render.text import columns
from orchestrator.workflows.results.evaluate import EvaluateResult
from orchestrator.workflows.results.prevalence import Adjusted
from orchestrator.workflows.runs.overview import short
from remote.contract.wording import count


def evaluated(screen: Screen, result: EvaluateResult) -> None:
    screen.line(
        f"{result.run_id}: {result.model}, {result.scenario}, measured on {result.split} of "
        f"{result.dataset} {result.dataset_version[:8]}",
        style="bold",
    )
    for number, line in enumerate(figure_lines(result.metrics, result.look, result.looks)):
        screen.line(f"   {line}", style="bold" if number == 0 else "")
    if result.left_out:
        screen.line(f"   {count(result.left_out, 'image')} left out: the model was trained on them")
    if result.adjusted:
        for line in _adjusted(result.adjusted):
            screen.line(f"   {line}")
    screen.next(f"tlvm compare {short(result.measured_by)} RUN     its files: {result.folder}")


def _adjusted(found: Adjusted) -> list[str]:
    rows: list[tuple[str, ...]] = [("class", "share", "recall", "95 %", "precision", "95 %")]
    rows += [
        (
            one.name,
            f"{one.share:.3g}",
            _share(one.recall),
            _interval(one.recall_interval),
            _share(one.precision),
            _interval(one.precision_interval),
        )
        for one in found.classes
    ]
    low, high = found.accuracy_interval
    below, above = found.before_interval
    return [
        f"at these shares: accuracy {found.accuracy:.3f} (95 %: {low:.3f} – {high:.3f}); with the decisions as they were "
        f"{found.before:.3f} ({below:.3f} – {above:.3f}); {count(found.changed, 'decision')} of {found.images:,} change",
        *columns(rows, indent="  "),
    ]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _interval(value: list[float] | None) -> str:
    return "–" if value is None else f"{value[0]:.2f} – {value[1]:.2f}"
