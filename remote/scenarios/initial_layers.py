"""Little new data, different from the old: a classifier on what earlier layers of the frozen network see.

The last layers of a network know the things it was trained on; its first ones know edges, colours and textures, which
other images have too. How far the network helps is measured: the stage, or all stages up to one, that held-out images
of train speak for.
"""

from __future__ import annotations

from remote import frozen
from remote.contract.metrics import Counters, Frozen
from remote.errors import CannotRun
from remote.heads import curve, logistic
from remote.networks import backbones, depths, stage_head, stages
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
        spec, ends = input_spec(task, source), depths.stage_ends(network, str(task.parameters["stages"]))
        if not ends:
            raise CannotRun(
                f"tlvm does not know the stages of {task.spec.model}: name modules of it with `stages`"
            )
        task.events.emit("network", stages=stages.as_event(stages.stages(network, spec.crop)))
        says(f"on one of {len(ends)} stages, or all up to one: held-out images of train will say which")

    with task.step("preprocess") as says:
        samples = keep_samples(task, spec, task.images("train"))
        says(f"turned by EXIF, {spec.text}, mean and deviation as the network knows them")

    with task.step("extract") as says:
        pooling = str(task.parameters["pooling"])
        deviations = pooling != depths.MEAN
        wanted = {*depths.blocks_of(ends, deviations=deviations), *depths.blocks_of(ends, deviations=False)}
        seen = frozen.look(task, network, spec, wanted=[*sorted(wanted), depths.LAST])
        says(frozen.in_words(task, seen))
        show_samples(task, spec, samples)
        suspected = frozen.suspect_groups(task, seen)

    with task.step("train") as says:
        train = frozen.training_rows(task, seen, task.images("train"))
        alone = frozen.by_depth(
            task, seen, train, curve.singles(ends, deviations=deviations), all_images=True
        )
        together = frozen.by_depth(
            task, seen, train, curve.combinations(ends, deviations=deviations), all_images=True
        )
        chosen = curve.simplest([one for one in (*alone, *together) if one.choice.stages]).choice
        frozen.draw(task, alone, chosen.name, together=together)
        says(f"{frozen.curve_in_words(alone)} · all up to each {frozen.curve_in_words(together)}")

        def fitted(train: frozen.Train) -> logistic.LinearHead:
            return logistic.fit(
                chosen.of(seen.extraction.blocks, train.rows),
                train.labels,
                train.fold_of,
                train.penalties,
                classes=len(task.classes),
                judges=train.judges,
                on_fit=task.progress("train", len(train.penalties), "penalties"),
                should_stop=task.should_stop,
            )

        found = fitted(train)
        shares = frozen.class_shares(task, found, train)
        head = frozen.supposing(found, train, shares)
        trained = head.weight.numel() + head.bias.numel()
        says(
            f"chosen: {chosen.name}, {head.weight.shape[1]} features, {trained:,} parameters train; penalty "
            f"{head.penalty:.2g}, {head.accuracy:.3f} ± {head.accuracy_error:.3f}" + shares.text
        )
        kept, more = head, frozen.with_val(task, seen, train, head.penalty)
        if more:
            kept = frozen.supposing(fitted(more), more, shares)
            says(f"fitted again on train and val, {more.usual} images: test is the figure that is reported")

    with task.step("evaluate") as says:
        equal = frozen.check_unmoved(network, seen)
        network.module.to("cpu")
        stage_head.attach(network, kept.weight, kept.bias)
        evaluations, predicted = frozen.measured(
            task, head, kept, seen, lambda rows: chosen.of(seen.extraction.blocks, rows), shares.prior
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
        training={
            **frozen.told(head, more),
            **shares.told,
            "suspected_groups": suspected,
            "chosen": chosen.name,
            "stages": list(chosen.stages),
            "pooling": pooling,
            "together": [one.depth.__dict__ for one in together],
        },
        prior=shares.prior,
        by_depth=[one.depth for one in alone],
        stages=list(chosen.stages),
        pooling=pooling,
    )
    finish(task, network, spec, findings)
