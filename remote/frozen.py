"""What scenarios share that leave the network as it is: its features of every image, at every depth, and the figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from remote.contract import document
from remote.contract.dataset_manifest import Image
from remote.contract.metrics import IMBALANCED, Evaluation
from remote.errors import CannotRun
from remote.features.extraction import KEEP_EVERY_S, Extraction, Row, extract
from remote.features.feature_cache import FeatureCache, Floats32, key_of
from remote.features.views import CENTRE, views
from remote.heads import balance, curve, logistic
from remote.heads.balance import ClassShares
from remote.heads.curve import Choice, Judged
from remote.heads.folds import NEVER, folds, holdout
from remote.images.preprocessing import Preprocessing
from remote.measures.evaluation import Floats, Labels
from remote.measures.grouping import suspicions
from remote.networks import backbones, depths
from remote.result import measure, train_images
from remote.results.artefacts import Predicted
from remote.task import Task, device_name

CURVE = "by_depth.svg"  # beside metrics.json
_HOLDOUT = 0.2  # of train, where there are too many images for folds
HELD_OUT = "train, held out"
_CHOSE = "the penalty and the temperature"
_FITTED_LATER = "nothing; the classifier that is kept was fitted on them too, once they were measured"
_CURVE_IMAGES = 2_000  # of train, at most, where the curve only informs: a fraction of a second a stage


@dataclass(frozen=True)
class Seen:
    """Every image as the frozen network sees it, and proof that the network stayed as it was."""

    rows: list[Row]
    extraction: Extraction
    ends: list[str]  # of the network's stages
    before: dict[str, str]  # fingerprint of the network

    def of(self, split: str) -> list[int]:
        """The rows of a split, each image once, in the order of the manifest."""
        return [
            index for index, row in enumerate(self.rows) if row.image.split == split and row.view == CENTRE
        ]

    def images(self, rows: Sequence[int]) -> list[Image]:
        return [self.rows[row].image for row in rows]


@dataclass(frozen=True)
class Train:
    """The rows that a classifier is fitted on, further views of an image behind all images seen the usual way."""

    rows: list[int]
    labels: Labels
    fold_of: NDArray[np.int64]
    judges: NDArray[np.bool_]  # the rows seen the usual way
    penalties: list[float]

    @property
    def usual(self) -> int:
        """Images, each counted once."""
        return int(self.judges.sum())


def look(
    task: Task,
    network: backbones.Network,
    spec: Preprocessing,
    *,
    wanted: Sequence[str],
    splits: Sequence[str] = ("train", "val", "test"),
) -> Seen:
    """One pass over all images; what this machine has computed before is not computed again. Its head is gone then.

    wanted      the blocks that this scenario needs
    """
    ends = depths.stage_ends(network, str(task.parameters["stages"]))
    backbones.remove_head(network)
    backbones.place(network.module, task.device)
    before = backbones.fingerprint(network.module)
    train = task.images("train")
    count = task.integer("views") if "views" in task.parameters else 1
    further = [view for view in views(count, task.manifest.flips) if view != CENTRE]
    rows = [Row(image) for image in task.images(*splits)]
    rows += [Row(image, view) for view in further for image in train]
    extraction = extract(
        network,
        rows,
        task.reader,
        spec,
        ends=ends,
        cache=cache_of(task, spec, ends, before),
        batch_size=task.integer("batch_size"),
        workers=task.workers,
        device=task.device,
        wanted=wanted,
        keep_every_s=min(KEEP_EVERY_S, task.checkpoints.rhythm.least_s),
        on_progress=task.progress("extract", len(rows), "images"),
        should_stop=task.should_stop,
    )
    warn(task, extraction)
    return Seen(rows, extraction, ends, before)


def warn(task: Task, extraction: Extraction) -> None:
    """What did not go as it should, in the run's log."""
    if extraction.at_a_time:
        task.events.log(
            f"Out of memory: from some point on {extraction.at_a_time} images passed through the network at a time",
            level="warning",
        )
    if extraction.trouble:
        task.events.log(f"Features are not kept for later runs: {extraction.trouble}", level="warning")


def cache_of(task: Task, spec: Preprocessing, ends: Sequence[str], before: dict[str, str]) -> FeatureCache:
    """Where this machine keeps the features of this network. `before`: its fingerprint."""
    key = key_of(
        {
            "model": task.spec.model,
            "tensors": sorted(before.items()),
            "preprocessing": asdict(spec),
            "window": task.manifest.intensity_window,
            "stages": list(ends),
            "dtype": "float32",
            "device": device_name(task.device),
        }
    )
    return FeatureCache(task.home.cache / "features", key, int(task.number("cache_gb") * 1e9))


def in_words(task: Task, seen: Seen) -> str:
    found = seen.extraction
    kept = f" · {found.found} were computed before on this machine" if found.found else ""
    speed = f" · {found.images_per_s:.0f} img/s" if found.forwarded else ""
    seen_as = (
        "each once" if len(seen.rows) == len(task.images("train", "val", "test")) else "with their views"
    )
    return (
        f"{found.forwarded} of {len(seen.rows)} images, {seen_as}{kept}{speed} · {found.seconds:.1f} s "
        f"on {device_name(task.device)}"
    )


def suspect_groups(task: Task, seen: Seen) -> list[dict[str, Any]]:
    """Said loudly where the names of train images hide groups; what was found, for metrics.json."""
    rows = seen.of("train")
    images = seen.images(rows)
    features = seen.extraction.blocks[depths.LAST][rows]
    found = suspicions(features, task.labels(images), images, seed=task.spec.seed)
    for one in found:
        if one.large:
            task.events.log(one.text, level="warning")
            print(one.text, flush=True)
    return [asdict(one) for one in found]


def training_rows(task: Task, seen: Seen, images: Sequence[Image]) -> Train:
    """What a classifier is fitted on: the views of one image are held out together, and only the usual one judges.

    images      of train
    """
    fold_of = dict(zip((image.path for image in images), _fold_of(task, images), strict=True))
    rows = [index for index, row in enumerate(seen.rows) if row.image.path in fold_of]
    return Train(
        rows=rows,
        labels=task.labels(seen.images(rows)),
        fold_of=np.array([fold_of[seen.rows[row].image.path] for row in rows], dtype=np.int64),
        judges=np.array([seen.rows[row].view == CENTRE for row in rows], dtype=np.bool_),
        penalties=_penalties(task),
    )


def with_val(task: Task, seen: Seen, train: Train, penalty: float) -> Train | None:
    """Train and val for a last fit with the penalty that train chose; None where val is the reported figure."""
    val = seen.of("val")
    if task.parameters["refit"] == "off" or task.reported == "val" or not val:
        return None
    rows = [*train.rows, *val]
    return Train(
        rows=rows,
        labels=task.labels(seen.images(rows)),
        fold_of=np.concatenate([train.fold_of, np.full(len(val), NEVER)]),
        judges=np.concatenate([train.judges, np.ones(len(val), dtype=np.bool_)]),
        penalties=[penalty],
    )


def class_shares(
    task: Task, head: logistic.LinearHead, train: Train, *, has_bias: bool = True
) -> ClassShares:
    """The shares that the classifier is to suppose, where the parameter `balance` asks for others than those of train.

    Rare classes are else hardly ever said. auto, past 3 to 1: as far towards equal shares as held-out images of train find worth its price.
    """
    counts, wanted = train_images(task), str(task.parameters["balance"])
    if wanted == "off" or (wanted == "auto" and counts.max() <= IMBALANCED * counts.min()):
        return ClassShares(None, [], None)
    if not has_bias:
        task.events.log(
            f"The classes are unequal ({counts.max()} to {counts.min()}), and the head of a {task.spec.model} has no "
            "bias to balance them with: rare classes may be missed",
            level="warning",
        )
        return ClassShares(None, [], None)
    labels = train.labels[head.held_out]
    judged = balance.judge(head, labels, counts.tolist())
    chosen = judged.each[-1] if wanted == "on" else balance.choose(judged)
    shares = balance.prior(counts.tolist(), chosen.strength) if chosen.strength else None
    return ClassShares(shares, judged.each, chosen)


def supposing(head: logistic.LinearHead, train: Train, shares: ClassShares) -> logistic.LinearHead:
    """The head, fitted on these rows, for a world of these shares."""
    if shares.prior is None:
        return head
    counts = np.bincount(train.labels[train.judges], minlength=len(shares.prior))
    return balance.apply(head, train.labels[head.held_out], counts.tolist(), shares.prior)


def by_depth(
    task: Task, seen: Seen, train: Train, choices: Sequence[Choice], *, all_images: bool
) -> list[Judged]:
    """Each choice judged on the same folds inside train.

    all_images  False: it only informs, so some images are enough
    """
    usual = np.flatnonzero(train.judges)
    if not all_images and len(usual) > _CURVE_IMAGES:
        usual = _some(usual, train.labels[usual], seen, train)
    return curve.judge(
        choices,
        seen.extraction.blocks,
        [train.rows[index] for index in usual],
        train.labels[usual],
        train.fold_of[usual],
        train.penalties[::2],
        classes=len(task.classes),
        should_stop=task.should_stop,
    )


def draw(task: Task, alone: Sequence[Judged], chosen: str, *, together: Sequence[Judged] = ()) -> None:
    """The curve as a picture in the result. `together`: all stages up to one."""
    task.folder.result.mkdir(parents=True, exist_ok=True)
    title = f"{task.spec.model} on {task.spec.dataset.name}: accuracy by depth, held out inside train"
    depths_alone, depths_together = ([one.depth for one in judged] for judged in (alone, together))
    picture = curve.picture(depths_alone, depths_together, chosen, title=title)
    document.write_text(task.folder.result / CURVE, picture)


def curve_in_words(judged: Sequence[Judged]) -> str:
    return "by depth " + " ".join(f"{one.depth.accuracy:.3f}" for one in judged)


def measured(
    task: Task,
    head: logistic.LinearHead,
    kept: logistic.LinearHead,
    seen: Seen,
    values: Callable[[Sequence[int]], Floats32],
    prior: list[float] | None,
) -> tuple[list[Evaluation], list[Predicted]]:
    """Held-out images of train, then val, then test: the last one that is there is the result.

    head        fitted on train alone, by which held-out images and val are judged
    kept        the model's, which is another one where val has served to fit it
    values      what the head is given for rows
    prior       class shares that its probabilities suppose
    """
    train = task.images("train")
    held_out = [image for image, out in zip(train, head.held_out[: len(train)], strict=True) if out]

    def figures(
        name: str, images: Sequence[Image], logits: Floats, by: logistic.LinearHead, chose: str
    ) -> Evaluation:
        return measure(task, name, images, logits, temperature=by.temperature, chose=chose, prior=prior)

    evaluations = [figures(HELD_OUT, held_out, head.held_out_logits, head, _CHOSE)]
    predicted = []
    for split, by, chose in (
        ("val", head, "nothing" if kept is head else _FITTED_LATER),
        ("test", kept, "nothing"),
    ):
        if rows := seen.of(split):
            part = Predicted(seen.images(rows), by.logits(values(rows)))
            evaluations.append(figures(split, part.images, part.logits, by, chose))
            predicted.append(part)
    return evaluations, predicted


def check_unmoved(network: backbones.Network, seen: Seen) -> int:
    """How many tensors were compared and found equal to the bit: all. AssertionError otherwise."""
    equal = backbones.equal_tensors(seen.before, backbones.fingerprint(network.module))
    if equal < len(seen.before):
        raise AssertionError(f"{len(seen.before) - equal} frozen tensors changed during the run")
    return equal


def judges_of(head: logistic.LinearHead) -> str:
    return f"{head.folds} folds" if head.folds > 1 else "a holdout"


def told(head: logistic.LinearHead, fitted_on: Train | None) -> dict[str, Any]:
    """For metrics.json. `fitted_on`: train and val, where both served."""
    return {
        "fitted_on": ["train", "val"] if fitted_on else ["train"],
        "penalty": head.penalty,
        "penalties": [asdict(candidate) for candidate in head.candidates],
        "judged_by": judges_of(head),
        "held_out_accuracy": round(head.accuracy, 6),
        "held_out_accuracy_error": round(head.accuracy_error, 6),
    }


def _fold_of(task: Task, train: Sequence[Image]) -> NDArray[np.int64]:
    if len(train) > task.integer("holdout_above"):
        return np.where(holdout(train, share=_HOLDOUT, seed=task.spec.seed), 0, NEVER)
    found = folds(train, most=task.integer("folds"), seed=task.spec.seed)
    if (found == NEVER).all():
        raise CannotRun(
            "No class has two different images in train, so nothing can choose the penalty. Add some."
        )
    return found


def _penalties(task: Task) -> list[float]:
    strongest, weakest = task.number("penalty_max"), task.number("penalty_min")
    if weakest > strongest:
        raise CannotRun(f"penalty_min is {weakest:g}, above penalty_max, {strongest:g}")
    return [float(penalty) for penalty in np.geomspace(strongest, weakest, task.integer("penalties"))]


def _some(usual: NDArray[np.int64], labels: Labels, seen: Seen, train: Train) -> NDArray[np.int64]:
    """About `_CURVE_IMAGES` of these rows, of every class the same share, by content; in their order."""
    share = _CURVE_IMAGES / len(usual)
    kept: list[int] = []
    for label in np.unique(labels):
        own = sorted(usual[labels == label], key=lambda index: seen.rows[train.rows[index]].image.sha256)
        kept.extend(own[: max(2, round(share * len(own)))])
    return np.array(sorted(kept), dtype=np.int64)
