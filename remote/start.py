"""How a run begins: with which network, and whose weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from remote.contract.scenarios import scenario
from remote.errors import CannotRun
from remote.images.preprocessing import Preprocessing, framed, of_weights, with_image_size
from remote.networks import backbones, weights
from remote.task import Task


@dataclass(frozen=True)
class Source:
    """The weights that a run begins with."""

    text: str  # for people
    preprocessing: Preprocessing  # what they were made for


def select(task: Task) -> str:
    """What was chosen, in words."""
    spec = task.spec
    counts = ", ".join(f"{split} {len(task.images(split))}" for split in ("train", "val", "test"))
    return (
        f"{spec.model} for {spec.scenario} ({scenario(spec.scenario).cell}); "
        f"{spec.dataset.name} {spec.dataset.version[:6]}: {len(task.classes)} classes, {counts}"
    )


def load_backbone(task: Task) -> tuple[backbones.Network, Source]:
    """The network with the weights that the spec names; its head is new. CannotRun when they can't be used."""
    spec = task.spec
    network = backbones.build(spec.model, len(task.classes), seed=spec.seed)
    if spec.weights.source == "none":
        return network, Source(
            f"{spec.model} with new weights from seed {spec.seed}: nothing pre-trained",
            of_weights(spec.model),
        )
    file = weights.read(task.home.weights(spec.weights.sha256), sha256=spec.weights.sha256)
    made_for = file.metadata.get("model", spec.model)
    if made_for != spec.model:
        raise CannotRun(f"The weights ({spec.weights.source}) are of a {made_for}, not of a {spec.model}.")
    weights.load(network, file.tensors, with_head=False)
    text = (
        f"{spec.model}, {spec.weights.source}, sha256 {spec.weights.sha256[:8]} ok, every tensor in its place"
    )
    return network, Source(text, _preprocessing(file.metadata) or of_weights(spec.model))


def input_spec(task: Task, source: Source) -> Preprocessing:
    """What the network was made to see, or another size or part of the image where the parameters say so."""
    sized = with_image_size(source.preprocessing, task.integer("image_size"))
    return framed(sized, str(task.parameters.get("framing", "crop")))


def _preprocessing(metadata: dict[str, Any]) -> Preprocessing | None:
    """What stands in a model of ours."""
    if "preprocessing" not in metadata:
        return None
    try:
        return Preprocessing(**metadata["preprocessing"])
    except (TypeError, ValueError) as error:
        raise CannotRun(f"The weights name a preprocessing that is none: {error}") from None
