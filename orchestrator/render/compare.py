"""Several runs side by side: their figures, how they differ from the first, and what to make of it."""

from __future__ import annotations

from orchestrator.render.console import Screen
from orchestrator.render.figures import percent
from orchestrator.render.text import columns, duration
from orchestrator.workflows.results.compare import ComparedRun, CompareResult
from orchestrator.workflows.results.looks import ordinal
from orchestrator.workflows.runs.overview import short
from remote.contract.wording import count

_POINT = 0.0005  # less than a tenth of a percentage point is not worth a word


def compared(screen: Screen, result: CompareResult) -> None:
    screen.line(head(result), style="bold")
    names = names_of(result)
    for line, run in zip(
        columns([row(names[run.run_id], run, len(result.runs)) for run in result.runs]),
        result.runs,
        strict=True,
    ):
        screen.line(line, style="green" if run.run_id == result.take else "")
    screen.line(verdict(result, names))
    screen.next(f"tlvm predict {short(result.take, names)} IMAGES")


def head(result: CompareResult) -> str:
    images = f"the same {count(result.images, f'{result.split} image')}"
    if result.groups is not None:
        images += f" in {count(result.groups, 'group')}"
    if result.left_out:
        images += f" ({result.left_out:,} that not all of them saw left out)"
    parts = [f"{result.dataset} {result.dataset_version[:8]}", images]
    if result.looks:
        parts.append(f"{ordinal(result.looks)} look")
    luck = (
        f": about {100 * result.luck:.1f} points of the best figure may be luck"
        if result.luck >= _POINT
        else ""
    )
    return ", ".join(parts) + luck


def names_of(result: CompareResult) -> dict[str, str]:
    """The scenario, and what it takes to tell runs of one scenario apart."""
    scenarios = [run.scenario for run in result.runs]
    return {
        run.run_id: run.scenario
        if scenarios.count(run.scenario) == 1
        else f"{run.scenario} …{run.run_id[-4:]}"
        for run in result.runs
    }


def row(name: str, run: ComparedRun, runs: int) -> tuple[str, ...]:
    share = 100 * run.trained_parameters / run.total_parameters if run.total_parameters else 0
    low, high = run.accuracy_interval
    difference = interval = p = "–"
    if run.difference is not None and run.difference_interval is not None and run.p is not None:
        below, above = run.difference_interval
        difference = _points(run.difference)
        interval = f"({_points(below)} … {_points(above)})"
        p = f"p {_p(run.p)}"
        if runs > 2 and run.p_corrected is not None:
            p += f" (Holm: {_p(run.p_corrected)})"
    else:
        interval = p = ""
    return (
        name,
        f"{run.trained_parameters:,} trained ({percent(share)})",
        f"{run.accuracy:.3f} ({low:.3f} – {high:.3f})",
        difference,
        interval,
        p,
        _took(run),
    )


def _took(run: ComparedRun) -> str:
    """A run that found features of an earlier one took less than it would by itself; one whose hours were over, too."""
    if run.cut_short:
        return f"{duration(run.seconds)} (its hours were over {run.cut_short})"
    if not run.kept:
        return duration(run.seconds)
    alone = f"about {duration(run.seconds_alone)}" if run.seconds_alone else "longer"
    return f"{duration(run.seconds)} ({alone} without the features kept from an earlier run)"


def verdict(result: CompareResult, names: dict[str, str]) -> str:
    runs = {run.run_id: run for run in result.runs}
    take, first, best = names[result.take], result.runs[0], runs[result.best]
    if result.differ:
        if result.take == result.best:
            return f"{take} is the best, by more than chance."
        return (
            f"{take} is no worse than the best, {names[result.best]}, as far as these images tell; and quicker"
            f"{_not_whole(runs[result.take])}."
        )
    other = best if best is not first else max(result.runs[1:], key=lambda run: run.accuracy)
    needed = (
        f"; telling {first.accuracy:.3f} from {other.accuracy:.3f} takes about {_rounded(result.images_needed):,} "
        f"{result.split} images"
        if result.images_needed
        else ""
    )
    return f"No difference is larger than chance{_corrected(result)}{needed}. Take the quickest: {take}{_not_whole(runs[result.take])}."


def _not_whole(run: ComparedRun) -> str:
    return (
        ""
        if run.seconds_alone
        else " (whose own time is not known: an earlier run had computed its features)"
    )


def _corrected(result: CompareResult) -> str:
    """That the p of a single pair counts for less where several are tested."""
    tested = [run for run in result.runs if run.p is not None and run.p_corrected is not None]
    if len(tested) < 2:
        return ""
    least = min(tested, key=lambda run: run.p or 0.0)
    return (
        f" (the smallest p, {_p(least.p or 0.0)}, is {_p(least.p_corrected or 0.0)} by Holm's correction for "
        f"{len(tested)} comparisons)"
    )


def _p(value: float) -> str:
    """ "< 0.001", "0.049", "0.31"."""
    return "< 0.001" if value < 0.001 else f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def _points(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")


def _rounded(number: int) -> int:
    """To two digits."""
    return int(float(f"{number:.2g}"))
