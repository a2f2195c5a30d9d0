"""Little new data, similar to the old: only a new classifier is trained, on features of the frozen network."""

from __future__ import annotations

import torch

from remote import frozen
from remote.contract.metrics import Counters, Frozen
from remote.heads import curve, logistic
from remote.networks import backbones, depths, stages
from remote.result import Findings, finish, in_words, keep_samples, show_samples
from remote.start import input_spec, load_backbone, select
from remote.task import Task


def run(task: Task) -> None:
    """From images to a result. Each image is decoded once and passes through the network once."""
    with task.step("select") as says:
        says(select(task))

    with task.step("load") as says:
        network, source = load_backbone(task)
        says(source.text)

    with task.step("freeze") as says:
        backbones.freeze(network.module)
        parameters = backbones.parameter_count(network.module) - backbones.parameter_count(network.head)
        says(
            f"{parameters:,} parameters frozen, normalisation too: it keeps the statistics that it came with"
        )

    with task.step("head") as says:
        classes, width = len(task.classes), network.feature_count
        network.set_head(backbones.new_head(network, torch.zeros(classes, width), torch.zeros(classes)))
        trained = backbones.parameter_count(network.head)
        spec = input_spec(task, source)
        task.events.emit("network", stages=stages.as_event(stages.stages(network, spec.crop)))
        says(
            f"{width} features → {classes} classes: {trained:,} parameters train ({100 * trained / (trained + parameters):.2f} %)"
        )

    with task.step("preprocess") as says:
        samples = keep_samples(task, spec, task.images("train"))
        says(f"turned by EXIF, {spec.text}, mean and deviation as the network knows them")

    with task.step("extract") as says:
        ends = depths.stage_ends(network, str(task.parameters["stages"]))
        seen = frozen.look(task, network, spec, wanted=[*map(depths.mean_of, ends), depths.LAST])
        says(frozen.in_words(task, seen))
        show_samples(task, spec, samples)
        suspected = frozen.suspect_groups(task, seen)

    with task.step("train") as says:
        train = frozen.training_rows(task, seen, task.images("train"))

        def fitted(train: frozen.Train) -> logistic.LinearHead:
            return logistic.fit(
                seen.extraction.features[train.rows],
                train.labels,
                train.fold_of,
                train.penalties,
                classes=classes,
                bias=network.has_bias,
                judges=train.judges,
                on_fit=task.progress("train", len(train.penalties), "penalties"),
                should_stop=task.should_stop,
            )

        found = fitted(train)
        shares = frozen.class_shares(task, found, train, has_bias=network.has_bias)
        head = frozen.supposing(found, train, shares)
        says(
            f"{len(head.candidates)} penalties × {frozen.judges_of(head)} inside train: {head.penalty:.2g} chosen, "
            f"{head.accuracy:.3f} ± {head.accuracy_error:.3f}" + shares.text
        )
        choices = curve.singles(seen.ends, deviations=False)
        by_depth = frozen.by_depth(task, seen, train, choices, all_images=False)
        frozen.draw(task, by_depth, depths.LAST)
        says(frozen.curve_in_words(by_depth))
        kept, more = head, frozen.with_val(task, seen, train, head.penalty)
        if more:
            kept = frozen.supposing(fitted(more), more, shares)
            says(f"fitted again on train and val, {more.usual} images: test is the figure that is reported")

    with task.step("evaluate") as says:
        equal = frozen.check_unmoved(network, seen)
        network.module.to("cpu")
        network.set_head(backbones.new_head(network, kept.weight, kept.bias))
        evaluations, predicted = frozen.measured(
            task, head, kept, seen, lambda rows: seen.extraction.features[list(rows)], shares.prior
        )
        for line in in_words(evaluations[-1]):
            says(line)
        says(f"frozen part: {equal} of {len(seen.before)} tensors equal to the bit")

    findings = Findings(
        evaluations=evaluations,
        predicted=predicted,
        temperature=kept.temperature,
        temperature_from=frozen.HELD_OUT,
        trained_parameters=trained,
        frozen=Frozen(parameters=parameters, tensors=len(seen.before), equal=equal),
        counters=Counters(
            images=len(task.images("train", "val", "test")),
            decoded=task.reader.decoded,
            forwarded=seen.extraction.forwarded,
        ),
        images_per_s=seen.extraction.images_per_s,
        training={**frozen.told(head, more), **shares.told, "suspected_groups": suspected},
        prior=shares.prior,
        by_depth=[one.depth for one in by_depth],
    )
    finish(task, network, spec, findings)
