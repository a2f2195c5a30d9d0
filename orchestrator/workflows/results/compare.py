"""`tlvm compare RUN RUN ...`: models on the same images, with what is a difference and what may be luck."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.errors import ConfigError, DataError, NotFoundError, TlvmError
from orchestrator.workflows.data.datasets import load_manifest
from orchestrator.workflows.results.looks import looks
from orchestrator.workflows.results.measured import Measured, measured
from orchestrator.workflows.results.paired import Pair, holm, images_needed, luck, pair
from orchestrator.workflows.runs.overview import short
from orchestrator.workflows.workspace import Workspace
from remote.contract.dataset_manifest import Image
from remote.contract.intervals import grouped, wilson

LEVEL = 0.05
_BY_FEATURES = ("fixed-extractor", "initial-layers")  # whose features stay on their machine for later runs


@dataclass(frozen=True)
class ComparedRun:
    run_id: str  # whose model it is
    measured_by: str  # the run that measured it: itself, or one of `evaluate`
    scenario: str
    model: str
    dataset_version: str  # that it was measured on
    trained_parameters: int
    total_parameters: int
    correct: int
    accuracy: float
    accuracy_interval: list[float]  # 95 %
    difference: float | None  # of its accuracy, to the first run; None of the first one
    difference_interval: list[float] | None
    p: float | None  # McNemar's test against the first run
    p_corrected: float | None  # the same, made larger because several runs are tested (Holm)
    seconds: float  # that it took
    kept: int = (
        0  # images whose features an earlier run had computed on its machine, so that it was spared them
    )
    seconds_alone: float | None = (
        None  # that it would have taken without; an estimate where some were kept; None: unknown
    )
    cut_short: str = ""  # how far it came where its hours were over: "after 2 of 30 epochs"


@dataclass(frozen=True)
class CompareResult:
    dataset: str
    dataset_version: str  # of the first run
    split: str
    images: int  # that all of them were measured on
    left_out: int  # that some of them lack
    groups: int | None  # patients, slides ...; None where images stand alone
    looks: int  # at these images so far
    luck: float  # by which the best of so many seems better than it is
    runs: list[ComparedRun]
    differ: bool  # some difference is larger than chance, all tests together (Holm)
    images_needed: int | None  # to tell the first from the best other one
    best: str  # run id: the most accurate
    take: str  # run id: the quickest, by itself, of those that are not worse than the best


def compare(workspace: Workspace, runs: Sequence[str]) -> CompareResult:
    """Pull the runs that are not here, and compare them with the first one.

    ConfigError     fewer than two different runs
    DataError       they were not measured on the same images
    NotFoundError   no such run, or one that measured nothing
    """
    found = [measured(workspace, run) for run in runs]
    if len({one.run_id for one in found}) < max(2, len(runs)):
        raise ConfigError("Comparing takes two or more different runs", next="tlvm runs lists them.")
    by_image = _right_by_image(workspace, found)
    images = _common(found, by_image)
    groups = _groups(workspace, found[0], images)
    right = [[one[key] for key in images] for one in by_image]
    pairs = [pair(right[0], other, groups) for other in right[1:]]
    corrected = holm([one.p for one in pairs])
    best = max(range(len(found)), key=lambda index: (sum(right[index]), -_seconds(found[index])))
    against_best = [pair(right[best], other, groups) for other in right]
    worse = [p <= LEVEL for p in holm([one.p for one in against_best])]
    candidates = [index for index in range(len(found)) if not worse[index]]
    alone = [_alone(one, found) for one in found]
    first = found[0].metrics
    seen = len(looks(workspace.store, first.dataset, first.dataset_version, first.reported))
    return CompareResult(
        dataset=first.dataset,
        dataset_version=first.dataset_version,
        split=first.reported,
        images=len(images),
        left_out=len(set(itertools.chain(*by_image)) - set(images)),
        groups=len(set(groups)) if groups else None,
        looks=seen,
        luck=luck(pairs, max(seen, len(found))),
        runs=[
            _compared(one, flags, groups, against, p, seconds_alone)
            for one, flags, against, p, seconds_alone in zip(
                found, right, [None, *pairs], [None, *corrected], alone, strict=True
            )
        ],
        differ=any(p <= LEVEL for p in corrected) or any(worse),
        images_needed=images_needed(against_best[0]) if best else _nearest_needed(pairs),
        best=_model(found[best]),
        take=_model(found[min(candidates, key=lambda index: alone[index] or _seconds(found[index]))]),
    )


def _compared(
    run: Measured,
    right: Sequence[bool],
    groups: Sequence[str] | None,
    against: Pair | None,
    p_corrected: float | None,
    seconds_alone: float | None,
) -> ComparedRun:
    metrics, correct, n = run.metrics, sum(right), len(right)
    return ComparedRun(
        run_id=_model(run),
        measured_by=run.run_id,
        scenario=metrics.scenario,
        model=metrics.model,
        dataset_version=metrics.dataset_version,
        trained_parameters=metrics.trained_parameters,
        total_parameters=metrics.trained_parameters + metrics.frozen.parameters,
        correct=correct,
        accuracy=correct / n,
        accuracy_interval=grouped(right, groups) if groups else wilson(correct, n),
        difference=against.difference if against else None,
        difference_interval=against.interval if against else None,
        p=against.p if against else None,
        p_corrected=p_corrected,
        seconds=_seconds(run),
        kept=_kept(run),
        seconds_alone=seconds_alone,
        cut_short=metrics.cut_short,
    )


def _nearest_needed(pairs: Sequence[Pair]) -> int | None:
    """Where the first run is the best one: to tell it from the next best."""
    return images_needed(max(pairs, key=lambda one: one.difference))


def _seconds(run: Measured) -> float:
    """That the model took, wherever it was measured."""
    return run.metrics.trained_s or sum(run.metrics.seconds.values())


def _kept(run: Measured) -> int:
    """Images that its frozen network did not have to see; where a network is tuned, nothing is kept between runs."""
    metrics = run.metrics
    if metrics.scenario not in _BY_FEATURES or metrics.evaluates:
        return 0
    return max(0, metrics.counters.images - metrics.counters.forwarded)


def _alone(run: Measured, found: Sequence[Measured]) -> float | None:
    """With the features that it was spared, at the rate at which some run of the same network passed images.

    A run that trains passes them more slowly, so the quickest of them is taken, and that is still no less than fair.
    """
    kept = _kept(run)
    if not kept:
        return _seconds(run)
    rates = [
        one.metrics.images_per_s
        for one in found
        if one.metrics.model == run.metrics.model
        and one.metrics.counters.forwarded
        and not one.metrics.evaluates
    ]
    fastest = max(rates, default=0.0)
    return _seconds(run) + kept / fastest if fastest > 0 else None


def _model(run: Measured) -> str:
    return run.metrics.evaluates or run.run_id


Key = tuple[str, str, str]  # of an image: path, content ("" within one version), label


def _right_by_image(workspace: Workspace, found: Sequence[Measured]) -> list[dict[Key, bool]]:
    """Which images each run got right. Between versions an image is the same when its content is, too."""
    if len({(one.metrics.dataset, one.metrics.reported) for one in found}) > 1:
        raise _not_the_same(found)
    one_version = len({one.metrics.dataset_version for one in found}) == 1
    result = []
    for one in found:
        manifest = {} if one_version else _manifest(workspace, one, needed=True)
        result.append(
            {
                (
                    said.path,
                    manifest[said.path].sha256 if said.path in manifest else "",
                    said.label,
                ): said.right
                for said in one.said
            }
        )
    return result


def _common(found: Sequence[Measured], by_image: Sequence[dict[Key, bool]]) -> list[Key]:
    """The images that all runs were measured on, in the order of the first one."""
    shared = set(by_image[0]).intersection(*by_image[1:])
    if not shared:
        raise _not_the_same(found)
    return [key for key in by_image[0] if key in shared]


def _groups(workspace: Workspace, run: Measured, images: Sequence[Key]) -> list[str] | None:
    """The group of each image; None where images stand alone."""
    manifest = _manifest(workspace, run)
    group_of = {path: image.group for path, image in manifest.items() if image.group is not None}
    if not any(path in group_of for path, _, _ in images):
        return None
    return [group_of.get(path, f"alone {path}") for path, _, _ in images]


def _manifest(workspace: Workspace, run: Measured, *, needed: bool = False) -> dict[str, Image]:
    """The images by path; without any where the store has lost the version and nothing depends on it."""
    try:
        loaded = load_manifest(workspace.store, run.metrics.dataset, run.metrics.dataset_version)
    except NotFoundError:
        if needed:
            raise
        return {}
    return {image.path: image for image in loaded.images}


def _not_the_same(found: Sequence[Measured]) -> TlvmError:
    first, last = found[0], found[-1]
    parts = [
        f"{one.run_id}: {one.metrics.reported} of {one.metrics.dataset} {one.metrics.dataset_version[:8]}"
        for one in found
    ]
    return DataError(
        "These runs were not measured on the same images",
        detail="\n".join(parts),
        next=f"tlvm evaluate {short(last.run_id)} --on {first.metrics.dataset}@{first.metrics.dataset_version[:8]} "
        "measures one on the images of the other; compare that.",
    )
