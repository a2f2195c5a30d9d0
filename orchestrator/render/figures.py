"""The figures of a run as a table that a person understands: what was measured, on what, how sure."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.render.text import columns, duration
from remote.contract.metrics import IMBALANCED, Doubt, Evaluation, Metrics
from remote.contract.wording import count

CLASSES_MAX = 20
CONFUSED_MAX = 3
SURE_MAX = 3  # mistakes that are named


def lines(metrics: Metrics, look: str = "") -> Iterator[str]:
    """Accuracy with n and interval, guessing, calibration; each class; what is most confused; the proof of frozen.

    look    which one at these images: "third look"
    """
    result = metrics.result
    low, high = result.accuracy_interval
    yield (
        f"accuracy {result.accuracy:.3f} ({result.correct:,} of {result.n:,}; 95 %: {low:.3f} – {high:.3f})"
        f"    guessing {result.guessing:.3f}"
        f"    calibration error {result.calibration_error_uncalibrated:.3f} → {result.calibration_error:.3f}"
    )
    if metrics.cut_short:
        yield (
            f"its max_hours were over {metrics.cut_short}: "
            f"tlvm run --spec {metrics.run_id[-4:]} --max-hours H does it with more"
        )
    if low <= result.guessing:
        yield "no better than guessing the most frequent class, as far as these images can tell"
    in_groups = f" in {count(result.groups, 'group')}" if result.groups is not None else ""
    yield f"measured on {result.split}: {count(result.n, 'image')}{in_groups} that chose {result.chose}" + (
        f", {look}" if look else ""
    )
    if metrics.temperature_from == "val" and metrics.reported != "val":
        yield "the temperature comes from val, which chose when training stopped"
    yield from columns(class_rows(result), indent="  ")
    if len(result.classes) > CLASSES_MAX:
        yield f"  ... and {len(result.classes) - CLASSES_MAX} more classes in metrics.json"
    if confused := _confused(result, metrics.classes):
        yield "most confused: " + "; ".join(confused)
    if sure := [f"{one.path} ({_doubt(one)})" for one in result.mistakes[:SURE_MAX]]:
        yield "surest mistakes: " + "; ".join(sure)
    doubtful = sum(one.doubtful_labels for one in metrics.evaluations)
    if doubtful:
        yield f"{count(doubtful, 'label')} to look at again: `doubtful` in metrics.json names them, none was left out"
    if metrics.imbalance > IMBALANCED:
        yield (
            f"unequal classes, {metrics.imbalance:.1f} to 1 in train: balanced accuracy {result.balanced_accuracy:.3f}"
            + ("; rare classes are favoured (`balance`)" if metrics.prior else "")
        )
    if metrics.excluded and not metrics.evaluates:
        yield f"{count(metrics.excluded, 'train image')} left out: val or test has the same"
    frozen = metrics.frozen
    total = metrics.trained_parameters + frozen.parameters
    share = 100 * metrics.trained_parameters / total if total else 0
    trained = f"trained {metrics.trained_parameters:,} of {total:,} parameters ({percent(share)})"
    proof = (
        f"; frozen part: {frozen.equal} of {frozen.tensors} tensors equal to the bit"
        if frozen.tensors
        else ""
    )
    yield trained + proof
    yield f"on {metrics.device}, {duration(sum(metrics.seconds.values()))}, {_speed(metrics)}"


def _speed(metrics: Metrics) -> str:
    if metrics.counters.images and not metrics.counters.forwarded:
        return "features from the cache"
    return f"{count(round(metrics.images_per_s), 'image')} a second"


def class_rows(result: Evaluation) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("class", "right", "recall", "95 %", "precision")]
    for one in sorted(result.classes, key=lambda one: one.recall if one.recall is not None else 2)[
        :CLASSES_MAX
    ]:
        interval = (
            f"{one.recall_interval[0]:.2f} – {one.recall_interval[1]:.2f}" if one.recall_interval else "–"
        )
        rows.append((one.name, f"{one.correct}/{one.n}", _share(one.recall), interval, _share(one.precision)))
    return rows


def _confused(result: Evaluation, classes: list[str]) -> list[str]:
    """ "maple taken for oak, 4 of 60": the largest cells beside the diagonal."""
    cells = [(number, is_, said) for is_, said, number in result.confusion if is_ != said]
    cells.sort(key=lambda cell: -cell[0])
    return [
        f"{classes[is_]} taken for {classes[said]}, {number} of {result.classes[is_].n}"
        for number, is_, said in cells[:CONFUSED_MAX]
    ]


def _doubt(one: Doubt) -> str:
    return f"{one.label} taken for {one.predicted}, {one.probability:.2f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def percent(share: float) -> str:
    """A share given in percent, with two significant digits below ten: "0.023 %", "4.1 %", "100 %"."""
    return f"{share:.0f} %" if share >= 10 else f"{share:.2g} %"
